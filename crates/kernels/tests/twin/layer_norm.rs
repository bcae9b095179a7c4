use lapidary_kernels::layer_norm::{add_layer_norm, add_layer_norm_backward, layer_norm, layer_norm_backward};
use proptest::prelude::*;

use super::{assert_close, difference, random, to_f64};

const EPS: f32 = 1e-5;

fn twin(x: &[f64], residual: &[f64], gamma: &[f64], beta: &[f64]) -> Vec<f64> {
    let width = gamma.len();
    let s: Vec<f64> = x.iter().zip(residual).map(|(x, r)| x + r).collect();
    let mut y = Vec::new();
    for row in s.chunks(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / width as f64;
        for i in 0..width {
            y.push((row[i] - mean) / (variance + f64::from(EPS)).sqrt() * gamma[i] + beta[i]);
        }
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn forward_agrees_with_f64(n in 0usize..60, width in 2usize..600, with_residual: bool, offset in -20f32..20.0) {
        let x: Vec<f32> = random(n * width, 1).iter().map(|x| x + offset).collect();
        let residual = if with_residual { random(n * width, 2) } else { vec![0.0; n * width] };
        let (gamma, beta) = (random(width, 3), random(width, 4));
        let mut y = vec![f32::NAN; n * width];
        layer_norm(&x, with_residual.then_some(&residual), &gamma, &beta, EPS, &mut y);
        let expected = twin(&to_f64(&x), &to_f64(&residual), &to_f64(&gamma), &to_f64(&beta));
        // Two nearly equal numbers leave few digits of their variance.
        let tolerance = if width < 4 { 3e-3 } else { 2e-5 };
        assert_close(&y, &expected, tolerance, "y");
    }

    #[test]
    fn backward_agrees_with_differences(n in 1usize..5, width in 4usize..40, with_residual: bool) {
        let (x, dy) = (random(n * width, 1), random(n * width, 5));
        let residual = if with_residual { random(n * width, 2) } else { vec![0.0; n * width] };
        let (gamma, beta) = (random(width, 3), random(width, 4));
        let (x64, r64, g64, b64) = (to_f64(&x), to_f64(&residual), to_f64(&gamma), to_f64(&beta));
        let (mut dx, mut dgamma, mut dbeta) = (vec![f32::NAN; n * width], vec![f32::NAN; width], vec![f32::NAN; width]);
        layer_norm_backward(
            &x, with_residual.then_some(&residual), &gamma, EPS, &dy, &mut dx, &mut dgamma, &mut dbeta,
        );
        assert_close(&dx, &difference(&x, &dy, |x| twin(x, &r64, &g64, &b64)), 1e-5, "dx");
        assert_close(&dgamma, &difference(&gamma, &dy, |gamma| twin(&x64, &r64, gamma, &b64)), 1e-5, "dgamma");
        assert_close(&dbeta, &difference(&beta, &dy, |beta| twin(&x64, &r64, &g64, beta)), 1e-5, "dbeta");
    }
}

#[test]
fn with_the_sum_as_a_second_output() {
    let (n, width) = (500, 70);
    let (x, residual, dsum, dy) =
        (random(n * width, 1), random(n * width, 2), random(n * width, 3), random(n * width, 4));
    let (gamma, beta) = (random(width, 5), random(width, 6));
    let (mut y, mut sum, mut again) = (vec![0.0; n * width], vec![f32::NAN; n * width], vec![f32::NAN; n * width]);
    layer_norm(&x, Some(&residual), &gamma, &beta, EPS, &mut y);
    add_layer_norm(&x, &residual, &gamma, &beta, EPS, &mut sum, &mut again);
    assert!(again == y && sum.iter().zip(x.iter().zip(&residual)).all(|(sum, (x, r))| *sum == x + r));

    type Run<'a> = &'a dyn Fn(&mut [f32], &mut [f32], &mut [f32]);
    let gradients = |run: Run| {
        let (mut dx, mut dgamma, mut dbeta) = (vec![f32::NAN; n * width], vec![f32::NAN; width], vec![f32::NAN; width]);
        run(&mut dx, &mut dgamma, &mut dbeta);
        (dx, dgamma, dbeta)
    };
    let (dx, dgamma, dbeta) = gradients(&|dx, dgamma, dbeta| {
        add_layer_norm_backward(&sum, &gamma, EPS, &dsum, &dy, dx, dgamma, dbeta);
    });
    let (of_y, expected_dgamma, expected_dbeta) = gradients(&|dx, dgamma, dbeta| {
        layer_norm_backward(&x, Some(&residual), &gamma, EPS, &dy, dx, dgamma, dbeta);
    });
    assert!(dgamma == expected_dgamma && dbeta == expected_dbeta);
    assert!(dx.iter().zip(of_y.iter().zip(&dsum)).all(|(dx, (of_y, dsum))| *dx == of_y + dsum));
}

#[test]
fn gradients_of_many_rows_are_sums() {
    // More rows than one chunk: every chunk must be counted once.
    let (n, width) = (700, 64);
    let dy = vec![1.0; n * width];
    let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; n * width], vec![9.0; width], vec![9.0; width]);
    layer_norm_backward(&random(n * width, 1), None, &[1.0; 64], EPS, &dy, &mut dx, &mut dgamma, &mut dbeta);
    assert_eq!(dbeta, [n as f32; 64]);
    assert!(dgamma.iter().sum::<f32>().abs() < 1e-2);
    assert!(dx.iter().all(|dx| dx.abs() < 1e-5));
}

#[test]
fn a_constant_row_gives_beta() {
    let mut y = [0.0; 5];
    layer_norm(&[3.0; 5], None, &[2.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0], EPS, &mut y);
    assert_eq!(y, [1.0, 2.0, 3.0, 4.0, 5.0]);
}
