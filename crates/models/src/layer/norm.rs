//! Layer norm and root mean square norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lapidary_ops as ops;

use super::Initializer;

/// What a norm makes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x − mean) / √(variance + ε) · weight + bias` (Ba et al., 1607.06450).
    Layer,
    /// `x / √(mean(x²) + ε) · weight` (Zhang and Sennrich, 1910.07467).
    RootMeanSquare,
    /// The same with `1 + weight`: how Gemma keeps it.
    RootMeanSquareAroundOne,
}

/// A norm over the last axis.
#[derive(Module, Debug)]
pub struct Norm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    /// `[D]`, of a layer norm.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    eps: f32,
    /// Added to the weight.
    #[module(skip)]
    around: f32,
}

impl Norm {
    /// One that scales by 1 and moves nothing.
    pub fn new(kind: NormKind, width: usize, eps: f32, init: &mut Initializer) -> Self {
        let around = if kind == NormKind::RootMeanSquareAroundOne { 1.0 } else { 0.0 };
        Self {
            weight: init.constant(1.0 - around, [width]),
            bias: (kind == NormKind::Layer).then(|| init.constant(0.0, [width])),
            eps,
            around,
        }
    }

    /// A layer norm.
    pub fn layer(width: usize, eps: f32, init: &mut Initializer) -> Self {
        Self::new(NormKind::Layer, width, eps, init)
    }

    /// Added to the variance or the mean square.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// What rows are multiplied by, `[D]`.
    pub fn used_weight(&self) -> Tensor<1> {
        if self.around == 0.0 { self.weight.val() } else { self.weight.val() + self.around }
    }

    /// `[N, D]` → `[N, D]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.of_sum(x, None)
    }

    /// The norm of `x + residual`, added on the way.
    pub fn forward_residual(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        self.of_sum(x, Some(residual))
    }

    fn of_sum(&self, x: Tensor<2>, residual: Option<Tensor<2>>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => ops::layer_norm(x, residual, self.used_weight(), bias.val(), self.eps),
            None => ops::rms_norm(x, residual, self.used_weight(), self.eps),
        }
    }
}
