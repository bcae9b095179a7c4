//! Counts of n-grams and what two texts share of them.

use std::collections::HashMap;
use std::hash::Hash;

pub type Counts<'a, T> = HashMap<&'a [T], u64>;

/// How often each run of `n` tokens occurs; `n` is at least 1.
pub fn count<T: Eq + Hash>(tokens: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = Counts::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// Occurrences that two texts share, each counted as often as in the text that has it less often.
pub fn overlap<T: Eq + Hash>(left: &Counts<'_, T>, right: &Counts<'_, T>) -> u64 {
    left.iter().filter_map(|(ngram, &count)| right.get(ngram).map(|&other| count.min(other))).sum()
}

/// How many n-grams a text of `tokens` tokens has.
pub fn total(tokens: usize, n: usize) -> u64 {
    (tokens + 1).saturating_sub(n) as u64
}
