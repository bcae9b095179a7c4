//! Gated units (Shazeer, 2002.05202): GEGLU with GELU, SwiGLU with SiLU.

use std::f64::consts::{PI, SQRT_2};

use kernels::activation::Activation;

use crate::operator::*;

/// `activation(gate) · up`, elementwise, for rows `[gate, up]`: `x [N, 2F]` → `[N, F]`.
pub fn gated(x: Tensor<2>, activation: Activation) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Gated>::forward(x.into_dispatch(), activation))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Gated: Backend {
    /// `y [N, F]`.
    fn forward(x: Float<Self>, activation: Activation) -> Float<Self> {
        plain::<Self>(x, activation)
    }

    /// `dx [N, 2F]`.
    fn gradient(x: Float<Self>, dy: Float<Self>, activation: Activation) -> Float<Self> {
        plain_gradient::<Self>(x, dy, activation)
    }
}

/// An activation and its derivative.
fn activated<B: Backend>(x: Array<B>, activation: Activation) -> [Array<B>; 2] {
    let one = x.full(1.0, [1, 1]);
    match activation {
        Activation::Gelu => {
            let cumulative = ((x.clone() / SQRT_2).erf() + 1.0) / 2.0;
            let density = (x.clone().square() / -2.0).exp() / (2.0 * PI).sqrt();
            [x.clone() * cumulative.clone(), cumulative + x * density]
        }
        Activation::GeluTanh => {
            let (factor, cubic) = ((2.0 / PI).sqrt(), 0.044_715);
            let square = x.clone().square();
            let tanh = (x.clone() * (square.clone() * cubic + 1.0) * factor).tanh();
            let half = (tanh.clone() + 1.0) / 2.0;
            let slope = (one - tanh.square()) * (square * (3.0 * cubic) + 1.0) * factor / 2.0;
            [x.clone() * half.clone(), half + x * slope]
        }
        Activation::Silu => {
            let sigmoid = one.clone() / ((-x.clone()).exp() + 1.0);
            let slope = sigmoid.clone() * (x.clone() * (one - sigmoid.clone()) + 1.0);
            [x * sigmoid, slope]
        }
        Activation::Relu => {
            let positive = x.clone().clamp(0.0, f64::INFINITY);
            let negative = positive.clone().is(0.0);
            [positive, (x * 0.0 + 1.0).fill_where(negative, 0.0)]
        }
    }
}

fn halves<B: Backend>(x: Float<B>) -> [Array<B>; 2] {
    let x = Array::<B>(x);
    let [_, width] = x.dims();
    [x.clone().narrow(1, 0..width / 2), x.narrow(1, width / 2..width)]
}

/// [`Gated::forward`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>, activation: Activation) -> Float<B> {
    let [gate, up] = halves::<B>(x);
    let [value, _] = activated(gate, activation);
    (value * up).0
}

/// [`Gated::gradient`] by ordinary operations.
pub fn plain_gradient<B: Backend>(x: Float<B>, dy: Float<B>, activation: Activation) -> Float<B> {
    let ([gate, up], dy) = (halves::<B>(x), Array::<B>(dy));
    let [value, slope] = activated(gate, activation);
    Array::join([dy.clone() * up * slope, dy * value], 1).0
}

impl Gated for Flex {
    fn forward(x: FlexTensor, activation: Activation) -> FlexTensor {
        let Some([x]) = floats([&x]) else { return plain::<Self>(x, activation) };
        let [n, width] = x.dims();
        output([n, width / 2], |y| kernels::activation::gated(activation, &x, width / 2, y))
    }

    fn gradient(x: FlexTensor, dy: FlexTensor, activation: Activation) -> FlexTensor {
        let Some([x, dy]) = floats([&x, &dy]) else { return plain_gradient::<Self>(x, dy, activation) };
        let [_, width] = x.dims();
        output(x.shape(), |dx| kernels::activation::gated_backward(activation, &x, width / 2, &dy, dx))
    }
}

#[cfg(feature = "vulkan")]
impl Gated for Cube {}

impl<B: Gated, C: CheckpointStrategy> Gated for Autodiff<B, C> {
    fn forward(x: Float<Self>, activation: Activation) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        let y = B::forward(x.clone(), activation);
        record::<B, C, 1>(nodes, y, move |dy, _| [Some(B::gradient(x, dy, activation))])
    }
}
