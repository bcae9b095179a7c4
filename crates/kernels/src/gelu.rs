//! GELU with the exact normal distribution, not its tanh approximation (Hendrycks and Gimpel, 2016, section 2).

use crate::chunks::{ELEMENTS, for_each_chunk};
use crate::math::{mul_add, normal};
use crate::simd::{Simd, dispatch};

/// `y = x Φ(x)`, Φ the standard normal's cumulative distribution.
pub fn gelu(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output per input");
    for_each_chunk(y, ELEMENTS, |start, y| forward(&x[start..start + y.len()], y));
}

/// `dx = dy (Φ(x) + x φ(x))`, φ the standard normal's density.
pub fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "a gradient per input");
    for_each_chunk(dx, ELEMENTS, |start, dx| {
        let here = start..start + dx.len();
        backward(&x[here.clone()], &dy[here], dx);
    });
}

dispatch!(forward = forward_body(x: &[f32], y: &mut [f32]));

#[inline(always)]
fn forward_body<S: Simd>(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = x * normal::<S>(*x).0;
    }
}

dispatch!(backward = backward_body(x: &[f32], dy: &[f32], dx: &mut [f32]));

#[inline(always)]
fn backward_body<S: Simd>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
        let (cumulative, density) = normal::<S>(*x);
        *dx = dy * mul_add::<S>(*x, density, cumulative);
    }
}
