//! The mean over the places of channels-last pictures.

use crate::operator::*;

/// `x [B·P, C]`, the `P` places of a picture one after the other → `[B, C]`.
pub fn average_pool(x: Tensor<2>, batch: usize) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as AveragePool>::forward(x.into_dispatch(), batch))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait AveragePool: Backend {
    /// `y [B, C]`.
    fn forward(x: Float<Self>, batch: usize) -> Float<Self> {
        plain::<Self>(x, batch)
    }

    /// `dx [B·P, C]` for `dy [B, C]`.
    fn gradient(dy: Float<Self>, places: usize) -> Float<Self> {
        plain_gradient::<Self>(dy, places)
    }
}

/// [`AveragePool::forward`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>, batch: usize) -> Float<B> {
    let x = Array::<B>(x);
    let [rows, channels] = x.dims();
    x.reshape([batch, rows / batch.max(1), channels]).mean(1).reshape([batch, channels]).0
}

/// [`AveragePool::gradient`] by ordinary operations.
pub fn plain_gradient<B: Backend>(dy: Float<B>, places: usize) -> Float<B> {
    let dy = Array::<B>(dy);
    let [batch, channels] = dy.dims();
    let share = dy.full(1.0 / places as f64, [1, places, 1]);
    (dy.reshape([batch, 1, channels]) * share).reshape([batch * places, channels]).0
}

impl AveragePool for Flex {
    fn forward(x: FlexTensor, batch: usize) -> FlexTensor {
        let Some([x]) = floats([&x]) else { return plain::<Self>(x, batch) };
        let [rows, channels] = x.dims();
        output([batch, channels], |y| kernels::pool::global_average_pool(&x, rows / batch.max(1), channels, y))
    }

    fn gradient(dy: FlexTensor, places: usize) -> FlexTensor {
        let Some([dy]) = floats([&dy]) else { return plain_gradient::<Self>(dy, places) };
        let [batch, channels] = dy.dims();
        output([batch * places, channels], |dx| {
            kernels::pool::global_average_pool_backward(&dy, places, channels, dx);
        })
    }
}

#[cfg(feature = "vulkan")]
impl AveragePool for Cube {}

impl<B: AveragePool, C: CheckpointStrategy> AveragePool for Autodiff<B, C> {
    fn forward(x: Float<Self>, batch: usize) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        let [rows, _] = Array::<B>(x.clone()).dims();
        let y = B::forward(x, batch);
        record::<B, C, 1>(nodes, y, move |dy, _| [Some(B::gradient(dy, rows / batch.max(1)))])
    }
}
