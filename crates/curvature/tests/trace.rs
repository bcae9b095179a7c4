//! Hutch++ against traces that are known.

use approx::assert_relative_eq;
use lapidary_curvature::operator::Diagonal;
use lapidary_curvature::trace::{Trace, TraceOptions, trace};
use lapidary_curvature::{CurvatureError, LinearOperator};

use super::support::{hessian_like, with_spectrum};

fn of(operator: &mut dyn LinearOperator, options: &TraceOptions) -> Trace {
    trace(operator, options, &mut |_| ()).unwrap()
}

#[test]
fn outliers_are_computed_and_the_rest_is_estimated() {
    // A rank of four beside a matrix that is turned, so that signs do not see its diagonal.
    let mut spectrum = vec![0.01; 60];
    spectrum[..4].copy_from_slice(&[50.0, 20.0, 10.0, 5.0]);
    let expected: f64 = spectrum.iter().sum();
    let mut matrix = with_spectrum(&spectrum, 5);
    let found = of(&mut matrix, &TraceOptions { sketch: 6, ..Default::default() });
    assert!(found.converged && found.products == 20, "{found:?}");
    assert_relative_eq!(found.value, expected, max_relative = 1e-3);
}

#[test]
fn the_standard_error_covers_the_truth() {
    let mut spectrum: Vec<f64> = (0..100).map(|i| f64::from(i) / 50.0 - 0.7).collect();
    spectrum[0] = 9.0;
    let expected: f64 = spectrum.iter().sum();
    let mut within = 0;
    for seed in 0..40 {
        let mut matrix = with_spectrum(&spectrum, 9);
        let options = TraceOptions { tolerance: 1e-9, sketch: 4, products: 40, seed };
        let found = of(&mut matrix, &options);
        assert!(!found.converged && found.products == 40 && found.standard_error > 0.0);
        within += usize::from((found.value - expected).abs() < 2.0 * found.standard_error);
    }
    assert!((33..=40).contains(&within), "{within} of 40 within two standard errors");
}

#[test]
fn more_products_until_it_is_good_enough() {
    let products = |tolerance: f64| {
        let spectrum: Vec<f64> = (0..80).map(|i| 1.0 + f64::from(i % 7)).collect();
        let options = TraceOptions { tolerance, sketch: 4, products: 2000, seed: 3 };
        let found = of(&mut with_spectrum(&spectrum, 4), &options);
        assert!(found.converged && found.standard_error <= tolerance * found.value);
        found.products
    };
    assert!(products(0.003) > products(0.03));
}

#[test]
fn a_space_that_holds_everything_is_exact() {
    let found = of(&mut with_spectrum(&[3.0, -1.0, 0.5], 1), &TraceOptions::default());
    assert!(found.standard_error == 0.0 && found.converged);
    assert_relative_eq!(found.value, 2.5, max_relative = 1e-5);
    let mut zero = Diagonal { entries: vec![0.0; 100] };
    let found = of(&mut zero, &TraceOptions::default());
    assert!(found.converged && found.value == 0.0);
    // Signs see a diagonal matrix exactly, whatever the space.
    let mut operator = hessian_like(3000, &[10.0, 4.0, -3.0]);
    let expected: f64 = operator.entries.iter().map(|&x| f64::from(x)).sum();
    let found = of(&mut operator, &TraceOptions { tolerance: 0.1, products: 400, ..Default::default() });
    assert!((found.value - expected).abs() < 4.0 * found.standard_error.max(0.1), "{found:?} {expected}");
}

#[test]
fn bad_calls_are_errors() {
    let run =
        |operator: &mut dyn LinearOperator, options: TraceOptions| trace(operator, &options, &mut |_| ()).unwrap_err();
    let mut matrix = Diagonal { entries: vec![1.0; 100] };
    let few = TraceOptions { products: 20, ..Default::default() };
    assert!(matches!(run(&mut matrix, few), CurvatureError::Products { found: 20, needed: 28 }));
    let mut empty = Diagonal { entries: vec![] };
    assert!(matches!(run(&mut empty, TraceOptions::default()), CurvatureError::Empty));
    let mut bad = Diagonal { entries: vec![f32::INFINITY; 100] };
    assert!(matches!(run(&mut bad, TraceOptions::default()), CurvatureError::NonFinite { product: 1 }));
}
