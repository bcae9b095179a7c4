//! Sums, multiples, inverses and diagonals against matrices that are written out.

use approx::assert_relative_eq;
use lapidary_curvature::operator::{Diagonal, Inverse, InverseOptions, Scaled, Sum, estimate_diagonal, exact_diagonal};
use lapidary_curvature::{CurvatureError, Dense, LinearOperator, Shifted};

use super::support::with_spectrum;

#[test]
fn sums_shifts_and_multiples_are_those_of_the_matrices() {
    let (a, b) = (with_spectrum(&[3.0, 1.0, -2.0, 0.5], 1), with_spectrum(&[1.0, 2.0, 0.25, -1.0], 2));
    let scaled = Scaled { operator: b.clone(), factor: -0.5 };
    let mut sum = Shifted { operator: Sum::new(a.clone(), scaled).unwrap(), shift: 2.0 };
    let written = Dense::of(&mut sum).unwrap();
    for (i, found) in written.entries().iter().enumerate() {
        let expected = a.entries()[i] - 0.5 * b.entries()[i] + if i % 5 == 0 { 2.0 } else { 0.0 };
        assert_relative_eq!(*found, expected, epsilon = 1e-6);
    }
    assert!(matches!(
        Sum::new(a, Diagonal { entries: vec![1.0] }),
        Err(CurvatureError::Dimension { expected: 4, found: 1, .. })
    ));
}

#[test]
fn a_block_is_its_vectors() {
    let mut operator = Shifted {
        operator: Sum::new(with_spectrum(&[3.0, 1.0, -2.0], 1), Diagonal { entries: vec![1.0, 2.0, 3.0] }).unwrap(),
        shift: 0.5,
    };
    let vs = [1.0, -2.0, 0.5, 3.0, 0.0, 1.0];
    let (mut block, mut single) = ([0.0; 6], [0.0; 6]);
    operator.apply_block(&vs, &mut block).unwrap();
    for (v, out) in vs.chunks(3).zip(single.chunks_mut(3)) {
        operator.apply(v, out).unwrap();
    }
    assert_eq!(block, single);
}

#[test]
fn an_inverse_undoes_its_operator() {
    let options = InverseOptions { tolerance: 1e-6, products: 100 };
    let matrix = with_spectrum(&[4.0, 2.0, 1.0, 1.5, 3.0], 8);
    let mut inverse = Inverse { operator: matrix.clone(), options };
    let v = [1.0, -2.0, 0.5, 3.0, 0.25];
    let (mut once, mut back) = ([0.0; 5], [0.0; 5]);
    matrix.clone().apply(&v, &mut once).unwrap();
    inverse.apply(&once, &mut back).unwrap();
    for (found, expected) in back.iter().zip(v) {
        assert_relative_eq!(*found, expected, epsilon = 1e-5);
    }
    inverse.apply(&[0.0; 5], &mut back).unwrap();
    assert_eq!(back, [0.0; 5]);

    let mut saddle = Inverse { operator: with_spectrum(&[1.0, -1.0, 2.0], 3), options };
    let mut out = [0.0; 3];
    assert!(matches!(saddle.apply(&[1.0, 1.0, 1.0], &mut out), Err(CurvatureError::Indefinite { .. })));
    let few = InverseOptions { tolerance: 1e-6, products: 2 };
    let mut hurried = Inverse { operator: matrix, options: few };
    assert!(matches!(hurried.apply(&v, &mut back), Err(CurvatureError::NotSolved { products: 2, .. })));
}

#[test]
fn diagonals_exactly_and_by_signs() {
    let mut matrix = with_spectrum(&[4.0, 2.0, -1.0, 1.5, 3.0, 0.25], 4);
    let expected: Vec<f32> = (0..6).map(|i| matrix.entries()[i * 7]).collect();
    assert_eq!(exact_diagonal(&mut matrix).unwrap().entries, expected);
    let found = estimate_diagonal(&mut matrix, 4000, 1).unwrap();
    for ((found, error), expected) in found.entries.iter().zip(&found.standard_errors).zip(&expected) {
        assert!((found - expected).abs() < 4.0 * error && *error < 0.05, "{found} ± {error}, not {expected}");
    }
    assert!(found.relative_error() < 0.03);
    // What is off the diagonal is all that chance has a part in.
    let mut diagonal = Diagonal { entries: expected.clone() };
    assert_eq!(estimate_diagonal(&mut diagonal, 2, 0).unwrap().entries, expected);
    assert!(matches!(estimate_diagonal(&mut diagonal, 0, 0), Err(CurvatureError::Count(_))));
}
