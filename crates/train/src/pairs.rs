//! Batches of pairs for models that write: what is written from, and what is written.

use std::cell::RefCell;

use lapidary_data::batch::{BatchOptions, plan};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_models::objective::{TextBatch, TextObjective};

use crate::pieces::in_pieces;
use crate::{BatchSource, TrainError};

/// A text to write, and what it is written from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPair {
    /// All that stands before the text, with the token that says where it begins.
    pub prompt: Vec<u32>,
    /// The text, with the token that ends it.
    pub target: Vec<u32>,
}

/// What stands behind a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanvasLayout {
    /// Places for a target where it is repaired: what is left of them is padding, which is part of the target, so that
    /// a model learns how long texts are.
    pub canvas: usize,
    /// The token of padding.
    pub pad: u32,
}

/// Epoch after epoch of pairs in memory, in length buckets, laid out as the objective of each step wants them.
pub struct PairBatches<'a> {
    pairs: &'a [TextPair],
    lengths: Vec<usize>,
    objective: &'a TextObjective,
    layout: CanvasLayout,
    pieces: f64,
    options: BatchOptions,
    current: RefCell<(u64, Vec<Vec<usize>>)>,
}

impl<'a> PairBatches<'a> {
    /// Batches of `pairs` by `options`.
    ///
    /// # Errors
    /// No pairs, a target that is longer than the canvas.
    pub fn new(
        pairs: &'a [TextPair],
        objective: &'a TextObjective,
        layout: CanvasLayout,
        options: BatchOptions,
    ) -> Result<Self, TrainError> {
        if pairs.is_empty() {
            return Err(TrainError::Empty);
        }
        if let Some((pair, long)) = pairs.iter().enumerate().find(|(_, pair)| pair.target.len() > layout.canvas) {
            return Err(TrainError::Target { pair, tokens: long.target.len(), canvas: layout.canvas });
        }
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.prompt.len() + pair.target.len()).collect();
        let current = RefCell::new((0, plan(&lengths, &options, 0)));
        Ok(Self { pairs, lengths, objective, layout, pieces: 0.0, options, current })
    }

    /// With this share of the canvases made pieces, each of which begins within its text: what stands before it is given.
    /// Half of them reach to the end of the canvas, the others are of 1 to 16 places.
    pub fn in_pieces(self, share: f64) -> Self {
        Self { pieces: share, ..self }
    }

    /// Rows `[prompt][target][padding]`, the padding that belongs to a canvas counted as target where `repairs`.
    pub fn collate(rows: &[&TextPair], layout: CanvasLayout, repairs: bool, key: DrawKey) -> TextBatch {
        let targets = |pair: &TextPair| if repairs { layout.canvas } else { pair.target.len() };
        let prompts: Vec<usize> = rows.iter().map(|pair| pair.prompt.len()).collect();
        let ends: Vec<usize> = rows.iter().map(|pair| pair.prompt.len() + targets(pair)).collect();
        let length = ends.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * length);
        for (row, pair) in rows.iter().enumerate() {
            ids.extend(&pair.prompt);
            ids.extend(&pair.target);
            ids.resize((row + 1) * length, layout.pad);
        }
        TextBatch { ids, rows: rows.len(), prompts: prompts.into(), ends: ends.into(), key }
    }
}

impl BatchSource for PairBatches<'_> {
    type Batch = TextBatch;

    fn micro_batch(&self, i: u64) -> Result<TextBatch, TrainError> {
        let (epoch, place) = (i / self.per_epoch(), i % self.per_epoch());
        let mut current = self.current.borrow_mut();
        if current.0 != epoch {
            *current = (epoch, plan(&self.lengths, &self.options, epoch));
        }
        let rows: Vec<&TextPair> = current.1[place as usize].iter().map(|&row| &self.pairs[row]).collect();
        let key = DrawKey { seed: self.options.seed, step: i };
        let repairs = self.objective.repairs(i);
        let batch = Self::collate(&rows, self.layout, repairs, key);
        // What is behind the text is padding, which nobody writes on.
        let tokens: Vec<usize> = rows.iter().map(|pair| pair.target.len()).collect();
        Ok(if repairs && self.pieces > 0.0 { in_pieces(batch, &tokens, self.pieces) } else { batch })
    }

    fn per_epoch(&self) -> u64 {
        self.pairs.len().div_ceil(self.options.batch_size.get()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use lapidary_models::objective::{Autoregressive, Denoising};

    use super::*;

    const LAYOUT: CanvasLayout = CanvasLayout { canvas: 4, pad: 0 };

    fn pairs() -> Vec<TextPair> {
        let pair = |prompt: &[u32], target: &[u32]| TextPair { prompt: prompt.into(), target: target.into() };
        vec![pair(&[5, 6, 7], &[8, 2]), pair(&[9], &[3, 4, 2]), pair(&[1, 1], &[2])]
    }

    #[test]
    fn padding_of_a_canvas_is_part_of_the_target() {
        let (pairs, key) = (pairs(), DrawKey { seed: 1, step: 0 });
        let rows: Vec<&TextPair> = pairs.iter().collect();
        let written = PairBatches::collate(&rows, LAYOUT, false, key);
        assert_eq!(written.ids, [[5, 6, 7, 8, 2], [9, 3, 4, 2, 0], [1, 1, 2, 0, 0]].concat());
        assert_eq!((&*written.prompts, &*written.ends), (&[3, 1, 2][..], &[5, 4, 3][..]));
        let repaired = PairBatches::collate(&rows, LAYOUT, true, key);
        assert_eq!(repaired.ids, [[5, 6, 7, 8, 2, 0, 0], [9, 3, 4, 2, 0, 0, 0], [1, 1, 2, 0, 0, 0, 0]].concat());
        assert_eq!((&*repaired.prompts, &*repaired.ends), (&[3, 1, 2][..], &[7, 5, 6][..]));
    }

    #[test]
    fn the_objective_of_the_step_says_which() {
        let (pairs, two) = (pairs(), NonZeroUsize::new(2).unwrap());
        let options = BatchOptions { batch_size: two, bucket_batches: two, seed: 1 };
        let objective = TextObjective::Both(Autoregressive { prompts: false }, Denoising::new(10));
        let batches = PairBatches::new(&pairs, &objective, LAYOUT, options).unwrap();
        assert_eq!(batches.per_epoch(), 2);
        for step in 0..6 {
            let batch = batches.micro_batch(step).unwrap();
            let whole = batch.prompts.iter().zip(&*batch.ends).all(|(prompt, end)| end - prompt == 4);
            assert_eq!(whole, step % 2 == 1, "step {step}");
            assert_eq!(batch.key, DrawKey { seed: 1, step });
        }
        let rows = |epoch: u64| {
            batches.micro_batch(2 * epoch).unwrap().rows + batches.micro_batch(2 * epoch + 1).unwrap().rows
        };
        assert!((0..3).all(|epoch| rows(epoch) == 3));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (pairs, two) = (pairs(), NonZeroUsize::new(2).unwrap());
        let options = BatchOptions { batch_size: two, bucket_batches: two, seed: 1 };
        let objective = TextObjective::Denoising(Denoising::new(10));
        let error = |pairs: &[TextPair], canvas| {
            let layout = CanvasLayout { canvas, pad: 0 };
            PairBatches::new(pairs, &objective, layout, options).err().map(|error| error.to_string())
        };
        assert_eq!(error(&pairs, 4), None);
        assert_eq!(error(&pairs, 2).as_deref(), Some("the target of pair 1 has 3 tokens, the canvas 2 places"));
        assert!(error(&[], 4).is_some());
    }
}
