//! Cross-entropy over classes.

use burn::tensor::Tensor;
use lapidary_data::Batch;
use lapidary_ops as ops;

use super::Objective;
use crate::classifier::Classifier;
use crate::error::ModelError;
use crate::pass::Pass;

/// One class an example.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classification;

impl Classification {
    /// The loss of logits `[B, classes]` against the batch's targets.
    ///
    /// # Errors
    /// A label that the model has no class for; targets of another kind than classes.
    pub fn of_logits(logits: Tensor<2>, batch: &Batch, normalizer: f32) -> Result<Tensor<1>, ModelError> {
        Ok(ops::cross_entropy(logits, &batch.targets, normalizer)?)
    }
}

impl<M: Classifier> Objective<M> for Classification {
    type Batch = Batch;

    fn loss(&self, model: &M, batch: &Batch, pass: &Pass, normalizer: f32) -> Result<Tensor<1>, ModelError> {
        Self::of_logits(model.logits(batch, pass), batch, normalizer)
    }

    fn targets(&self, batch: &Batch) -> usize {
        batch.rows
    }
}
