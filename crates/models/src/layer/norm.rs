//! Layer norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lapidary_ops as ops;

use super::Initializer;

/// `(x − mean) / √(variance + ε) · weight + bias` over the last axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    /// `[D]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f32,
}

impl LayerNorm {
    /// Weight 1, bias 0.
    pub fn new(width: usize, eps: f32, init: &mut Initializer) -> Self {
        Self { weight: init.constant(1.0, [width]), bias: init.constant(0.0, [width]), eps }
    }

    /// Added to the variance.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// `[N, D]` → `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::layer_norm(x, None, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The norm of `x + residual`, added on the way.
    pub fn forward_residual(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        ops::layer_norm(x, Some(residual), self.weight.val(), self.bias.val(), self.eps)
    }
}
