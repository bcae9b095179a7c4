//! Objectives: a batch in, a loss out.

mod any_text;
mod autoregressive;
mod bound;
mod classification;
mod denoising;
mod pictures;
mod text;

use burn::tensor::Tensor;
use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::rng::Stream;

use crate::error::ModelError;
use crate::pass::Pass;
use crate::taps::Positions;

pub use any_text::TextObjective;
pub use autoregressive::Autoregressive;
pub use bound::{denoising_bound, own_odds};
pub use classification::Classification;
pub use denoising::Denoising;
pub use pictures::PictureClassification;
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

    /// Its examples, and which of their positions are no padding: what Kronecker factors count.
    fn positions(&self, model: &M, batch: &Self::Batch) -> Positions;

    /// The batch with targets that the model draws from what it says of it: with these the factors are those of the Fisher
    /// matrix, with the batch's own those of the empirical one. `draw` is the number of the draw under a seed. `None`: the
    /// objective has no such targets.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    fn sampled(
        &self,
        _model: &M,
        _batch: &Self::Batch,
        _pass: &Pass,
        _draw: (u64, u64),
    ) -> Result<Option<Self::Batch>, ModelError> {
        Ok(None)
    }
}

/// A class for each row of `logits [rows, classes]`, drawn by their probabilities.
fn draw_classes(logits: Tensor<2>, (seed, number): (u64, u64)) -> Vec<u32> {
    /// The place that the draws begin at.
    const DRAWN: u64 = 1 << 60;
    let [rows, classes] = logits.dims();
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let uniform: Vec<f32> = (0..rows).map(|row| Stream::at_place(seed, number, DRAWN + row as u64).uniform()).collect();
    let mut choices = vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; rows];
    choose(&logits, classes, 1.0, &uniform, &mut choices);
    choices.into_iter().map(|choice| choice.token).collect()
}
