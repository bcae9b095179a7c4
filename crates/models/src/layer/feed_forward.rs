//! The feed-forward half of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_ops as ops;

use super::{Initializer, Linear};

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

    /// `[N, D]` → `[N, D]`, before the residual.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down.forward(ops::gelu(self.up.forward(x))) // [N, F] inside
    }
}
