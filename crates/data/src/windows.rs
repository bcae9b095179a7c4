//! Windows of tokens for training, drawn anew at each step.
//!
//! Which window a row gets is a pure function of the seed, the step and the row, so a run that is taken up again draws
//! what it would have drawn, and a batch may be cut into parts in any way.

use std::num::NonZeroUsize;

use lapidary_kernels::rng::{self, Stream};

use crate::store::{StoreError, TokenStore};

/// The place of these draws among all of a step's; operators number theirs from 0 up and from the top down.
const PLACE: u64 = u64::from_be_bytes(*b"windows.");

/// Windows of one length from one store.
#[derive(Debug, Clone, Copy)]
pub struct Windows<'a> {
    store: &'a TokenStore,
    length: NonZeroUsize,
    seed: u64,
}

impl<'a> Windows<'a> {
    /// Windows of `length` tokens. A model that predicts the next token wants one more than its length, since the
    /// first is no target and the last no input.
    ///
    /// # Errors
    /// When the store has fewer tokens.
    pub fn new(store: &'a TokenStore, length: NonZeroUsize, seed: u64) -> Result<Windows<'a>, StoreError> {
        match length.get() as u64 <= store.tokens() {
            true => Ok(Windows { store, length, seed }),
            false => {
                let path = store.path().to_path_buf();
                Err(StoreError::Window { path, length: length.get(), tokens: store.tokens() })
            }
        }
    }

    /// Where the window of a row begins: uniform over all positions from which it fits, within documents and across
    /// their ends.
    pub fn start(&self, step: u64, row: u64) -> u64 {
        let starts = self.store.tokens() - self.length.get() as u64 + 1;
        let mut stream = Stream::new(rng::bits(self.seed, step, PLACE), row);
        // No store on a machine of 32 bits has more positions than a usize counts.
        stream.below(usize::try_from(starts).unwrap_or(usize::MAX)) as u64
    }

    /// The window of one row, `[length]`.
    ///
    /// # Errors
    /// As [`TokenStore::read`].
    pub fn window(&self, step: u64, row: u64) -> Result<Vec<u32>, StoreError> {
        let start = self.start(step, row);
        self.store.read(start..start + self.length.get() as u64)
    }

    /// The windows of rows `0..rows`, `[rows, length]`.
    ///
    /// # Errors
    /// As [`TokenStore::read`].
    pub fn batch(&self, step: u64, rows: usize) -> Result<Vec<u32>, StoreError> {
        let windows: Result<Vec<_>, _> = (0..rows as u64).map(|row| self.window(step, row)).collect();
        Ok(windows?.concat())
    }
}
