//! Unrolled denoising: the target is corrupted, repaired, and the repair repaired again.
//!
//! Savinov et al., "Step-unrolled denoising autoencoders for text generation" (SUNDAE, 2112.06749), section 2: the
//! model learns from its own outputs, which is what it sees when it writes in several passes.

use burn::tensor::{Tensor, TensorData};
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rng::Stream;

use super::{Objective, TextBatch};
use crate::decoder::Decoder;
use crate::error::ModelError;
use crate::pass::Pass;
use crate::taps::Positions;

/// `Σ_t weights[t] · mean of -log p(target | x_t)`, in nats, `x_0` the corrupted target and `x_(t+1)` drawn from what the
/// model makes of `x_t` (equations 5 and 7; the paper's two steps weigh a half each).
///
/// The rate of corruption is uniform in `[0, 1]` and each row's own; a corrupted token is any of the vocabulary's with
/// equal probability. All of the target counts, corrupted or not. No gradient goes through a draw.
#[derive(Clone, Debug)]
pub struct Denoising {
    /// One a step.
    pub weights: Vec<f32>,
    /// Tokens that there are.
    pub vocabulary: usize,
    /// Whether a place's prediction comes from the place before it: see
    /// [`DecoderConfig::shifted_canvas`](crate::decoder::DecoderConfig::shifted_canvas). The canvas then begins with the
    /// last token of the prompt, which is not corrupted; where there is no prompt that is the row's first token.
    pub shifted: bool,
}

/// The place that corruption draws from; a row's draws in the loss are at the row's number.
const CORRUPTION: u64 = 1 << 62;

impl Denoising {
    /// Two steps of equal weight.
    pub fn new(vocabulary: usize) -> Self {
        Self { weights: vec![0.5, 0.5], vocabulary, shifted: false }
    }

    /// Where a row's corruption begins.
    fn begin(&self, prompt: usize) -> usize {
        if self.shifted { prompt.max(1) } else { prompt }
    }

    /// Places `[B·L]` that are corrupted and repaired.
    pub fn places<'a>(&'a self, batch: &'a TextBatch) -> impl Iterator<Item = usize> + 'a {
        let length = batch.length();
        let rows = batch.prompts.iter().zip(&*batch.ends).enumerate();
        rows.flat_map(move |(row, (prompt, end))| row * length + self.begin(*prompt)..row * length + end)
    }

    /// Which place sees which: the canvas of each row, and what belongs to it, see all of it.
    pub fn mask(&self, batch: &TextBatch) -> Mask {
        let begins: Vec<usize> =
            batch.prompts.iter().map(|prompt| self.begin(*prompt) - usize::from(self.shifted)).collect();
        Mask::canvas(begins).with_lengths(batch.ends.clone())
    }

    /// The batch's tokens, `[B·L]`, of whose targets each row loses its share.
    pub fn corrupted(&self, batch: &TextBatch) -> Vec<u32> {
        let mut ids = batch.ids.clone();
        let length = batch.length();
        for (row, (&prompt, &end)) in batch.prompts.iter().zip(&*batch.ends).enumerate() {
            let mut stream = Stream::at_place(batch.key.seed, batch.key.step, CORRUPTION + row as u64);
            let rate = stream.uniform();
            for id in &mut ids[row * length + self.begin(prompt)..row * length + end] {
                if stream.uniform() < rate {
                    *id = stream.below(self.vocabulary) as u32;
                }
            }
        }
        ids
    }

    /// What each place is to say, `[B·L]`.
    fn repaired(&self, batch: &TextBatch) -> Vec<i64> {
        let mut targets = vec![IGNORED; batch.ids.len()];
        self.places(batch).for_each(|place| targets[place - usize::from(self.shifted)] = batch.ids[place].into());
        targets
    }

    /// What places `[B·L, D]` say, at the places that it is said of, and zeros elsewhere.
    fn of_places(&self, x: Tensor<2>, batch: &TextBatch) -> Tensor<2> {
        let mut is_place = vec![0f32; batch.ids.len()];
        self.places(batch).for_each(|place| is_place[place] = 1.0);
        let ([rows, width], device) = (x.dims(), x.device());
        let x = match self.shifted {
            true => Tensor::cat(vec![Tensor::zeros([1, width], &device), x.slice([0..rows - 1, 0..width])], 0),
            false => x,
        };
        x * Tensor::<2>::from_data(TensorData::new(is_place, [rows, 1]), &device)
    }
}

impl Objective<Decoder> for Denoising {
    type Batch = TextBatch;

    fn loss(&self, model: &Decoder, batch: &TextBatch, pass: &Pass, normalizer: f32) -> Result<Tensor<1>, ModelError> {
        let mask = self.mask(batch);
        let targets = self.repaired(batch);
        let mut ids = self.corrupted(batch);
        let mut total: Option<Tensor<1>> = None;
        // What the step before said, for models that read it.
        let mut estimate: Option<Tensor<2>> = None;
        for (step, &weight) in self.weights.iter().enumerate() {
            let normalizer = normalizer / weight;
            let x = model.hidden(&ids, batch.rows, &mask, estimate.take(), pass)?; // [B·L, D]
            let loss = if step + 1 < self.weights.len() {
                // Steps of one batch are told apart by their seed, batches by their step.
                let key = DrawKey { seed: batch.key.seed.wrapping_add(step as u64), ..batch.key };
                if model.estimate.is_some() {
                    estimate = Some(self.of_places(model.expected(x.clone(), pass), batch));
                }
                let (loss, drawn) = model.loss_drawing_at(x, &targets, normalizer, pass, key)?;
                self.places(batch).for_each(|place| ids[place] = drawn[place - usize::from(self.shifted)]);
                loss
            } else {
                model.loss_at(x, &targets, normalizer, pass)?
            };
            total = Some(match total {
                Some(total) => total + loss,
                None => loss,
            });
        }
        total.ok_or(ModelError::NoSteps)
    }

    fn targets(&self, batch: &TextBatch) -> usize {
        self.places(batch).count()
    }

    fn positions(&self, _: &Decoder, batch: &TextBatch) -> Positions {
        batch.positions()
    }
}
