//! Layer norm over the last axis, with the residual of a post-norm block added on the way.

use crate::operator::*;

/// `LN(x + residual) · gamma + beta` for rows `x [N, D]`, `residual [N, D]`, `gamma [D]`, `beta [D]`.
pub fn layer_norm(x: Tensor<2>, residual: Option<Tensor<2>>, gamma: Tensor<1>, beta: Tensor<1>, eps: f32) -> Tensor<2> {
    let residual = residual.unwrap_or_else(|| absent(&x));
    let [x, residual] = [x, residual].map(Tensor::into_dispatch);
    let [gamma, beta] = [gamma, beta].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::forward(x, residual, gamma, beta, eps))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait LayerNorm: Backend {
    /// With `s = x + residual` and `n = (s − mean) / √(variance + eps)`, per row: `n gamma + beta`. A residual without
    /// elements is none.
    fn forward(x: Float<Self>, residual: Float<Self>, gamma: Float<Self>, beta: Float<Self>, eps: f32) -> Float<Self> {
        plain::<Self>([x, residual, gamma, beta], eps)
    }

    /// `(ds, dgamma, dbeta)`, where `ds` is the gradient of both `x` and `residual`.
    fn gradient(
        x: Float<Self>,
        residual: Float<Self>,
        gamma: Float<Self>,
        dy: Float<Self>,
        eps: f32,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        plain_gradient::<Self>([x, residual, gamma, dy], eps).into()
    }
}

/// `n` and `1 / √(variance + eps)`.
fn normalized<B: Backend>(x: Float<B>, residual: Float<B>, eps: f32) -> (Array<B>, Array<B>) {
    let x = Array::<B>(x);
    let sum = if present(&residual) { x + Array(residual) } else { x };
    let centred = sum.clone() - sum.mean(1);
    let deviation = (centred.clone().square().mean(1) + f64::from(eps)).sqrt(); // [N, 1]
    let inverse = deviation.full(1.0, [1, 1]) / deviation;
    (centred * inverse.clone(), inverse)
}

/// [`LayerNorm::forward`] by ordinary operations.
pub fn plain<B: Backend>([x, residual, gamma, beta]: [Float<B>; 4], eps: f32) -> Float<B> {
    let (n, _) = normalized::<B>(x, residual, eps);
    let [_, width] = n.dims();
    let [gamma, beta] = [gamma, beta].map(|x| Array::<B>(x).reshape([1, width]));
    (n * gamma + beta).0
}

/// [`LayerNorm::gradient`] by ordinary operations: with `g = dy gamma`,
/// `ds = (g − mean(g) − n mean(g n)) / √(variance + eps)`, `dgamma = Σ dy n` and `dbeta = Σ dy`.
pub fn plain_gradient<B: Backend>([x, residual, gamma, dy]: [Float<B>; 4], eps: f32) -> [Float<B>; 3] {
    let (n, inverse) = normalized::<B>(x, residual, eps);
    let ([_, width], dy) = (n.dims(), Array::<B>(dy));
    let g = dy.clone() * Array(gamma).reshape([1, width]);
    let ds = inverse * (g.clone() - g.clone().mean(1) - n.clone() * (g * n.clone()).mean(1));
    let over_rows = |x: Array<B>| x.sum(0).reshape([width]).0;
    [ds.0, over_rows(dy.clone() * n), over_rows(dy)]
}

impl LayerNorm for Flex {
    fn forward(x: FlexTensor, residual: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f32) -> FlexTensor {
        let Some([x, residual, gamma, beta]) = floats([&x, &residual, &gamma, &beta]) else {
            return plain::<Self>([x, residual, gamma, beta], eps);
        };
        output(x.shape(), |y| kernels::layer_norm::layer_norm(&x, residual.optional(), &gamma, &beta, eps, y))
    }

    fn gradient(
        x: FlexTensor,
        residual: FlexTensor,
        gamma: FlexTensor,
        dy: FlexTensor,
        eps: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let Some([x, residual, gamma, dy]) = floats([&x, &residual, &gamma, &dy]) else {
            return plain_gradient::<Self>([x, residual, gamma, dy], eps).into();
        };
        let shapes = [x.shape(), gamma.shape(), gamma.shape()];
        outputs(shapes, |[ds, dgamma, dbeta]| {
            kernels::layer_norm::layer_norm_backward(&x, residual.optional(), &gamma, eps, &dy, ds, dgamma, dbeta)
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl LayerNorm for Cube {}

impl<B: LayerNorm, C: CheckpointStrategy> LayerNorm for Autodiff<B, C> {
    fn forward(x: Float<Self>, residual: Float<Self>, gamma: Float<Self>, beta: Float<Self>, eps: f32) -> Float<Self> {
        let ([x, residual, gamma, beta], nodes) = parts::<B, C, 4>([x, residual, gamma, beta]);
        let y = B::forward(x.clone(), residual.clone(), gamma.clone(), beta, eps);
        record::<B, C, 4>(nodes, y, move |dy, _| {
            let (ds, dgamma, dbeta) = B::gradient(x, residual, gamma, dy, eps);
            [Some(ds.clone()), Some(ds), Some(dgamma), Some(dbeta)]
        })
    }
}
