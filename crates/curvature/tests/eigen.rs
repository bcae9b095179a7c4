//! Power iteration against matrices whose spectrum is known.

use approx::assert_relative_eq;
use lapidary_curvature::{
    CurvatureError, Dense, Eigen, LinearOperator, PowerOptions, Shifted, norm, symmetric_error, top_eigenvalue,
};
use proptest::prelude::*;

use super::support::with_spectrum;

fn top(operator: &mut dyn LinearOperator, options: &PowerOptions) -> Eigen {
    top_eigenvalue(operator, options, &mut |_| ()).unwrap()
}

#[test]
fn positive_and_negative_dominant_eigenvalues() {
    for sign in [1.0, -1.0] {
        let mut matrix = with_spectrum(&[sign * 10.0, -4.0 * sign, 3.0, 0.5, 0.0, -1.0], 3);
        assert!(symmetric_error(&mut matrix, 3, 0).unwrap() < 1e-6);
        let eigen = top(&mut matrix, &PowerOptions { tolerance: 1e-8, ..Default::default() });
        assert!(eigen.converged && eigen.iterations < 40, "{eigen:?}");
        assert_relative_eq!(eigen.value, sign * 10.0, max_relative = 1e-5);
        assert_relative_eq!(norm(&eigen.vector), 1.0, max_relative = 1e-6);
        assert!(eigen.residual < 1e-3, "{}", eigen.residual);
    }
}

#[test]
fn the_other_end_of_the_spectrum_through_a_shift() {
    let matrix = with_spectrum(&[10.0, 6.0, 1.0, -3.0], 4);
    let eigen = top(
        &mut Shifted { operator: matrix, shift: -10.0 },
        &PowerOptions { iterations: 200, tolerance: 1e-8, seed: 0 },
    );
    assert_relative_eq!(eigen.value + 10.0, -3.0, max_relative = 1e-4);
}

#[test]
fn opposite_eigenvalues_do_not_pass_for_converged() {
    let mut matrix = with_spectrum(&[5.0, -5.0, 1.0], 5);
    let eigen = top(&mut matrix, &PowerOptions::default());
    assert!(!eigen.converged);
    assert_eq!(eigen.iterations, 100);
    assert!(eigen.residual > 0.1, "{}", eigen.residual);
}

#[test]
fn running_out_is_reported_with_the_residual() {
    let mut matrix = with_spectrum(&[5.0, 4.99, 4.98, 1.0, -3.0], 6);
    let eigen = top(&mut matrix, &PowerOptions { iterations: 2, tolerance: 1e-9, seed: 1 });
    assert!(!eigen.converged && eigen.iterations == 2 && eigen.residual > 0.0);
    let none = top(&mut matrix, &PowerOptions { iterations: 0, tolerance: 1e-3, seed: 1 });
    assert!(!none.converged && none.residual.is_infinite());
}

#[test]
fn zero_operator() {
    let eigen = top(&mut Dense::new(4, vec![0.0; 16]).unwrap(), &PowerOptions::default());
    assert_eq!((eigen.value, eigen.residual, eigen.iterations, eigen.converged), (0.0, 0.0, 1, true));
    assert_relative_eq!(norm(&eigen.vector), 1.0, max_relative = 1e-6);
}

#[test]
fn dimension_zero_and_one() {
    let error = top_eigenvalue(&mut Dense::new(0, vec![]).unwrap(), &PowerOptions::default(), &mut |_| ());
    assert!(matches!(error, Err(CurvatureError::Empty)));
    let eigen = top(&mut Dense::new(1, vec![-2.5]).unwrap(), &PowerOptions::default());
    assert!(eigen.converged);
    assert_relative_eq!(eigen.value, -2.5, max_relative = 1e-6);
}

/// Turns bad at a given product.
struct Spoiled {
    inner: Dense,
    left: usize,
    with: f32,
}

impl LinearOperator for Spoiled {
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.inner.apply(v, out)?;
        self.left -= 1;
        if self.left == 0 {
            out[1] = self.with;
        }
        Ok(())
    }
}

#[test]
fn nan_and_infinity_name_the_iteration() {
    for with in [f32::NAN, f32::INFINITY] {
        let mut spoiled = Spoiled { inner: with_spectrum(&[3.0, 2.9, 1.0], 1), left: 3, with };
        let error = top_eigenvalue(&mut spoiled, &PowerOptions { tolerance: 1e-9, ..Default::default() }, &mut |_| ());
        assert!(matches!(error, Err(CurvatureError::NonFinite { product: 3 })), "{error:?}");
    }
}

#[test]
fn deterministic_and_reported() {
    let mut matrix = with_spectrum(&[7.0, 5.0, 3.0, -6.0, 1.0], 2);
    let options = PowerOptions { tolerance: 1e-6, seed: 11, ..Default::default() };
    let mut steps = Vec::new();
    let first = top_eigenvalue(&mut matrix, &options, &mut |step| steps.push(step)).unwrap();
    assert_eq!(steps.len(), first.iterations);
    assert_eq!(steps.last().unwrap().value, first.value);
    assert_eq!(top(&mut matrix, &options), first);
}

proptest! {
    /// The residual bounds the distance to the spectrum. In so few dimensions a start can be all but orthogonal to the
    /// top eigenvector and settle on the next one, so the top is asked of the best of six starts.
    #[test]
    fn finds_the_top_of_random_spectra(
        others in prop::collection::vec(-0.8f64..0.8, 1..12),
        size in prop::sample::select(vec![1e-12, 1e-3, 1.0, 1e6]),
        negative: bool,
        seed in 0u64..1000,
    ) {
        let top_value = if negative { -size } else { size };
        let spectrum: Vec<f64> = others.iter().map(|x| x * size).chain([top_value]).collect();
        let mut matrix = with_spectrum(&spectrum, seed);
        let mut best: f64 = 0.0;
        for start in 0..6 {
            let eigen = top(&mut matrix, &PowerOptions { iterations: 300, tolerance: 1e-4, seed: seed + 1000 * start });
            prop_assert!(eigen.converged, "{eigen:?}");
            let nearest = spectrum.iter().map(|x| (x - eigen.value).abs()).fold(f64::INFINITY, f64::min);
            prop_assert!(nearest <= eigen.residual * eigen.value.abs() + 1e-5 * size);
            best = if eigen.value.abs() > best.abs() { eigen.value } else { best };
        }
        prop_assert!((best - top_value).abs() < 2e-3 * size, "{best} {top_value}");
    }
}
