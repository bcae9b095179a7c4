//! [`Activation::Gelu`] under its own name.

use crate::activation::{Activation, activate, activate_backward};

/// `y = x Φ(x)`, Φ the standard normal's cumulative distribution.
pub fn gelu(x: &[f32], y: &mut [f32]) {
    activate(Activation::Gelu, x, y);
}

/// `dx = dy (Φ(x) + x φ(x))`, φ the standard normal's density.
pub fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    activate_backward(Activation::Gelu, x, dy, dx);
}
