//! Cross-entropy over classes.

use burn::tensor::Tensor;
use lapidary_data::Batch;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_ops as ops;

use super::{Objective, draw_classes};
use crate::classifier::Classifier;
use crate::error::ModelError;
use crate::pass::Pass;
use crate::taps::Positions;

/// One class for each row of logits: for a text, for a token, or the place of an answer's start and of its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classification;

impl Classification {
    /// The loss of logits `[rows, classes]` against the batch's targets.
    ///
    /// # Errors
    /// A label that the model has no class for; targets of another kind than the model's.
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
        batch.targets.iter().filter(|&&target| target != IGNORED).count()
    }

    fn positions(&self, model: &M, batch: &Batch) -> Positions {
        // Those of the trunk, which has more of them than the text where it reads pictures too.
        Positions { examples: batch.rows, lengths: model.mask(batch).lengths.map(|lengths| lengths.to_vec()) }
    }

    fn sampled(&self, model: &M, batch: &Batch, pass: &Pass, draw: (u64, u64)) -> Result<Option<Batch>, ModelError> {
        let drawn = draw_classes(model.logits(batch, pass), draw);
        let targets = batch.targets.iter().zip(drawn);
        let targets = targets.map(|(&target, drawn)| if target == IGNORED { IGNORED } else { drawn.into() });
        Ok(Some(Batch { targets: targets.collect(), ..batch.clone() }))
    }
}
