//! The feed-forward half of a block.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::activation::Activation;
use lapidary_ops as ops;

use super::{Initializer, Linear};
use crate::pass::Pass;

/// Sizes of a feed-forward half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForwardConfig {
    /// `D`.
    pub width: usize,
    /// `F`.
    pub inner: usize,
    /// What the gate goes through. `None`: there is no gate, and GELU.
    pub gate: Option<Activation>,
    /// Whether its matrices have biases.
    pub bias: bool,
}

/// `down(GELU(up(x)))` or, with a gate, `down(activation(gate(x)) · up(x))` (Shazeer, "GLU variants improve transformer",
/// 2002.05202).
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `[F, D]`.
    pub gate: Option<Linear>,
    /// `[F, D]`.
    pub up: Linear,
    /// `[D, F]`.
    pub down: Linear,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    /// Width `D` to `F` and back.
    pub fn new(config: &FeedForwardConfig, init: &mut Initializer) -> Self {
        let FeedForwardConfig { width, inner, gate, bias } = *config;
        Self {
            gate: gate.map(|_| Linear::new(width, inner, bias, init)),
            up: Linear::new(width, inner, bias, init),
            down: Linear::new(inner, width, bias, init),
            activation: gate.unwrap_or(Activation::Gelu),
        }
    }

    /// What the gate goes through or, without one, what goes up.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// `[N, D]` → `[N, F]`: the input of `down`.
    pub fn inner(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        match &self.gate {
            None => ops::gelu(self.up.forward(x, pass)),
            Some(gate) => {
                let both = vec![gate.forward(x.clone(), pass), self.up.forward(x, pass)];
                ops::gated(Tensor::cat(both, 1), self.activation) // [N, 2 F] → [N, F]
            }
        }
    }
}
