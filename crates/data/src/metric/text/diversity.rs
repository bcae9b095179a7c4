//! How varied a set of texts is, without references: distinct n-grams and repetition. Tokens may be words
//! ([`words`](super::words)) or token ids; the numbers of one are not comparable with those of the other.

use std::collections::HashSet;
use std::hash::Hash;
use std::num::NonZeroUsize;

use super::{MetricError, ngrams};

/// Distinct n-grams of a set of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distinct {
    /// Different n-grams in the whole set.
    pub distinct: u64,
    /// All n-grams.
    pub ngrams: u64,
    /// All tokens.
    pub tokens: u64,
}

impl Distinct {
    /// distinct-n of Li et al. 2016 ("A diversity-promoting objective function for neural conversation models"),
    /// 0-1: over the number of tokens. 0 without tokens.
    pub fn per_token(&self) -> f64 {
        share(self.distinct, self.tokens)
    }

    /// The same over the number of n-grams, as many later papers have it, 0-1; 1 if no n-gram occurs twice. 0 without
    /// n-grams.
    pub fn per_ngram(&self) -> f64 {
        share(self.distinct, self.ngrams)
    }
}

/// Counts the distinct n-grams of a set. They do not reach across rows.
///
/// # Errors
/// When there are no rows.
pub fn distinct<T: Eq + Hash>(rows: &[impl AsRef<[T]>], n: NonZeroUsize) -> Result<Distinct, MetricError> {
    if rows.is_empty() {
        return Err(MetricError::Empty);
    }
    let seen: HashSet<&[T]> = rows.iter().flat_map(|row| row.as_ref().windows(n.get())).collect();
    Ok(Distinct {
        distinct: seen.len() as u64,
        ngrams: rows.iter().map(|row| ngrams::total(row.as_ref().len(), n.get())).sum(),
        tokens: rows.iter().map(|row| row.as_ref().len() as u64).sum(),
    })
}

/// How much texts repeat themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repetition {
    /// The share of all tokens that equal the token before, 0-1: the typical fault of parallel decoding. 0 without
    /// tokens.
    pub adjacent: f64,
    /// seq-rep-n of Welleck et al. 2020 ("Neural text generation with unlikelihood training"), 0-1: the share of a
    /// row's n-grams that occurred before in that row, mean over the rows that have n-grams. 0 if none has.
    pub rep_n: f64,
    /// Rows shorter than n tokens, which `rep_n` does not count.
    pub short_rows: u64,
}

/// Counts repetition within each row; Welleck et al. take n = 4.
///
/// # Errors
/// When there are no rows.
pub fn repetition<T: Eq + Hash>(rows: &[impl AsRef<[T]>], n: NonZeroUsize) -> Result<Repetition, MetricError> {
    if rows.is_empty() {
        return Err(MetricError::Empty);
    }
    let (mut repeats, mut tokens, mut sum, mut counted) = (0, 0, 0.0, 0_u64);
    for row in rows {
        let row = row.as_ref();
        tokens += row.len() as u64;
        repeats += row.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        let ngrams = ngrams::total(row.len(), n.get());
        if ngrams > 0 {
            let unique = row.windows(n.get()).collect::<HashSet<_>>().len() as u64;
            sum += share(ngrams - unique, ngrams);
            counted += 1;
        }
    }
    Ok(Repetition {
        adjacent: share(repeats, tokens),
        rep_n: if counted > 0 { sum / counted as f64 } else { 0.0 },
        short_rows: rows.len() as u64 - counted,
    })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    #[test]
    fn by_hand() {
        let rows = [vec![1, 1, 1, 2], vec![1, 2], vec![3], vec![]];
        let pairs = distinct(&rows, TWO).unwrap();
        assert_eq!(pairs, Distinct { distinct: 2, ngrams: 4, tokens: 7 });
        assert_eq!((pairs.per_token(), pairs.per_ngram()), (2.0 / 7.0, 0.5));
        // Of the pairs of the first row one of three is a repeat, of the second none; the others have no pair.
        let expected = Repetition { adjacent: 2.0 / 7.0, rep_n: 1.0 / 6.0, short_rows: 2 };
        assert_eq!(repetition(&rows, TWO).unwrap(), expected);
    }

    #[test]
    fn nothing_to_count() {
        let rows: [Vec<u32>; 1] = [vec![]];
        assert_eq!(distinct(&rows, TWO).unwrap().per_ngram(), 0.0);
        assert_eq!(repetition(&rows, TWO).unwrap(), Repetition { adjacent: 0.0, rep_n: 0.0, short_rows: 1 });
        assert_eq!(distinct::<u32>(&[] as &[Vec<u32>], TWO), Err(MetricError::Empty));
    }
}
