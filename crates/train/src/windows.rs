//! Batches of running text.

use std::num::NonZeroUsize;
use std::ops::Range;

use lapidary_data::store::StoreError;
use lapidary_data::{TokenStore, Windows};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::rng::Stream;
use lapidary_models::objective::{TextBatch, TextObjective};

use crate::pieces::in_pieces;
use crate::{BatchSource, TrainError};

/// Windows of a token store, drawn anew for each micro-batch.
pub struct WindowBatches<'a> {
    windows: Windows<'a>,
    store: &'a TokenStore,
    length: NonZeroUsize,
    rows: NonZeroUsize,
    prompts: bool,
    recall: f64,
    /// What share of the canvases are pieces, and which batches have canvases.
    pieces: Option<(f64, &'a TextObjective)>,
    seed: u64,
}

/// Tokens of a piece that a row repeats: from one that can be told from others by what comes before it to a sentence.
const PIECE: Range<usize> = 4..33;

/// The place that rows which repeat draw from, with the row added.
const RECALL: u64 = 3 << 60;

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
        Ok(Self {
            windows: Windows::new(store, length, seed)?,
            store,
            length,
            rows,
            prompts,
            recall: 0.0,
            pieces: None,
            seed,
        })
    }

    /// With this share of the rows made of a beginning, a quarter to half of the window, and of pieces of it, 4 to 32
    /// tokens each, one behind the other in any order: what a model cannot do on such a row without looking back.
    ///
    /// Heads that look back for what followed a token before (Olsson et al., "In-context learning and induction heads",
    /// 2209.11895) take long to come about in running text, which says few things twice, and every task that writes from
    /// a source wants them. Windows of fewer than 16 tokens stay as they are.
    pub fn recalling(self, share: f64) -> Self {
        Self { recall: share, ..self }
    }

    /// With this share of the rows that `objective` repairs made pieces, each of which begins anywhere in its window: what
    /// stands before it is given. Half of them reach to the end of the window, the others are of 1 to 16 places.
    pub fn in_pieces(self, share: f64, objective: &'a TextObjective) -> Self {
        Self { pieces: (share > 0.0).then_some((share, objective)), ..self }
    }
}

/// Makes a window one that repeats pieces of its beginning, with a probability; the length of that beginning.
fn repeat(window: &mut [u32], probability: f64, mut stream: Stream) -> Option<usize> {
    if window.len() < 4 * PIECE.start || f64::from(stream.uniform()) >= probability {
        return None;
    }
    let quarter = window.len() / 4;
    let (beginning, rest) = window.split_at_mut(quarter + stream.below(quarter + 1));
    let mut place = 0;
    while place < rest.len() {
        let length = PIECE.start + stream.below(PIECE.len());
        let length = length.min(beginning.len()).min(rest.len() - place);
        let from = stream.below(beginning.len() - length + 1);
        rest[place..place + length].copy_from_slice(&beginning[from..from + length]);
        place += length;
    }
    Some(beginning.len())
}

impl BatchSource for WindowBatches<'_> {
    type Batch = TextBatch;

    fn micro_batch(&self, i: u64) -> Result<TextBatch, TrainError> {
        let rows = self.rows.get();
        let mut ids = self.windows.batch(i, rows)?;
        let draw = |from: u64, row: usize| Stream::at_place(self.seed, i, from + row as u64);
        let windows = ids.chunks_exact_mut(self.length.get()).enumerate();
        let beginnings: Vec<Option<usize>> =
            windows.map(|(row, window)| repeat(window, self.recall, draw(RECALL, row))).collect();
        let batch = TextBatch::windows(ids, rows, DrawKey { seed: self.seed, step: i });
        if !self.prompts {
            return Ok(batch);
        }
        let prompt = |(row, beginning): (usize, Option<usize>)| {
            beginning.unwrap_or_else(|| draw(PROMPTS, row).below(self.length.get() / 2 + 1))
        };
        let batch = TextBatch { prompts: beginnings.into_iter().enumerate().map(prompt).collect(), ..batch };
        let Some((share, _)) = self.pieces.filter(|(_, objective)| objective.repairs(i)) else { return Ok(batch) };
        let tokens: Vec<usize> = batch.prompts.iter().map(|prompt| self.length.get() - prompt).collect();
        Ok(in_pieces(batch, &tokens, share))
    }

    fn per_epoch(&self) -> u64 {
        self.store.tokens().div_ceil((self.length.get() * self.rows.get()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window in which no token comes twice, after it was made to repeat.
    fn repeated(length: u32, probability: f64, seed: u64) -> (Vec<u32>, Option<usize>) {
        let mut window = Vec::from_iter(0..length);
        let beginning = repeat(&mut window, probability, Stream::new(seed, 0));
        (window, beginning)
    }

    #[test]
    fn what_repeats_is_made_of_its_beginning() {
        for (length, seed) in [(16, 1), (17, 2), (64, 3), (384, 4), (385, 5)] {
            let (window, beginning) = repeated(length, 1.0, seed);
            let beginning = beginning.unwrap();
            assert!((length as usize / 4..=length as usize / 2).contains(&beginning), "{beginning} of {length}");
            assert!(window[..beginning].iter().copied().eq(0..beginning as u32), "the beginning stays");
            assert!(window[beginning..].iter().all(|token| (*token as usize) < beginning));
            // Within a piece each token is followed by the one that followed it before.
            let breaks = window[beginning..].windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
            assert!(breaks <= (length as usize - beginning) / PIECE.start, "{breaks} of {length}");
        }
    }

    #[test]
    fn others_stay_as_they_are() {
        for (length, probability) in [(64, 0.0), (15, 1.0), (0, 1.0)] {
            assert_eq!(repeated(length, probability, 1), ((0..length).collect(), None));
        }
        let count = (0..1000).filter(|seed| repeated(64, 0.25, *seed).1.is_some()).count();
        assert!((200..300).contains(&count), "{count} of 1000");
    }
}
