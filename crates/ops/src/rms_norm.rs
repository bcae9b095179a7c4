//! RMS norm over the last axis (Zhang and Sennrich, 1910.07467), with a residual added on the way.

use crate::operator::*;

/// `s / √(mean(s²) + eps) · weight` with `s = x + residual`, for rows `x [N, D]`, `residual [N, D]`, `weight [D]`.
pub fn rms_norm(x: Tensor<2>, residual: Option<Tensor<2>>, weight: Tensor<1>, eps: f32) -> Tensor<2> {
    let residual = residual.unwrap_or_else(|| absent(&x));
    let [x, residual] = [x, residual].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as RmsNorm>::forward(x, residual, weight.into_dispatch(), eps))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait RmsNorm: Backend {
    /// The norm of `x + residual`; a residual without elements is none.
    fn forward(x: Float<Self>, residual: Float<Self>, weight: Float<Self>, eps: f32) -> Float<Self> {
        plain::<Self>([x, residual, weight], eps)
    }

    /// `(ds, dweight)`, where `ds` is the gradient of both `x` and `residual`.
    fn gradient(
        x: Float<Self>,
        residual: Float<Self>,
        weight: Float<Self>,
        dy: Float<Self>,
        eps: f32,
    ) -> (Float<Self>, Float<Self>) {
        plain_gradient::<Self>([x, residual, weight, dy], eps).into()
    }
}

/// `n = s / √(mean(s²) + eps)` and the reciprocal of the root.
fn normalized<B: Backend>(x: Float<B>, residual: Float<B>, eps: f32) -> (Array<B>, Array<B>) {
    let x = Array::<B>(x);
    let sum = if present(&residual) { x + Array(residual) } else { x };
    let root = (sum.clone().square().mean(1) + f64::from(eps)).sqrt(); // [N, 1]
    let inverse = root.full(1.0, [1, 1]) / root;
    (sum * inverse.clone(), inverse)
}

/// [`RmsNorm::forward`] by ordinary operations.
pub fn plain<B: Backend>([x, residual, weight]: [Float<B>; 3], eps: f32) -> Float<B> {
    let (n, _) = normalized::<B>(x, residual, eps);
    let [_, width] = n.dims();
    (n * Array(weight).reshape([1, width])).0
}

/// [`RmsNorm::gradient`] by ordinary operations: with `g = dy weight`, `ds = (g − n mean(g n)) / √(mean(s²) + eps)` and
/// `dweight = Σ dy n`.
pub fn plain_gradient<B: Backend>([x, residual, weight, dy]: [Float<B>; 4], eps: f32) -> [Float<B>; 2] {
    let (n, inverse) = normalized::<B>(x, residual, eps);
    let ([_, width], dy) = (n.dims(), Array::<B>(dy));
    let g = dy.clone() * Array(weight).reshape([1, width]);
    let ds = inverse * (g.clone() - n.clone() * (g * n.clone()).mean(1));
    [ds.0, (dy * n).sum(0).reshape([width]).0]
}

impl RmsNorm for Flex {
    fn forward(x: FlexTensor, residual: FlexTensor, weight: FlexTensor, eps: f32) -> FlexTensor {
        let Some([x, residual, weight]) = floats([&x, &residual, &weight]) else {
            return plain::<Self>([x, residual, weight], eps);
        };
        output(x.shape(), |y| kernels::rms_norm::rms_norm(&x, residual.optional(), &weight, eps, y))
    }

    fn gradient(
        x: FlexTensor,
        residual: FlexTensor,
        weight: FlexTensor,
        dy: FlexTensor,
        eps: f32,
    ) -> (FlexTensor, FlexTensor) {
        let Some([x, residual, weight, dy]) = floats([&x, &residual, &weight, &dy]) else {
            return plain_gradient::<Self>([x, residual, weight, dy], eps).into();
        };
        outputs([x.shape(), weight.shape()], |[ds, dweight]| {
            kernels::rms_norm::rms_norm_backward(&x, residual.optional(), &weight, eps, &dy, ds, dweight);
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl RmsNorm for Cube {}

impl<B: RmsNorm, C: CheckpointStrategy> RmsNorm for Autodiff<B, C> {
    fn forward(x: Float<Self>, residual: Float<Self>, weight: Float<Self>, eps: f32) -> Float<Self> {
        let ([x, residual, weight], nodes) = parts::<B, C, 3>([x, residual, weight]);
        let y = B::forward(x.clone(), residual.clone(), weight.clone(), eps);
        record::<B, C, 3>(nodes, y, move |dy, _| {
            let (ds, dweight) = B::gradient(x, residual, weight, dy, eps);
            [Some(ds.clone()), Some(ds), Some(dweight)]
        })
    }
}
