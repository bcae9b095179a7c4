//! Lanczos against matrices whose spectrum is known.

use approx::assert_relative_eq;
use lapidary_curvature::eigen::{
    LanczosOptions, PowerOptions, Spectrum, lanczos, lanczos_top, top_eigenvalue, top_eigenvalues,
};
use lapidary_curvature::operator::Diagonal;
use lapidary_curvature::{CurvatureError, Dense, LinearOperator, dot, norm};
use lapidary_kernels::rng::Stream;
use proptest::prelude::*;

use super::support::{hessian_like, with_spectrum};

fn ends(operator: &mut dyn LinearOperator, options: &LanczosOptions) -> Spectrum {
    lanczos(operator, options, &mut |_| ()).unwrap()
}

fn values(eigens: &[lapidary_curvature::Eigen]) -> Vec<f64> {
    eigens.iter().map(|eigen| eigen.value).collect()
}

#[test]
fn both_ends_of_a_large_spectrum_in_few_products() {
    let mut operator = hessian_like(5000, &[10.0, 7.0, 3.0, -2.0, -1.0]);
    let options = LanczosOptions { largest: 3, smallest: 2, ..Default::default() };
    let found = ends(&mut operator, &options);
    assert!(found.converged() && found.products < 40, "{} products", found.products);
    for (found, expected) in values(&found.largest).iter().zip([10.0, 7.0, 3.0]) {
        assert_relative_eq!(*found, expected, max_relative = 1e-6);
    }
    for (found, expected) in values(&found.smallest).iter().zip([-2.0, -1.0]) {
        assert_relative_eq!(*found, expected, max_relative = 1e-4);
    }
    for eigen in found.largest.iter().chain(&found.smallest) {
        assert_relative_eq!(norm(&eigen.vector), 1.0, max_relative = 1e-6);
        // A diagonal matrix: the eigenvector is the axis of its entry.
        let axis = eigen.vector.iter().position(|v| v.abs() > 0.5).unwrap();
        assert!(eigen.vector[axis].abs() > 0.999);
    }
    let vectors: Vec<&[f32]> = found.largest.iter().map(|eigen| eigen.vector.as_slice()).collect();
    assert!(dot(vectors[0], vectors[1]).abs() < 1e-6);
}

#[test]
fn the_top_whatever_its_sign_in_fewer_products_than_by_power_iteration() {
    let options = PowerOptions { tolerance: 1e-6, ..Default::default() };
    for top in [[10.0, 9.0, -4.0], [4.0, -9.0, -10.0], [5.0, 4.0, -5.0]] {
        let mut operator = hessian_like(5000, &top);
        let found = lanczos_top(&mut operator, &options, &mut |_| ()).unwrap();
        let expected = f64::from(top.iter().fold(0f32, |most, value| most.max(value.abs())));
        assert!(found.converged && found.residual < 1e-3, "{top:?}: residual {}", found.residual);
        assert_relative_eq!(found.value.abs(), expected, max_relative = 1e-6);
        let slow = top_eigenvalue(&mut operator, &options, &mut |_| ()).unwrap();
        assert!(2 * found.iterations < slow.iterations, "{} and {}", found.iterations, slow.iterations);
    }
    // Every start, every gap that a thousand values from 1 to 2 leave.
    let mut dense = Diagonal { entries: (0..1000).map(|i| 1.0 + i as f32 / 999.0).collect() };
    let found = lanczos_top(&mut dense, &PowerOptions { tolerance: 1e-4, ..options }, &mut |_| ()).unwrap();
    assert!(found.converged && (found.value - 2.0).abs() < 0.02, "{}", found.value);
}

#[test]
fn the_top_of_what_is_small_zero_or_too_slow() {
    let options = PowerOptions::default();
    let top = |operator: &mut dyn LinearOperator, options: &PowerOptions| lanczos_top(operator, options, &mut |_| ());
    let zero = top(&mut Dense::new(4, vec![0.0; 16]).unwrap(), &options).unwrap();
    assert!(zero.converged && zero.value == 0.0 && zero.residual == 0.0);
    assert_eq!(top(&mut Dense::new(1, vec![-2.5]).unwrap(), &options).unwrap().value, -2.5);
    assert!(matches!(top(&mut Dense::new(0, vec![]).unwrap(), &options), Err(CurvatureError::Empty)));
    let nan = top(&mut Dense::new(2, vec![f32::NAN; 4]).unwrap(), &options);
    assert!(matches!(nan, Err(CurvatureError::NonFinite { product: 1 })));
    let mut slow = hessian_like(5000, &[10.0, 9.9]);
    let early = top(&mut slow, &PowerOptions { iterations: 2, tolerance: 1e-9, seed: 1 }).unwrap();
    assert!(!early.converged && early.iterations == 3 && early.residual > 1e-2);
}

#[test]
fn as_accurate_as_asked() {
    let spectrum = [9.0, 8.5, 8.0, 2.0, 1.0, 0.5, 0.0, -0.25, -3.0, -3.5];
    let mut matrix = with_spectrum(&spectrum, 2);
    let options = LanczosOptions { largest: 4, smallest: 3, tolerance: 1e-6, basis: 12, ..Default::default() };
    let found = ends(&mut matrix, &options);
    assert!(found.converged());
    for (found, expected) in values(&found.largest).iter().zip([9.0, 8.5, 8.0, 2.0]) {
        assert_relative_eq!(*found, expected, max_relative = 1e-6);
    }
    for (found, expected) in values(&found.smallest).iter().zip([-3.5, -3.0, -0.25]) {
        assert_relative_eq!(*found, expected, epsilon = 1e-5);
    }
}

#[test]
fn a_small_basis_is_restarted_and_finds_the_same() {
    // No gap anywhere: 1000 values evenly from 1 to 2, which takes many vectors.
    let entries: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 / 999.0).collect();
    let found = |basis: usize| {
        let options =
            LanczosOptions { largest: 2, smallest: 1, tolerance: 1e-4, products: 600, basis, ..Default::default() };
        ends(&mut Diagonal { entries: entries.clone() }, &options)
    };
    let (small, large) = (found(20), found(400));
    assert!(small.converged() && large.converged());
    assert!(large.products < small.products, "{} {}", large.products, small.products);
    for found in [&small, &large] {
        assert_relative_eq!(found.largest[0].value, 2.0, max_relative = 1e-6);
        assert_relative_eq!(found.largest[1].value, 2.0 - 1.0 / 999.0, max_relative = 1e-5);
        assert_relative_eq!(found.smallest[0].value, 1.0, max_relative = 1e-6);
    }
}

#[test]
fn a_repeated_eigenvalue_comes_as_often_as_it_is_there_and_no_more() {
    let mut entries = vec![1.0f32; 50];
    entries[3] = 5.0;
    let options = LanczosOptions { largest: 4, smallest: 0, ..Default::default() };
    let found = ends(&mut Diagonal { entries }, &options);
    assert!(found.smallest.is_empty() && found.converged());
    for (found, expected) in values(&found.largest).iter().zip([5.0, 1.0, 1.0, 1.0]) {
        assert_relative_eq!(*found, expected, max_relative = 1e-5);
    }
}

#[test]
fn running_out_says_so() {
    let entries: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 / 999.0).collect();
    let options = LanczosOptions { tolerance: 1e-6, products: 10, ..Default::default() };
    let found = ends(&mut Diagonal { entries }, &options);
    assert!(!found.converged());
    assert!(found.largest[0].residual > 1e-4 && found.products == 12, "{}", found.products);
}

#[test]
fn more_than_there_are() {
    let options = LanczosOptions { largest: 5, smallest: 5, ..Default::default() };
    let found = ends(&mut Dense::new(2, vec![2.0, 1.0, 1.0, 2.0]).unwrap(), &options);
    assert!(found.converged());
    for (found, expected) in [(&found.largest, [3.0, 1.0]), (&found.smallest, [1.0, 3.0])] {
        for (found, expected) in values(found).iter().zip(expected) {
            assert_relative_eq!(*found, expected, max_relative = 1e-6);
        }
        assert_eq!(found.len(), 2);
    }
    let zero = ends(&mut Dense::new(3, vec![0.0; 9]).unwrap(), &LanczosOptions::default());
    assert!(zero.converged() && zero.largest[0].value == 0.0 && zero.largest[0].residual == 0.0);
}

#[test]
fn bad_calls_are_errors() {
    let mut matrix = with_spectrum(&[2.0, 1.0, 0.5], 1);
    let run = |operator: &mut dyn LinearOperator, options: LanczosOptions| {
        lanczos(operator, &options, &mut |_| ()).unwrap_err()
    };
    let none = LanczosOptions { largest: 0, smallest: 0, ..Default::default() };
    assert!(matches!(run(&mut matrix, none), CurvatureError::Count(_)));
    let narrow = LanczosOptions { largest: 2, smallest: 1, basis: 4, ..Default::default() };
    assert!(matches!(run(&mut matrix, narrow), CurvatureError::Basis { found: 4, needed: 5 }));
    let mut empty = Diagonal { entries: vec![] };
    assert!(matches!(run(&mut empty, LanczosOptions::default()), CurvatureError::Empty));
    let mut bad = Diagonal { entries: vec![1.0, f32::NAN, 2.0] };
    assert!(matches!(run(&mut bad, LanczosOptions::default()), CurvatureError::NonFinite { product: 1 }));
}

#[test]
fn deflated_power_iteration_finds_the_same() {
    let mut operator = hessian_like(500, &[10.0, -7.0, 3.0]);
    let options = PowerOptions { tolerance: 1e-6, ..Default::default() };
    let found = top_eigenvalues(&mut operator, 3, &options, &mut |_, _| ()).unwrap();
    for (found, expected) in values(&found).iter().zip([10.0, -7.0, 3.0]) {
        assert_relative_eq!(*found, expected, max_relative = 1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_spectrum(seed in 0u64..1000, dim in 1usize..24) {
        let mut stream = Stream::new(seed, 1);
        let mut spectrum: Vec<f64> = (0..dim).map(|_| f64::from(stream.normal())).collect();
        spectrum.sort_by(f64::total_cmp);
        let options = LanczosOptions { tolerance: 1e-5, basis: 8, products: 500, seed, ..Default::default() };
        let found = ends(&mut with_spectrum(&spectrum, seed), &options);
        let size = spectrum[0].abs().max(spectrum[dim - 1].abs());
        prop_assert!(found.converged());
        prop_assert!((found.largest[0].value - spectrum[dim - 1]).abs() < 1e-5 * size);
        prop_assert!((found.smallest[0].value - spectrum[0]).abs() < 1e-5 * size);
    }
}
