//! Spectral densities of matrices whose spectrum is known.

use approx::{assert_abs_diff_eq, assert_relative_eq};
use lapidary_curvature::density::{Density, DensityOptions, density};
use lapidary_curvature::operator::Diagonal;
use lapidary_curvature::{CurvatureError, LinearOperator};

use super::support::{hessian_like, with_spectrum};

fn of(operator: &mut dyn LinearOperator, options: &DensityOptions) -> Density {
    density(operator, options, &mut |_| ()).unwrap()
}

#[test]
fn moments_and_shares_of_a_large_spectrum() {
    // Semicircle-like: values of a cosine, which crowd at the ends.
    let entries: Vec<f32> = (0..20_000).map(|i| 2.0 + (i as f32 * 0.001).cos()).collect();
    let mut operator = Diagonal { entries: entries.clone() };
    let options = DensityOptions { probes: 8, steps: 30, seed: 1 };
    let found = of(&mut operator, &options);
    assert_eq!(found.products, 240);
    assert_relative_eq!(found.moment(0), 1.0, max_relative = 1e-9);
    for k in 1..=4 {
        let expected = entries.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / entries.len() as f64;
        assert_relative_eq!(found.moment(k), expected, max_relative = 0.01);
    }
    let below = entries.iter().filter(|&&x| x < 1.5).count() as f64 / entries.len() as f64;
    assert_abs_diff_eq!(found.share_below(1.5), below, epsilon = 0.03);
    // The curve is a density.
    let places: Vec<f64> = (0..2001).map(|i| f64::from(i) * 0.002).collect();
    let curve = found.at(&places, 0.05);
    let area: f64 = curve.iter().sum::<f64>() * 0.002;
    assert_relative_eq!(area, 1.0, max_relative = 0.01);
    assert!(curve.iter().all(|&y| y >= 0.0) && curve[500] > 2.0 * curve[1000], "crowded at the ends");
}

#[test]
fn few_distinct_eigenvalues_are_found_exactly() {
    let mut spectrum = vec![1.0; 30];
    spectrum[20..].fill(-2.0);
    let found = of(&mut with_spectrum(&spectrum, 6), &DensityOptions { probes: 30, steps: 10, seed: 0 });
    assert!(found.products <= 90, "{}: a process that has seen everything ends", found.products);
    let share = found.share_below(0.0);
    assert_abs_diff_eq!(share, 1.0 / 3.0, epsilon = 0.06);
    for node in found.nodes.iter().filter(|node| node.weight > 1e-6) {
        let distance = (node.value - 1.0).abs().min((node.value + 2.0).abs());
        assert!(distance < 1e-4, "{node:?}");
    }
}

#[test]
fn outliers_have_their_share() {
    let mut operator = hessian_like(1000, &[10.0]);
    let found = of(&mut operator, &DensityOptions { probes: 20, steps: 40, seed: 0 });
    let far = 1.0 - found.share_below(5.0);
    assert!((0.0003..0.003).contains(&far), "{far}, should be a thousandth");
}

#[test]
fn bad_calls_are_errors() {
    let run = |operator: &mut dyn LinearOperator, options: DensityOptions| {
        density(operator, &options, &mut |_| ()).unwrap_err()
    };
    let mut matrix = Diagonal { entries: vec![1.0; 10] };
    assert!(matches!(run(&mut matrix, DensityOptions { probes: 0, ..Default::default() }), CurvatureError::Count(_)));
    assert!(matches!(run(&mut matrix, DensityOptions { steps: 0, ..Default::default() }), CurvatureError::Count(_)));
    let mut empty = Diagonal { entries: vec![] };
    assert!(matches!(run(&mut empty, DensityOptions::default()), CurvatureError::Empty));
    let mut bad = Diagonal { entries: vec![f32::NAN; 10] };
    assert!(matches!(run(&mut bad, DensityOptions::default()), CurvatureError::NonFinite { product: 1 }));
}
