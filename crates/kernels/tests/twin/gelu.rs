use lapidary_kernels::gelu::{gelu, gelu_backward};

use super::{assert_close, random, to_f64};

/// erf by its series of positive terms, `2/sqrt(pi) exp(-x^2) Σ 2^n x^(2n+1) / (2n+1)!!`.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    if x.abs() > 6.0 { x.signum() } else { sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI }
}

pub(super) fn twin(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

pub(super) fn twin_derivative(x: f64) -> f64 {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * density
}

/// From -9 to 9 in small steps, 37 more than a whole number of chunks.
fn grid() -> Vec<f32> {
    let n = 3 * 16 * 1024 + 37;
    (0..n).map(|i| (i as f32 / n as f32 - 0.5) * 18.0).collect()
}

#[test]
fn known_values() {
    assert!((erf(0.5) - 0.520_499_877_813_046_5).abs() < 1e-15);
    assert!((erf(2.0) - 0.995_322_265_018_952_7).abs() < 1e-15);
    let mut y = [0.0; 6];
    gelu(&[0.0, 1.0, -1.0, 100.0, -100.0, f32::NAN], &mut y);
    assert_eq!((y[0], y[3], y[4].abs()), (0.0, 100.0, 0.0));
    assert!((y[1] - 0.841_344_8).abs() < 1e-7 && (y[2] + 0.158_655_26).abs() < 1e-7 && y[5].is_nan());
}

#[test]
fn forward_and_backward_agree_with_f64() {
    let x = grid();
    let mut y = vec![0.0; x.len()];
    gelu(&x, &mut y);
    assert_close(&y, &to_f64(&x).into_iter().map(twin).collect::<Vec<_>>(), 2e-7, "gelu");

    let dy = random(x.len(), 1);
    let mut dx = vec![0.0; x.len()];
    gelu_backward(&x, &dy, &mut dx);
    let expected: Vec<f64> = x.iter().zip(&dy).map(|(&x, &dy)| f64::from(dy) * twin_derivative(f64::from(x))).collect();
    assert_close(&dx, &expected, 4e-7, "dx");
}

#[test]
fn the_derivative_is_that_of_the_twin() {
    for x in [-3.0, -0.7, 0.0, 0.3, 2.5] {
        let difference = (twin(x + 1e-5) - twin(x - 1e-5)) / 2e-5;
        assert!((difference - twin_derivative(x)).abs() < 1e-9);
    }
}
