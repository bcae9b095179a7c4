use lapidary_kernels::activation::{Activation, activate, activate_backward, gated, gated_backward};
use proptest::prelude::*;

use super::gelu::{twin as gelu, twin_derivative as gelu_derivative};
use super::{assert_close, random, to_f64};

const ALL: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu];

/// Value and derivative.
fn twin(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Gelu => (gelu(x), gelu_derivative(x)),
        Activation::GeluTanh => {
            let c = (2.0 / std::f64::consts::PI).sqrt();
            let t = (c * (x + 0.044715 * x.powi(3))).tanh();
            let slope = c * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope)
        }
        Activation::Silu => {
            let sigmoid = 1.0 / (1.0 + (-x).exp());
            (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid)))
        }
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

/// From -100 to 100, closer around 0, 37 more than a whole number of chunks.
fn grid() -> Vec<f32> {
    let n = 3 * 16 * 1024 + 37;
    (0..n).map(|i| 100.0 * (i as f32 / n as f32 * 2.0 - 1.0).powi(3)).collect()
}

#[test]
fn agree_with_f64() {
    let x = grid();
    let dy = random(x.len(), 1);
    for activation in ALL {
        let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
        activate(activation, &x, &mut y);
        activate_backward(activation, &x, &dy, &mut dx);
        let expected = x.iter().zip(&dy).map(|(&x, &dy)| {
            let (value, slope) = twin(activation, f64::from(x));
            (value, f64::from(dy) * slope)
        });
        let (values, gradients): (Vec<f64>, Vec<f64>) = expected.unzip();
        assert_close(&y, &values, 3e-7, &format!("{activation:?}"));
        assert_close(&dx, &gradients, 1e-6, &format!("gradient of {activation:?}"));
    }
}

#[test]
fn the_derivatives_are_those_of_the_twins() {
    for activation in ALL {
        for x in [-3.0, -0.7, 0.3, 2.5] {
            let difference = (twin(activation, x + 1e-5).0 - twin(activation, x - 1e-5).0) / 2e-5;
            assert!((difference - twin(activation, x).1).abs() < 1e-9, "{activation:?} at {x}");
        }
    }
}

#[test]
fn ends_of_the_numbers() {
    for activation in ALL {
        let mut y = [0.0; 4];
        activate(activation, &[f32::NAN, f32::INFINITY, 3e38, -3e38], &mut y);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[2] == 3e38 && y[3] == 0.0, "{activation:?}: {y:?}");
        let mut dx = [0.0; 2];
        activate_backward(activation, &[1.0, 1.0], &[f32::NAN, f32::INFINITY], &mut dx);
        assert!(dx[0].is_nan() && dx[1] == f32::INFINITY, "{activation:?}: {dx:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn gated_units_agree_with_f64(n in 0usize..40, width in 1usize..500, which in 0usize..4) {
        let (x, dy, activation) = (random(2 * n * width, 1), random(n * width, 2), ALL[which]);
        let (mut y, mut dx) = (vec![f32::NAN; n * width], vec![f32::NAN; 2 * n * width]);
        gated(activation, &x, width, &mut y);
        gated_backward(activation, &x, width, &dy, &mut dx);
        let (mut values, mut gradients) = (Vec::new(), Vec::new());
        for (x, dy) in to_f64(&x).chunks(2 * width).zip(to_f64(&dy).chunks(width)) {
            let of = |i: usize| twin(activation, x[i]);
            values.extend((0..width).map(|i| of(i).0 * x[width + i]));
            gradients.extend((0..width).map(|i| dy[i] * x[width + i] * of(i).1));
            gradients.extend((0..width).map(|i| dy[i] * of(i).0));
        }
        assert_close(&y, &values, 1e-6, "y");
        assert_close(&dx, &gradients, 1e-6, "dx");
    }
}
