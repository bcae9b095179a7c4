//! Batches of running text.

use std::num::NonZeroUsize;

use lapidary_data::store::StoreError;
use lapidary_data::{TokenStore, Windows};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::rng::Stream;
use lapidary_models::objective::TextBatch;

use crate::{BatchSource, TrainError};

/// Windows of a token store, drawn anew for each micro-batch.
pub struct WindowBatches<'a> {
    windows: Windows<'a>,
    store: &'a TokenStore,
    length: NonZeroUsize,
    rows: NonZeroUsize,
    prompts: bool,
    seed: u64,
}

/// The place that the lengths of prompts draw from, with the row added.
const PROMPTS: u64 = 1 << 61;

impl<'a> WindowBatches<'a> {
    /// `rows` windows of `length` tokens a micro-batch. With `prompts` the first tokens of each row are a prompt, whose
    /// length is uniform from none to half of the window; else all of it is target.
    ///
    /// # Errors
    /// A store with fewer tokens than a window.
    pub fn new(
        store: &'a TokenStore,
        length: NonZeroUsize,
        rows: NonZeroUsize,
        prompts: bool,
        seed: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self { windows: Windows::new(store, length, seed)?, store, length, rows, prompts, seed })
    }
}

impl BatchSource for WindowBatches<'_> {
    type Batch = TextBatch;

    fn micro_batch(&self, i: u64) -> Result<TextBatch, TrainError> {
        let rows = self.rows.get();
        let batch = TextBatch::windows(self.windows.batch(i, rows)?, rows, DrawKey { seed: self.seed, step: i });
        if !self.prompts {
            return Ok(batch);
        }
        let prompt = |row| Stream::at_place(self.seed, i, PROMPTS + row).below(self.length.get() / 2 + 1);
        Ok(TextBatch { prompts: (0..rows as u64).map(prompt).collect(), ..batch })
    }

    fn per_epoch(&self) -> u64 {
        self.store.tokens().div_ceil((self.length.get() * self.rows.get()) as u64)
    }
}
