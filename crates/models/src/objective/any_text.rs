//! The objective of text that a recipe names.

use burn::tensor::Tensor;

use super::{Autoregressive, Denoising, Objective, TextBatch};
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::pass::Pass;
use crate::taps::Positions;

/// One of them, or both in turn.
#[derive(Clone, Debug)]
pub enum TextObjective {
    /// Token after token.
    Autoregressive(Autoregressive),
    /// All at once.
    Denoising(Denoising),
    /// One for batches of an even step, the other for those of an odd one: one model that writes in both ways.
    Both(Autoregressive, Denoising),
}

impl TextObjective {
    /// Whether batches of a step are repaired, and not written token after token.
    pub fn repairs(&self, step: u64) -> bool {
        match self {
            Self::Autoregressive(_) => false,
            Self::Denoising(_) => true,
            Self::Both(..) => !step.is_multiple_of(2),
        }
    }

    /// What a batch is trained on.
    fn of(&self, batch: &TextBatch) -> &dyn Objective<Decoder, Batch = TextBatch> {
        match self {
            Self::Autoregressive(autoregressive) => autoregressive,
            Self::Both(autoregressive, _) if !self.repairs(batch.key.step) => autoregressive,
            Self::Denoising(denoising) | Self::Both(_, denoising) => denoising,
        }
    }
}

impl Objective<Decoder> for TextObjective {
    type Batch = TextBatch;

    fn loss(&self, model: &Decoder, batch: &TextBatch, pass: &Pass, normalizer: f32) -> Result<Tensor<1>, ModelError> {
        self.of(batch).loss(model, batch, pass, normalizer)
    }

    fn targets(&self, batch: &TextBatch) -> usize {
        self.of(batch).targets(batch)
    }

    fn positions(&self, _: &Decoder, batch: &TextBatch) -> Positions {
        batch.positions()
    }
}
