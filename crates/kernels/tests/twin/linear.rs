use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight, sum_rows};
use lapidary_kernels::precision::Precision;
use proptest::prelude::*;

use super::{as_read, assert_close, random, to_f64};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

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

fn check(n: usize, input: usize, output: usize) {
    let (x, w, dy) = (random(n * input, 1), random(output * input, 2), random(n * output, 3));
    let (bias, residual) = (random(output, 4), random(n * output, 5));
    let tolerance = 2e-6 * (input.max(output).max(n) as f64).sqrt();
    for precision in PRECISIONS {
        let [x64, w64, dy64] = [&x, &w, &dy].map(|factor| as_read(factor, precision));
        let mut y = vec![f32::NAN; n * output];

        let product_alone = product((n, input, output), |i, k| x64[i * input + k], |k, j| w64[j * input + k]);
        for (bias, residual) in
            [(None, None), (Some(&bias[..]), None), (None, Some(&residual[..])), (Some(&bias[..]), Some(&residual[..]))]
        {
            let mut expected = product_alone.clone();
            for (i, y) in expected.iter_mut().enumerate() {
                *y += bias.map_or(0.0, |bias| f64::from(bias[i % output]));
                *y += residual.map_or(0.0, |residual| f64::from(residual[i]));
            }
            linear(&x, &w, bias, residual, n, input, output, precision, &mut y);
            assert_close(&y, &expected, tolerance, &format!("y in {precision:?}"));
        }

        let mut dx = vec![f32::NAN; n * input];
        linear_backward_input(&dy, &w, n, input, output, precision, &mut dx);
        let expected = product((n, output, input), |i, k| dy64[i * output + k], |k, j| w64[k * input + j]);
        assert_close(&dx, &expected, tolerance, &format!("dx in {precision:?}"));

        let mut dw = vec![f32::NAN; output * input];
        linear_backward_weight(&dy, &x, n, input, output, precision, &mut dw);
        let expected = product((output, n, input), |i, k| dy64[k * output + i], |k, j| x64[k * input + j]);
        assert_close(&dw, &expected, tolerance, &format!("dw in {precision:?}"));
    }
    let mut db = vec![f32::NAN; output];
    sum_rows(&dy, n, output, &mut db);
    let dy64 = to_f64(&dy);
    let expected = product((1, n, output), |_, _| 1.0, |k, j| dy64[k * output + j]);
    assert_close(&db, &expected, tolerance, "db");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_f64(n in 1usize..70, input in 1usize..70, output in 1usize..70) {
        check(n, input, output);
    }
}

/// 40, or as many as `PROPTEST_CASES` says.
fn cases() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 40 }
}

#[test]
fn agrees_with_f64_on_more_than_one_block() {
    check(150, 700, 130);
    check(1, 384, 515);
    // More of the right factor than is packed at a time, in columns and in depth.
    check(7, 300, 3700);
    check(5, 3700, 300);
}

#[test]
fn no_rows_and_no_input() {
    for precision in PRECISIONS {
        linear(&[], &[1.0; 6], Some(&[1.0; 2]), Some(&[]), 0, 3, 2, precision, &mut []);
        linear(&[1.0; 6], &[], Some(&[]), Some(&[]), 2, 3, 0, precision, &mut []);
        let mut y = [f32::NAN; 4];
        linear(&[], &[], Some(&[1.0, 2.0]), Some(&[0.0, 0.5, 1.0, 1.5]), 2, 0, 2, precision, &mut y);
        assert_eq!(y, [1.0, 2.5, 2.0, 3.5]);
        linear_backward_weight(&[], &[], 0, 2, 2, precision, &mut y);
        assert_eq!(y, [0.0; 4]);
    }
    sum_rows(&[], 0, 0, &mut []);
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (n, input, output) = (61, 700, 50);
    let (x, w) = (random(n * input, 1), random(output * input, 2));
    let (bias, residual) = (random(output, 3), random(n * output, 4));
    for precision in PRECISIONS {
        let mut y = vec![0.0; n * output];
        linear(&x, &w, Some(&bias), Some(&residual), n, input, output, precision, &mut y);
        let mut alone = vec![0.0; output];
        for ((x, y), residual) in x.chunks(input).zip(y.chunks(output)).zip(residual.chunks(output)) {
            linear(x, &w, Some(&bias), Some(residual), 1, input, output, precision, &mut alone);
            assert_eq!(alone, y);
        }
    }
}

#[test]
fn nan_and_infinity_come_through() {
    let (n, input, output) = (37, 45, 41);
    for precision in PRECISIONS {
        let (mut x, mut w) = (vec![1.0; n * input], vec![1.0; output * input]);
        x[3 * input + 44] = f32::NAN;
        x[20 * input] = f32::INFINITY;
        w[17 * input + 44] = f32::NEG_INFINITY;
        w[40 * input + 7] = f32::NAN;
        let mut y = vec![0.0; n * output];
        linear(&x, &w, None, None, n, input, output, precision, &mut y);
        for i in 0..n {
            for j in 0..output {
                let y = y[i * output + j];
                match (i, j) {
                    (3, _) | (_, 40) | (20, 17) => assert!(y.is_nan(), "({i}, {j}) is {y} in {precision:?}"),
                    (20, _) => assert_eq!(y, f32::INFINITY),
                    (_, 17) => assert_eq!(y, f32::NEG_INFINITY),
                    _ => assert_eq!(y, input as f32),
                }
            }
        }
    }
}

/// A product with 1 shows how factors are rounded.
#[test]
fn bf16_rounds_to_the_nearest_and_ties_to_even() {
    const PLACE: f32 = 1.0 / 128.0;
    for (x, rounded) in [
        (1.0, 1.0),
        (1.0 + 0.49 * PLACE, 1.0),
        (1.0 + 0.5 * PLACE, 1.0),
        (1.0 + 0.51 * PLACE, 1.0 + PLACE),
        (1.0 + 1.5 * PLACE, 1.0 + 2.0 * PLACE),
        (-1.0 - 1.6 * PLACE, -1.0 - 2.0 * PLACE),
        (f32::MAX, f32::INFINITY),
        (-f32::MAX, f32::NEG_INFINITY),
        (-0.0, 0.0),
    ] {
        for (a, b) in [(x, 1.0), (1.0, x)] {
            let mut y = [f32::NAN];
            linear(&[a], &[b], None, None, 1, 1, 1, Precision::Bf16, &mut y);
            assert_eq!(y, [rounded], "{a} times {b}");
        }
    }
}
