use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight, sum_rows};
use lapidary_kernels::precision::{Precision, bf16, from_bf16};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

const F32: Precision = Precision::F32;

/// `Σ_k a(i, k) b(k, j)` over `k`, for each `i` and `j`.
fn product(
    (rows, depth, columns): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut c = vec![0.0; rows * columns];
    for i in 0..rows {
        for j in 0..columns {
            for k in 0..depth {
                c[i * columns + j] += a(i, k) * b(k, j);
            }
        }
    }
    c
}

/// As a product in some precision reads it.
fn read(x: &[f32], precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 => to_f64(x),
        Precision::Bf16 => x.iter().map(|&x| f64::from(from_bf16(bf16(x)))).collect(),
    }
}

fn check(n: usize, input: usize, output: usize) {
    for precision in [Precision::F32, Precision::Bf16] {
        check_in(precision, n, input, output);
    }
}

fn check_in(precision: Precision, n: usize, input: usize, output: usize) {
    let (x, w, bias, dy) = (random(n * input, 1), random(output * input, 2), random(output, 3), random(n * output, 4));
    let residual = random(n * output, 5);
    let [x64, w64, dy64] = [&x, &w, &dy].map(|x| read(x, precision));
    let tolerance = 2e-6 * (input.max(output).max(n) as f64).sqrt();
    let mut y = vec![f32::NAN; n * output];

    let expected = product((n, input, output), |i, k| x64[i * input + k], |k, j| w64[j * input + k]);
    linear(&x, &w, None, None, n, input, output, precision, &mut y);
    assert_close(&y, &expected, tolerance, "y");

    let with_bias: Vec<f64> = expected.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % output])).collect();
    linear(&x, &w, Some(&bias), None, n, input, output, precision, &mut y);
    assert_close(&y, &with_bias, tolerance, "y with bias");

    let with_both: Vec<f64> = with_bias.iter().zip(&residual).map(|(y, &r)| y + f64::from(r)).collect();
    linear(&x, &w, Some(&bias), Some(&residual), n, input, output, precision, &mut y);
    assert_close(&y, &with_both, tolerance, "y with bias and residual");

    let mut dx = vec![f32::NAN; n * input];
    linear_backward_input(&dy, &w, n, input, output, precision, &mut dx);
    let expected = product((n, output, input), |i, k| dy64[i * output + k], |k, j| w64[k * input + j]);
    assert_close(&dx, &expected, tolerance, "dx");

    let mut dw = vec![f32::NAN; output * input];
    linear_backward_weight(&dy, &x, n, input, output, precision, &mut dw);
    let expected = product((output, n, input), |i, k| dy64[k * output + i], |k, j| x64[k * input + j]);
    assert_close(&dw, &expected, tolerance, "dw");

    let mut db = vec![f32::NAN; output];
    sum_rows(&dy, n, output, &mut db);
    let expected = product((1, n, output), |_, _| 1.0, |k, j| f64::from(dy[k * output + j]));
    assert_close(&db, &expected, tolerance, "db");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees_with_f64(n in 1usize..40, input in 1usize..70, output in 1usize..70) {
        check(n, input, output);
    }
}

#[test]
fn agrees_with_f64_on_more_than_one_block() {
    check(150, 700, 130);
    check(1, 384, 515);
    // More of the right factor than is packed at a time.
    check(7, 700, 1600);
}

#[test]
fn no_rows_and_no_input() {
    linear(&[], &[1.0; 6], Some(&[1.0; 2]), None, 0, 3, 2, F32, &mut []);
    sum_rows(&[], 0, 0, &mut []);
    let mut y = [f32::NAN; 4];
    linear(&[], &[], Some(&[1.0, 2.0]), None, 2, 0, 2, F32, &mut y);
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
    linear(&[], &[], Some(&[1.0, 2.0]), Some(&[1.0; 4]), 2, 0, 2, F32, &mut y);
    assert_eq!(y, [2.0, 3.0, 2.0, 3.0]);
    linear_backward_weight(&[], &[], 0, 2, 2, F32, &mut y);
    assert_eq!(y, [0.0; 4]);
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (n, input, output) = (29, 700, 50);
    let (x, w, bias) = (random(n * input, 1), random(output * input, 2), random(output, 3));
    let mut y = vec![0.0; n * output];
    linear(&x, &w, Some(&bias), None, n, input, output, F32, &mut y);
    let mut alone = vec![0.0; output];
    for (x, y) in x.chunks(input).zip(y.chunks(output)) {
        linear(x, &w, Some(&bias), None, 1, input, output, F32, &mut alone);
        assert_eq!(alone, y);
    }
}
