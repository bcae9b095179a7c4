//! GELU with the exact error function (Hendrycks and Gimpel, 1606.08415, section 2).

use std::f64::consts::{PI, SQRT_2};

use crate::operator::*;

/// `x · Φ(x)`, elementwise, any shape `[N, D]`.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::forward(x.into_dispatch()))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Gelu: Backend {
    /// `y = x Φ(x)`.
    fn forward(x: Float<Self>) -> Float<Self> {
        plain::<Self>(x)
    }

    /// `dx = dy (Φ(x) + x φ(x))`.
    fn gradient(x: Float<Self>, dy: Float<Self>) -> Float<Self> {
        plain_gradient::<Self>(x, dy)
    }
}

fn cumulative<B: Backend>(x: Array<B>) -> Array<B> {
    ((x / SQRT_2).erf() + 1.0) / 2.0
}

/// [`Gelu::forward`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>) -> Float<B> {
    let x = Array::<B>(x);
    (x.clone() * cumulative(x)).0
}

/// [`Gelu::gradient`] by ordinary operations.
pub fn plain_gradient<B: Backend>(x: Float<B>, dy: Float<B>) -> Float<B> {
    let (x, dy) = (Array::<B>(x), Array(dy));
    let density = (x.clone().square() / -2.0).exp() / (2.0 * PI).sqrt();
    (dy * (cumulative(x.clone()) + x * density)).0
}

impl Gelu for Flex {
    fn forward(x: FlexTensor) -> FlexTensor {
        let Some([x]) = floats([&x]) else { return plain::<Self>(x) };
        output(x.shape(), |y| kernels::gelu::gelu(&x, y))
    }

    fn gradient(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        let Some([x, dy]) = floats([&x, &dy]) else { return plain_gradient::<Self>(x, dy) };
        output(x.shape(), |dx| kernels::gelu::gelu_backward(&x, &dy, dx))
    }
}

#[cfg(feature = "vulkan")]
impl Gelu for Cube {}

impl<B: Gelu, C: CheckpointStrategy> Gelu for Autodiff<B, C> {
    fn forward(x: Float<Self>) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        let y = B::forward(x.clone());
        record::<B, C, 1>(nodes, y, |dy, _| [Some(B::gradient(x, dy))])
    }
}
