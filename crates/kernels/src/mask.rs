//! Which keys a query attends to. One type for the three trunks: bidirectional, autoregressive, prefix.

use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MaskKind {
    /// Every key is visible to every query (BERT).
    #[default]
    Full,
    /// Key `j` is visible to query `i` if `j <= i` (a decoder).
    Causal,
    /// As causal, and the first `prefix[row]` keys are visible to all queries (a prompt read both ways).
    Prefix,
}

/// A mask over the rows of a batch. Rows and positions count from 0.
///
/// In every kind the visible keys of a query are a range that starts at 0, so a kernel needs only its end:
/// [`Mask::span`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mask {
    pub kind: MaskKind,
    /// Real tokens of each row: keys from there on are padding and hidden. `None`: no padding.
    pub lengths: Option<Arc<[usize]>>,
    /// Prompt tokens of each row, for [`MaskKind::Prefix`]. `None`: no prompt, which makes it causal.
    pub prefix: Option<Arc<[usize]>>,
}

impl Mask {
    pub fn full() -> Self {
        Self::default()
    }

    pub fn causal() -> Self {
        Self { kind: MaskKind::Causal, ..Self::default() }
    }

    /// `prefix[row]` keys of each row are visible to all its queries.
    pub fn prefix(prefix: impl Into<Arc<[usize]>>) -> Self {
        Self { kind: MaskKind::Prefix, prefix: Some(prefix.into()), ..Self::default() }
    }

    /// Hides the keys at and beyond `lengths[row]`.
    pub fn with_lengths(self, lengths: impl Into<Arc<[usize]>>) -> Self {
        Self { lengths: Some(lengths.into()), ..self }
    }

    /// How many keys, counted from 0, `query` of `row` sees in sequences of `length` tokens.
    ///
    /// `row` must be within `lengths` and `prefix` where they are given: see [`Mask::covers`].
    #[inline]
    pub fn span(&self, row: usize, query: usize, length: usize) -> usize {
        let end = match self.kind {
            MaskKind::Full => length,
            MaskKind::Causal => query + 1,
            MaskKind::Prefix => self.prefix.as_ref().map_or(0, |prefix| prefix[row]).max(query + 1),
        };
        end.min(self.lengths.as_ref().map_or(length, |lengths| lengths[row])).min(length)
    }

    /// Whether `key` of `row` is visible to `query`.
    #[inline]
    pub fn visible(&self, row: usize, query: usize, key: usize) -> bool {
        key < self.span(row, query, usize::MAX)
    }

    /// Whether the mask says something about each of `rows` rows.
    pub fn covers(&self, rows: usize) -> bool {
        [&self.lengths, &self.prefix].into_iter().flatten().all(|of_rows| of_rows.len() == rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(mask: &Mask, row: usize) -> Vec<String> {
        let dot = |query, key| if mask.visible(row, query, key) { '#' } else { '.' };
        (0..4).map(|query| (0..4).map(|key| dot(query, key)).collect()).collect()
    }

    #[test]
    fn each_kind() {
        assert_eq!(picture(&Mask::full(), 0), ["####"; 4]);
        assert_eq!(picture(&Mask::causal(), 0), ["#...", "##..", "###.", "####"]);
        assert_eq!(picture(&Mask::prefix([0, 2]), 1), ["##..", "##..", "###.", "####"]);
        assert_eq!(picture(&Mask::prefix([0, 2]), 0), picture(&Mask::causal(), 0));
    }

    #[test]
    fn padding_hides_keys_of_its_row_only() {
        let mask = Mask::causal().with_lengths([2, 4, 0]);
        assert_eq!(picture(&mask, 0), ["#...", "##..", "##..", "##.."]);
        assert_eq!(picture(&mask, 1), picture(&Mask::causal(), 1));
        assert_eq!(picture(&mask, 2), ["...."; 4]);
        assert!(mask.covers(3) && !mask.covers(2) && Mask::full().covers(7));
    }

    #[test]
    fn a_span_ends_within_the_sequence() {
        let mask = Mask::prefix([9]).with_lengths([7]);
        assert_eq!(mask.span(0, 1, 5), 5);
        assert_eq!(mask.span(0, 1, 8), 7);
    }
}
