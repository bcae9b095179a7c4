//! What one run through a model is for.

use burn::tensor::Tensor;
use lapidary_ops::{self as ops, DropoutKey};

/// One forward pass: an evaluation, or a training step with its dropout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    dropout: Option<(f32, u64, u64)>,
}

impl Pass {
    /// No dropout.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Dropout with probability `p`; the masks are a function of the seed and the micro-batch's number.
    pub fn training(p: f32, seed: u64, micro_batch: u64) -> Self {
        Self { dropout: (p > 0.0).then_some((p, seed, micro_batch)) }
    }

    /// Applies dropout at a place of the model, if this pass has any.
    pub fn dropout(&self, x: Tensor<2>, place: u64) -> Tensor<2> {
        match self.dropout {
            Some((p, seed, step)) => ops::dropout(x, p, DropoutKey { seed, step, place }),
            None => x,
        }
    }
}
