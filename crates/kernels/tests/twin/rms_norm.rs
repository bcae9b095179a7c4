use lapidary_kernels::rms_norm::{add_rms_norm, add_rms_norm_backward, rms_norm, rms_norm_backward};
use proptest::prelude::*;

use super::{assert_close, difference, random, to_f64};

const EPS: f32 = 1e-6;

fn twin(x: &[f64], residual: &[f64], weight: &[f64]) -> Vec<f64> {
    let s: Vec<f64> = x.iter().zip(residual).map(|(x, r)| x + r).collect();
    let mut y = Vec::new();
    for row in s.chunks(weight.len()) {
        let mean_square = row.iter().map(|s| s * s).sum::<f64>() / weight.len() as f64;
        y.extend(row.iter().zip(weight).map(|(s, weight)| s / (mean_square + f64::from(EPS)).sqrt() * weight));
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn forward_agrees_with_f64(n in 0usize..60, width in 1usize..600, size in 1e-3f32..1e3) {
        let x: Vec<f32> = random(n * width, 1).iter().map(|x| x * size).collect();
        let (residual, weight) = (random(n * width, 2), random(width, 3));
        let (x64, r64, w64) = (to_f64(&x), to_f64(&residual), to_f64(&weight));
        let mut y = vec![f32::NAN; n * width];
        rms_norm(&x, None, &weight, EPS, &mut y);
        assert_close(&y, &twin(&x64, &vec![0.0; n * width], &w64), 2e-6, "y");
        rms_norm(&x, Some(&residual), &weight, EPS, &mut y);
        assert_close(&y, &twin(&x64, &r64, &w64), 2e-6, "y of the sum");
        let (mut sum, mut again) = (vec![f32::NAN; n * width], vec![f32::NAN; n * width]);
        add_rms_norm(&x, &residual, &weight, EPS, &mut sum, &mut again);
        prop_assert!(again == y && sum.iter().zip(x.iter().zip(&residual)).all(|(sum, (x, r))| *sum == x + r));
    }

    #[test]
    fn backward_agrees_with_differences(n in 1usize..5, width in 1usize..40, with_residual: bool) {
        let (x, dy, dsum) = (random(n * width, 1), random(n * width, 5), random(n * width, 6));
        let residual = if with_residual { random(n * width, 2) } else { vec![0.0; n * width] };
        let weight = random(width, 3);
        let (x64, r64, w64) = (to_f64(&x), to_f64(&residual), to_f64(&weight));
        let (mut dx, mut dweight) = (vec![f32::NAN; n * width], vec![f32::NAN; width]);
        rms_norm_backward(&x, with_residual.then_some(&residual), &weight, EPS, &dy, &mut dx, &mut dweight);
        let expected = difference(&x, &dy, |x| twin(x, &r64, &w64));
        let expected_weight = difference(&weight, &dy, |weight| twin(&x64, &r64, weight));
        assert_close(&dx, &expected, 3e-5, "dx");
        assert_close(&dweight, &expected_weight, 1e-5, "dweight");

        let sum: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
        add_rms_norm_backward(&sum, &weight, EPS, &dsum, &dy, &mut dx, &mut dweight);
        let with_sum: Vec<f64> = expected.iter().zip(&dsum).map(|(dx, &dsum)| dx + f64::from(dsum)).collect();
        assert_close(&dx, &with_sum, 3e-5, "dx with that of the sum");
        assert_close(&dweight, &expected_weight, 1e-5, "dweight");
    }
}

#[test]
fn gradients_of_many_rows_are_sums() {
    // More rows than one chunk: every chunk must be counted once.
    let (n, width) = (700, 64);
    let x = vec![2.0; n * width];
    let (mut dx, mut dweight) = (vec![0.0; n * width], vec![9.0; width]);
    rms_norm_backward(&x, None, &[1.0; 64], 0.0, &vec![1.0; n * width], &mut dx, &mut dweight);
    assert_eq!(dweight, [n as f32; 64]);
    assert!(dx.iter().all(|dx| dx.abs() < 1e-6));
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    let mut y = [0.0; 6];
    rms_norm(&[1.0, 1.0, f32::NAN, 1.0, f32::INFINITY, 1.0], None, &[1.0; 2], 0.0, &mut y);
    assert_eq!((y[0], y[1], y[5]), (1.0, 1.0, 0.0));
    assert!(y[2].is_nan() && y[3].is_nan() && y[4].is_nan());
}
