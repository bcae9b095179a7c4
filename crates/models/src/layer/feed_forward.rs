//! The feed-forward half of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_ops as ops;

use super::{Initializer, Linear};
use crate::pass::Pass;

/// `down(GELU(up(x)))`.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[F, D]`.
    pub up: Linear,
    /// `[D, F]`.
    pub down: Linear,
}

impl FeedForward {
    /// Width `D` to `F` and back.
    pub fn new(width: usize, inner: usize, init: &mut Initializer) -> Self {
        Self { up: Linear::new(width, inner, true, init), down: Linear::new(inner, width, true, init) }
    }

    /// `[N, D]` → `[N, F]`: the input of `down`.
    pub fn inner(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        ops::gelu(self.up.forward(x, pass))
    }
}
