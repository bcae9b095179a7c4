//! Each token of the target from those before it.

use burn::tensor::Tensor;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::mask::Mask;

use super::{Objective, TextBatch};
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::pass::Pass;
use crate::taps::Positions;

/// The mean of `-log p(token | tokens before it)` over the targets, in nats. A row's very first token, which nothing is
/// before, does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Autoregressive {
    /// Tokens of prompts count too: they are text like any other.
    pub prompts: bool,
}

impl Autoregressive {
    /// What each place is to predict, `[B·L]`: the token behind it where that belongs to the target.
    pub fn next(self, batch: &TextBatch) -> Vec<i64> {
        let mut targets = vec![IGNORED; batch.ids.len()];
        let length = batch.length();
        for (row, (&prompt, &end)) in batch.prompts.iter().zip(&*batch.ends).enumerate() {
            let first = if self.prompts { 1 } else { prompt.max(1) };
            for place in row * length + first..row * length + end {
                targets[place - 1] = batch.ids[place].into();
            }
        }
        targets
    }
}

impl Objective<Decoder> for Autoregressive {
    type Batch = TextBatch;

    fn loss(&self, model: &Decoder, batch: &TextBatch, pass: &Pass, normalizer: f32) -> Result<Tensor<1>, ModelError> {
        // Padding lies behind all that counts, where a causal mask hides it.
        model.loss(&batch.ids, &self.next(batch), batch.rows, &Mask::causal(), normalizer, pass)
    }

    fn targets(&self, batch: &TextBatch) -> usize {
        self.next(batch).iter().filter(|target| **target != IGNORED).count()
    }

    fn positions(&self, _: &Decoder, batch: &TextBatch) -> Positions {
        batch.positions()
    }
}
