//! Which examples go into which batch.
//!
//! A plan is a pure function of the lengths, the options and the epoch, so a run that is taken up again in the middle
//! of an epoch makes the same plan and goes on at the same batch.

use std::num::NonZeroUsize;

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

/// How training batches are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// Examples in a batch; the last of an epoch may have fewer.
    pub batch_size: NonZeroUsize,
    /// Batches in one bucket: examples are sorted by length within windows of `bucket_batches * batch_size` shuffled
    /// examples. 1 means no bucketing; more means less padding and batches that are less mixed.
    pub bucket_batches: NonZeroUsize,
    /// Seed of the shuffle.
    pub seed: u64,
}

/// The batches of one epoch of training, as indices into `lengths`: every index exactly once.
///
/// The examples are shuffled, sorted by length within each bucket, cut into batches, and the batches shuffled. Every
/// batch has `batch_size` indices but for at most one, which has the rest.
pub fn plan(lengths: &[usize], options: &BatchOptions, epoch: u64) -> Vec<Vec<usize>> {
    let batch_size = options.batch_size.get();
    let window = batch_size.saturating_mul(options.bucket_batches.get());
    let mut stream = Stream::new(options.seed, epoch);

    let mut order: Vec<usize> = (0..lengths.len()).collect();
    stream.shuffle(&mut order);
    let mut batches = Vec::with_capacity(lengths.len().div_ceil(batch_size));
    for bucket in order.chunks_mut(window) {
        // Stable: examples of one length keep their shuffled order, so who meets whom changes with the epoch.
        bucket.sort_by_key(|&index| lengths[index]);
        batches.extend(bucket.chunks(batch_size).map(<[usize]>::to_vec));
    }
    stream.shuffle(&mut batches);
    batches
}

/// A plan for evaluation: no shuffle, as little padding as there can be, and the way back to the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortedPlan {
    /// Indices into the lengths, longest first, so that the largest batch shows at once whether the memory suffices.
    pub batches: Vec<Vec<usize>>,
}

impl SortedPlan {
    /// Batches of `batch_size` examples in descending length; equal lengths keep the order of the file.
    pub fn new(lengths: &[usize], batch_size: NonZeroUsize) -> SortedPlan {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
        SortedPlan { batches: order.chunks(batch_size.get()).map(<[usize]>::to_vec).collect() }
    }

    /// Puts one value per example, given in the order of the batches, back into the order of the file.
    ///
    /// # Panics
    /// When there is not exactly one value per example.
    pub fn restore<T>(&self, values: Vec<T>) -> Vec<T> {
        let examples: usize = self.batches.iter().map(Vec::len).sum();
        assert_eq!(values.len(), examples, "one value per planned example");
        let mut placed: Vec<(usize, T)> = self.batches.iter().flatten().copied().zip(values).collect();
        placed.sort_unstable_by_key(|&(index, _)| index);
        placed.into_iter().map(|(_, value)| value).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(batch_size: usize, bucket_batches: usize, seed: u64) -> BatchOptions {
        BatchOptions {
            batch_size: NonZeroUsize::new(batch_size).unwrap(),
            bucket_batches: NonZeroUsize::new(bucket_batches).unwrap(),
            seed,
        }
    }

    /// Padding tokens that a plan makes.
    fn padding(lengths: &[usize], batches: &[Vec<usize>]) -> usize {
        let waste = |batch: &Vec<usize>| {
            let longest = batch.iter().map(|&i| lengths[i]).max().unwrap();
            batch.iter().map(|&i| longest - lengths[i]).sum::<usize>()
        };
        batches.iter().map(waste).sum()
    }

    proptest! {
        #[test]
        fn every_index_once_and_full_batches(
            lengths in prop::collection::vec(0usize..60, 0..300),
            (batch_size, bucket_batches) in (1usize..40, prop_oneof![1usize..9, Just(usize::MAX)]),
            (seed, epoch) in any::<(u64, u64)>(),
        ) {
            let options = options(batch_size, bucket_batches, seed);
            let batches = plan(&lengths, &options, epoch);
            let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());

            let mut sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            prop_assert_eq!(sizes.len(), lengths.len().div_ceil(batch_size));
            for (index, size) in sizes.iter().enumerate() {
                prop_assert_eq!(*size, batch_size.min(lengths.len() - index * batch_size));
            }
            prop_assert_eq!(batches, plan(&lengths, &options, epoch));
        }

        #[test]
        fn one_bucket_pads_no_more_than_no_bucket(
            lengths in prop::collection::vec(1usize..60, 1..300), batch_size in 1usize..40, seed in any::<u64>(),
        ) {
            // Sorted runs pad least when every batch is full; a short batch may fall on a long row.
            let full = lengths.len() / batch_size * batch_size;
            let lengths = &lengths[..full];
            let bucketed = plan(lengths, &options(batch_size, usize::MAX, seed), 0);
            let mixed = plan(lengths, &options(batch_size, 1, seed), 0);
            prop_assert!(padding(lengths, &bucketed) <= padding(lengths, &mixed));
        }

        #[test]
        fn a_sorted_plan_descends_and_restores(
            lengths in prop::collection::vec(0usize..60, 0..300), batch_size in 1usize..40,
        ) {
            let plan = SortedPlan::new(&lengths, NonZeroUsize::new(batch_size).unwrap());
            let order: Vec<usize> = plan.batches.iter().flatten().copied().collect();
            prop_assert!(order.windows(2).all(|pair| lengths[pair[0]] >= lengths[pair[1]]));
            prop_assert!(plan.batches.iter().rev().skip(1).all(|batch| batch.len() == batch_size));
            prop_assert_eq!(plan.restore(order), (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let lengths = vec![5; 100];
        let first = plan(&lengths, &options(8, 4, 1), 0);
        assert_ne!(first, plan(&lengths, &options(8, 4, 1), 1));
        assert_ne!(first, plan(&lengths, &options(8, 4, 2), 0));
    }

    #[test]
    fn batches_are_not_in_order_of_length() {
        let lengths: Vec<usize> = (0..640).collect();
        let longest: Vec<usize> =
            plan(&lengths, &options(8, 100, 3), 0).iter().map(|batch| *batch.iter().max().unwrap()).collect();
        assert!(!longest.is_sorted() && !longest.iter().rev().is_sorted());
    }

    #[test]
    fn a_recipe_cannot_ask_for_empty_batches() {
        let error = toml::from_str::<BatchOptions>("batch_size = 0\nbucket_batches = 1\nseed = 0").unwrap_err();
        assert!(error.message().contains("nonzero"), "{error}");
    }

    #[test]
    #[should_panic(expected = "one value per planned example")]
    fn restoring_too_few_values_is_refused() {
        SortedPlan::new(&[1, 2, 3], NonZeroUsize::MIN).restore(vec![0; 2]);
    }
}
