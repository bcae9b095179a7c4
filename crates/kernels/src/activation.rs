//! Elementwise activations, and the gated units made of them (Shazeer, 2002.05202).

use crate::chunks::{ELEMENTS, for_each_chunk, rows_per_chunk};
use crate::math::{exp, mul_add, normal};
use crate::simd::{Simd, dispatch};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x Φ(x)`, Φ the standard normal's cumulative distribution (Hendrycks and Gimpel, 1606.08415, section 2).
    Gelu,
    /// The approximation `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))` of it, which Gemma and GPT-2 use.
    GeluTanh,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

/// `y = activation(x)`.
pub fn activate(activation: Activation, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output per input");
    for_each_chunk(y, ELEMENTS, |start, y| forward(activation, &x[start..start + y.len()], y));
}

/// `dx = dy activation'(x)`.
pub fn activate_backward(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "a gradient per input");
    for_each_chunk(dx, ELEMENTS, |start, dx| {
        let here = start..start + dx.len();
        backward(activation, &x[here.clone()], &dy[here], dx);
    });
}

/// `y = activation(gate) up`, elementwise: `x [n, 2 width]` with rows `[gate, up]`, `y [n, width]`.
///
/// GEGLU is that with GELU or its approximation, SwiGLU with SiLU, ReGLU with ReLU.
pub fn gated(activation: Activation, x: &[f32], width: usize, y: &mut [f32]) {
    assert!(y.len() * 2 == x.len() && y.len().is_multiple_of(width.max(1)), "a row of {width} for each of twice that");
    for_each_chunk(y, rows_per_chunk(2 * width) * width, |start, y| {
        forward_gated(activation, &x[2 * start..2 * (start + y.len())], width, y);
    });
}

/// `dx [n, 2 width]`, the gradient of [`gated`] given that of its output, `dy [n, width]`.
pub fn gated_backward(activation: Activation, x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    assert!(dx.len() == x.len() && dy.len() * 2 == x.len(), "a gradient per input");
    assert!(dy.len().is_multiple_of(width.max(1)), "rows of {width}");
    for_each_chunk(dx, rows_per_chunk(2 * width) * 2 * width, |start, dx| {
        let here = start..start + dx.len();
        backward_gated(activation, &x[here.clone()], width, &dy[here.start / 2..here.end / 2], dx);
    });
}

/// A function of one number.
trait Function {
    /// Its value at `x`, and `dy` times its derivative there.
    fn at<S: Simd>(x: f32, dy: f32) -> (f32, f32);
}

struct Gelu;
struct GeluTanh;
struct Silu;
struct Relu;

impl Function for Gelu {
    #[inline(always)]
    fn at<S: Simd>(x: f32, dy: f32) -> (f32, f32) {
        let (cumulative, density) = normal::<S>(x);
        (x * cumulative, dy * mul_add::<S>(x, density, cumulative))
    }
}

/// `x σ(u)` and its derivative `σ(u) + x σ'(u) du/dx`, σ the logistic function.
#[inline(always)]
fn swish<S: Simd>(x: f32, u: f32, slope_of_u: f32) -> (f32, f32) {
    // Of both ends of the function only the small value comes from the exponential: neither loses its digits.
    let e = exp::<S>(-u.abs());
    let inverse = 1.0 / (1.0 + e);
    let sigmoid = if u < 0.0 { e * inverse } else { inverse };
    (x * sigmoid, mul_add::<S>(x * (e * inverse * inverse), slope_of_u, sigmoid))
}

impl Function for GeluTanh {
    /// `(1 + tanh(t)) / 2 = σ(2 t)`.
    #[inline(always)]
    fn at<S: Simd>(x: f32, dy: f32) -> (f32, f32) {
        /// `2 sqrt(2 / pi)`, and 0.044715 times that.
        const LINEAR: f32 = 1.595_769;
        const CUBIC: f32 = 0.071_354_82;
        let u = x * mul_add::<S>(x * x, CUBIC, LINEAR);
        let (value, slope) = swish::<S>(x, u, mul_add::<S>(x * x, 3.0 * CUBIC, LINEAR));
        (value, dy * slope)
    }
}

impl Function for Silu {
    #[inline(always)]
    fn at<S: Simd>(x: f32, dy: f32) -> (f32, f32) {
        let (value, slope) = swish::<S>(x, x, 1.0);
        (value, dy * slope)
    }
}

impl Function for Relu {
    // Comparisons that NaN passes.
    #[inline(always)]
    fn at<S: Simd>(x: f32, dy: f32) -> (f32, f32) {
        (if x < 0.0 { 0.0 } else { x }, if x <= 0.0 { 0.0 } else { dy })
    }
}

/// Calls a function that is generic over [`Function`] and the instruction set with the one that `$activation` names.
macro_rules! with_function {
    ($activation:expr, $f:ident::<$S:ident>($($argument:expr),*)) => {
        match $activation {
            Activation::Gelu => $f::<$S, Gelu>($($argument),*),
            Activation::GeluTanh => $f::<$S, GeluTanh>($($argument),*),
            Activation::Silu => $f::<$S, Silu>($($argument),*),
            Activation::Relu => $f::<$S, Relu>($($argument),*),
        }
    };
}

dispatch!(forward = forward_body(activation: Activation, x: &[f32], y: &mut [f32]));

#[inline(always)]
fn forward_body<S: Simd>(activation: Activation, x: &[f32], y: &mut [f32]) {
    with_function!(activation, values::<S>(x, y));
}

#[inline(always)]
fn values<S: Simd, F: Function>(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = F::at::<S>(*x, 0.0).0;
    }
}

dispatch!(backward = backward_body(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]));

#[inline(always)]
fn backward_body<S: Simd>(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with_function!(activation, gradients::<S>(x, dy, dx));
}

#[inline(always)]
fn gradients<S: Simd, F: Function>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
        *dx = F::at::<S>(*x, *dy).1;
    }
}

dispatch!(forward_gated = forward_gated_body(activation: Activation, x: &[f32], width: usize, y: &mut [f32]));

#[inline(always)]
fn forward_gated_body<S: Simd>(activation: Activation, x: &[f32], width: usize, y: &mut [f32]) {
    with_function!(activation, gated_values::<S>(x, width, y));
}

#[inline(always)]
fn gated_values<S: Simd, F: Function>(x: &[f32], width: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(2 * width).zip(y.chunks_exact_mut(width)) {
        let (gate, up) = x.split_at(width);
        for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
            *y = F::at::<S>(*gate, 0.0).0 * up;
        }
    }
}

dispatch!(
    backward_gated = backward_gated_body(activation: Activation, x: &[f32], width: usize, dy: &[f32], dx: &mut [f32])
);

#[inline(always)]
fn backward_gated_body<S: Simd>(activation: Activation, x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    with_function!(activation, gated_gradients::<S>(x, width, dy, dx));
}

#[inline(always)]
fn gated_gradients<S: Simd, F: Function>(x: &[f32], width: usize, dy: &[f32], dx: &mut [f32]) {
    let rows = x.chunks_exact(2 * width).zip(dy.chunks_exact(width));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(2 * width)) {
        let (gate, up) = x.split_at(width);
        let (dgate, dup) = dx.split_at_mut(width);
        for ((dgate, dup), ((gate, up), dy)) in dgate.iter_mut().zip(dup).zip(gate.iter().zip(up).zip(dy)) {
            let (value, gradient) = F::at::<S>(*gate, dy * up);
            (*dgate, *dup) = (gradient, dy * value);
        }
    }
}
