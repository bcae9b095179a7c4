//! Batches of pictures in classes.

use std::cell::RefCell;

use lapidary_data::batch::{BatchOptions, plan};
use lapidary_data::{Augmentation, Normalization, PictureBatch, PictureSet};

use crate::{BatchSource, TrainError};

/// Epoch after epoch of a set in memory, each in an order of its own, cut and mirrored anew.
pub struct PictureBatches<'a> {
    set: &'a PictureSet,
    lengths: Vec<usize>,
    normalization: Normalization,
    augmentation: Augmentation,
    options: BatchOptions,
    current: RefCell<(u64, Vec<Vec<usize>>)>,
}

impl<'a> PictureBatches<'a> {
    /// Batches of `set` by `options`; of the last pictures of an epoch that do not fill a batch one is made all the same.
    ///
    /// # Errors
    /// No pictures.
    pub fn new(
        set: &'a PictureSet,
        normalization: Normalization,
        augmentation: Augmentation,
        options: BatchOptions,
    ) -> Result<Self, TrainError> {
        if set.is_empty() {
            return Err(TrainError::Empty);
        }
        let lengths = vec![1; set.len()];
        let current = RefCell::new((0, plan(&lengths, &options, 0)));
        Ok(Self { set, lengths, normalization, augmentation, options, current })
    }
}

impl BatchSource for PictureBatches<'_> {
    type Batch = PictureBatch;

    fn micro_batch(&self, i: u64) -> Result<PictureBatch, TrainError> {
        let (epoch, place) = (i / self.per_epoch(), i % self.per_epoch());
        let mut current = self.current.borrow_mut();
        if current.0 != epoch {
            *current = (epoch, plan(&self.lengths, &self.options, epoch));
        }
        let rows = &current.1[place as usize];
        let drawn = (self.options.seed, epoch);
        Ok(PictureBatch::drawn(self.set, rows, &self.normalization, self.augmentation, drawn))
    }

    fn per_epoch(&self) -> u64 {
        self.set.len().div_ceil(self.options.batch_size.get()) as u64
    }
}
