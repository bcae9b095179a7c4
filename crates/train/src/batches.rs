//! Batches as a function of their number: what makes a resumed run see what the unbroken one would have seen.

use std::cell::RefCell;

use lapidary_data::Batch;
use lapidary_data::Encoded;
use lapidary_data::batch::{BatchOptions, plan};

use crate::TrainError;

/// Gives the `i`-th micro-batch of a training, always the same.
pub trait BatchSource {
    /// What the objective takes.
    type Batch;

    /// Micro-batch `i`, counted over all epochs.
    ///
    /// # Errors
    /// What it is made of cannot be read.
    fn micro_batch(&self, i: u64) -> Result<Self::Batch, TrainError>;
    /// Micro-batches in one epoch.
    fn per_epoch(&self) -> u64;
}

/// Epoch after epoch of a data set in memory, in length buckets.
pub struct EpochBatches<'a> {
    examples: &'a [Encoded],
    lengths: Vec<usize>,
    options: BatchOptions,
    pad_id: u32,
    current: RefCell<(u64, Vec<Vec<usize>>)>,
}

impl<'a> EpochBatches<'a> {
    /// Batches of `examples` by `options`.
    ///
    /// # Errors
    /// No examples.
    pub fn new(examples: &'a [Encoded], options: BatchOptions, pad_id: u32) -> Result<Self, TrainError> {
        if examples.is_empty() {
            return Err(TrainError::Empty);
        }
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let current = RefCell::new((0, plan(&lengths, &options, 0)));
        Ok(Self { examples, lengths, options, pad_id, current })
    }
}

impl BatchSource for EpochBatches<'_> {
    type Batch = Batch;

    fn micro_batch(&self, i: u64) -> Result<Batch, TrainError> {
        let (epoch, place) = (i / self.per_epoch(), i % self.per_epoch());
        let mut current = self.current.borrow_mut();
        if current.0 != epoch {
            *current = (epoch, plan(&self.lengths, &self.options, epoch));
        }
        let rows: Vec<&Encoded> = current.1[place as usize].iter().map(|&row| &self.examples[row]).collect();
        Ok(Batch::collate(&rows, self.pad_id))
    }

    fn per_epoch(&self) -> u64 {
        self.examples.len().div_ceil(self.options.batch_size.get()) as u64
    }
}
