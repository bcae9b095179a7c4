//! Objectives: a batch in, a loss out.

mod any_text;
mod autoregressive;
mod bound;
mod classification;
mod denoising;
mod text;

use burn::tensor::Tensor;

use crate::error::ModelError;
use crate::pass::Pass;

pub use any_text::TextObjective;
pub use autoregressive::Autoregressive;
pub use bound::{denoising_bound, own_odds};
pub use classification::Classification;
pub use denoising::Denoising;
pub use text::TextBatch;

/// What a training step minimizes.
pub trait Objective<M> {
    /// What one evaluation of the loss looks at.
    type Batch;

    /// The batch's share of a mean over `normalizer` targets, a scalar `[1]`.
    ///
    /// # Errors
    /// Targets that do not fit the model.
    fn loss(&self, model: &M, batch: &Self::Batch, pass: &Pass, normalizer: f32) -> Result<Tensor<1>, ModelError>;

    /// Number of targets in a batch: what the normalizer counts.
    fn targets(&self, batch: &Self::Batch) -> usize;
}
