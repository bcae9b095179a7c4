//! Inverted dropout with a stateless mask: the same key gives the same mask, in the forward and the backward pass.

use crate::operator::*;

/// What a dropout mask is a function of: the run's seed, the step, and the place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Micro-batch of the run, counted from its start.
    pub step: u64,
    /// Place in the model, different for each dropout layer.
    pub place: u64,
}

/// `x [N, D]` with each element zeroed with probability `p` and the rest divided by `1 − p`.
pub fn dropout(x: Tensor<2>, p: f32, key: DropoutKey) -> Tensor<2> {
    if p == 0.0 { x } else { Tensor::from_dispatch(Dispatch::forward(x.into_dispatch(), p, key)) }
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Dropout: Backend {
    /// `x` times a mask that is a function of `key` alone; applied to `dy` it is the gradient.
    fn forward(x: Float<Self>, p: f32, key: DropoutKey) -> Float<Self> {
        plain::<Self>(x, p, key)
    }
}

/// [`Dropout::forward`] by ordinary operations; the mask is drawn on the host.
pub fn plain<B: Backend>(x: Float<B>, p: f32, DropoutKey { seed, step, place }: DropoutKey) -> Float<B> {
    let (x, shape) = (Array::<B>(x.clone()), x.shape());
    let mut mask = vec![0.0; shape.num_elements()];
    kernels::dropout::dropout(&vec![1.0; mask.len()], p, seed, step, place, &mut mask);
    let mask = x.host(mask, shape);
    (x * mask).0
}

impl Dropout for Flex {
    fn forward(x: FlexTensor, p: f32, key: DropoutKey) -> FlexTensor {
        let Some([x]) = floats([&x]) else { return plain::<Self>(x, p, key) };
        let DropoutKey { seed, step, place } = key;
        output(x.shape(), |y| kernels::dropout::dropout(&x, p, seed, step, place, y))
    }
}

#[cfg(feature = "vulkan")]
impl Dropout for Cube {}

impl<B: Dropout, C: CheckpointStrategy> Dropout for Autodiff<B, C> {
    fn forward(x: Float<Self>, p: f32, key: DropoutKey) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        record::<B, C, 1>(nodes, B::forward(x, p, key), move |dy, _| [Some(B::forward(dy, p, key))])
    }
}
