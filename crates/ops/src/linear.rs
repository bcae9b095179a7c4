//! `y = x wᵀ + b`, the layout of every published checkpoint: a row of `w` is one output neuron.

use lapidary_kernels::precision::Precision;

use crate::operator::*;

/// `x [N, I]`, `weight [O, I]`, `bias [O]`, `residual [N, O]`, which is added on the way → `[N, O]`.
///
/// `precision` is that of the three products, forward and backward.
pub fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<2>>,
    precision: Precision,
) -> Tensor<2> {
    let bias = bias.unwrap_or_else(|| absent(&x));
    let residual = residual.unwrap_or_else(|| absent(&x));
    Tensor::from_dispatch(<Dispatch as Linear>::forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        residual.into_dispatch(),
        precision,
    ))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Linear: Backend {
    /// `y[N, O] = x[N, I] w[O, I]ᵀ + bias[O] + residual[N, O]`; the last two may be without elements.
    fn forward(
        x: Float<Self>,
        w: Float<Self>,
        bias: Float<Self>,
        residual: Float<Self>,
        precision: Precision,
    ) -> Float<Self> {
        let _ = precision;
        plain::<Self>(x, w, bias, residual)
    }

    /// `dx[N, I] = dy[N, O] w[O, I]`.
    fn gradient_input(dy: Float<Self>, w: Float<Self>, precision: Precision) -> Float<Self> {
        let _ = precision;
        plain_gradient_input::<Self>(dy, w)
    }

    /// `dw[O, I] = dy[N, O]ᵀ x[N, I]`.
    fn gradient_weight(dy: Float<Self>, x: Float<Self>, precision: Precision) -> Float<Self> {
        let _ = precision;
        plain_gradient_weight::<Self>(dy, x)
    }

    /// `db[O] = Σₙ dy[n, O]`.
    fn gradient_bias(dy: Float<Self>) -> Float<Self> {
        plain_gradient_bias::<Self>(dy)
    }
}

/// [`Linear::forward`] by ordinary operations, in the precision of its tensors.
pub fn plain<B: Backend>(x: Float<B>, w: Float<B>, bias: Float<B>, residual: Float<B>) -> Float<B> {
    let mut y = Array::<B>(x).matmul(Array(w).transpose());
    if present(&bias) {
        let [_, outputs] = y.dims();
        y = y + Array(bias).reshape([1, outputs]);
    }
    if present(&residual) { (y + Array(residual)).0 } else { y.0 }
}

/// [`Linear::gradient_input`] by ordinary operations.
pub fn plain_gradient_input<B: Backend>(dy: Float<B>, w: Float<B>) -> Float<B> {
    B::float_matmul(dy, w)
}

/// [`Linear::gradient_weight`] by ordinary operations.
pub fn plain_gradient_weight<B: Backend>(dy: Float<B>, x: Float<B>) -> Float<B> {
    Array::<B>(dy).transpose().matmul(Array(x)).0
}

/// [`Linear::gradient_bias`] by ordinary operations.
pub fn plain_gradient_bias<B: Backend>(dy: Float<B>) -> Float<B> {
    let dy = Array::<B>(dy);
    let [_, outputs] = dy.dims();
    dy.sum(0).reshape([outputs]).0
}

impl Linear for Flex {
    fn forward(
        x: FlexTensor,
        w: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
        precision: Precision,
    ) -> FlexTensor {
        let Some([x, w, bias, residual]) = floats([&x, &w, &bias, &residual]) else {
            return plain::<Self>(x, w, bias, residual);
        };
        let ([n, i], [o, _]) = (x.dims(), w.dims());
        let (bias, residual) = (bias.optional(), residual.optional());
        output([n, o], |y| kernels::linear::linear(&x, &w, bias, residual, n, i, o, precision, y))
    }

    fn gradient_input(dy: FlexTensor, w: FlexTensor, precision: Precision) -> FlexTensor {
        let Some([dy, w]) = floats([&dy, &w]) else { return plain_gradient_input::<Self>(dy, w) };
        let ([n, o], [_, i]) = (dy.dims(), w.dims());
        output([n, i], |dx| kernels::linear::linear_backward_input(&dy, &w, n, i, o, precision, dx))
    }

    fn gradient_weight(dy: FlexTensor, x: FlexTensor, precision: Precision) -> FlexTensor {
        let Some([dy, x]) = floats([&dy, &x]) else { return plain_gradient_weight::<Self>(dy, x) };
        let ([n, o], [_, i]) = (dy.dims(), x.dims());
        output([o, i], |dw| kernels::linear::linear_backward_weight(&dy, &x, n, i, o, precision, dw))
    }

    fn gradient_bias(dy: FlexTensor) -> FlexTensor {
        let Some([dy]) = floats([&dy]) else { return plain_gradient_bias::<Self>(dy) };
        let [n, o] = dy.dims();
        output([o], |db| kernels::linear::sum_rows(&dy, n, o, db))
    }
}

#[cfg(feature = "vulkan")]
impl Linear for Cube {}

impl<B: Linear, C: CheckpointStrategy> Linear for Autodiff<B, C> {
    fn forward(
        x: Float<Self>,
        w: Float<Self>,
        bias: Float<Self>,
        residual: Float<Self>,
        precision: Precision,
    ) -> Float<Self> {
        let ([x, w, bias, residual], nodes) = parts::<B, C, 4>([x, w, bias, residual]);
        let y = B::forward(x.clone(), w.clone(), bias, residual, precision);
        record::<B, C, 4>(nodes, y, move |dy, [of_x, of_w, of_bias, of_residual]| {
            [
                of_x.then(|| B::gradient_input(dy.clone(), w, precision)),
                of_w.then(|| B::gradient_weight(dy.clone(), x, precision)),
                of_bias.then(|| B::gradient_bias(dy.clone())),
                of_residual.then_some(dy),
            ]
        })
    }
}
