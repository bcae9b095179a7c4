//! Which keys a query attends to. One type for all trunks: bidirectional, autoregressive, prefix, canvas.

use std::ops::Range;
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
    /// As causal, and the queries from `prefix[row]` on see every key (a canvas behind a prompt). What a prompt's tokens
    /// give does not depend on the canvas, so that they are read once however often the canvas is.
    Canvas,
}

/// A mask over the rows of a batch. Rows and positions count from 0.
///
/// In every kind the visible keys of a query are one range, [`Mask::span`], neither end of which ever moves back from
/// one query to the next.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Mask {
    pub kind: MaskKind,
    /// Real tokens of each row: keys from there on are padding and hidden. `None`: no padding.
    pub lengths: Option<Arc<[usize]>>,
    /// Prompt tokens of each row, for [`MaskKind::Prefix`] and [`MaskKind::Canvas`]. `None`: no prompt, which makes the
    /// one causal and the other full.
    pub prefix: Option<Arc<[usize]>>,
    /// Tokens this far apart or further do not see each other, in either direction. `None`: no such limit.
    ///
    /// It narrows what the kind allows, prefixes included: for causal queries it leaves `query - window < key <= query`.
    /// So do the local layers of Gemma 3, `(causal or bidirectional) and |query - key| < window` in the authors' code
    /// (`create_sliding_mask`). Hugging Face's (since its pull request 46850) bounds the past only, which is the same
    /// as long as no bidirectional part is longer than the window.
    pub window: Option<usize>,
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

    /// `prefix[row]` tokens of each row are causal, those behind them see all.
    pub fn canvas(prefix: impl Into<Arc<[usize]>>) -> Self {
        Self { kind: MaskKind::Canvas, prefix: Some(prefix.into()), ..Self::default() }
    }

    /// Hides the keys at and beyond `lengths[row]`.
    pub fn with_lengths(self, lengths: impl Into<Arc<[usize]>>) -> Self {
        Self { lengths: Some(lengths.into()), ..self }
    }

    /// Hides the keys at a distance of `window` and more.
    pub fn with_window(self, window: usize) -> Self {
        Self { window: Some(window), ..self }
    }

    /// The keys that `query` of `row` sees in sequences of `length` tokens.
    ///
    /// `row` must be within `lengths` and `prefix` where they are given: see [`Mask::covers`].
    #[inline]
    pub fn span(&self, row: usize, query: usize, length: usize) -> Range<usize> {
        let window = self.window.unwrap_or(usize::MAX);
        let prefix = || self.prefix.as_ref().map_or(0, |prefix| prefix[row]);
        let end = match self.kind {
            MaskKind::Full => length,
            MaskKind::Causal => query + 1,
            MaskKind::Prefix => prefix().max(query + 1),
            MaskKind::Canvas if query < prefix() => query + 1,
            MaskKind::Canvas => length,
        };
        let end = end.min(query.saturating_add(window));
        let end = end.min(self.lengths.as_ref().map_or(length, |lengths| lengths[row])).min(length);
        let start = (query + 1).saturating_sub(window);
        start.min(end)..end
    }

    /// Whether `key` of `row` is visible to `query`.
    #[inline]
    pub fn visible(&self, row: usize, query: usize, key: usize) -> bool {
        self.span(row, query, usize::MAX).contains(&key)
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
        assert_eq!(picture(&Mask::canvas([0, 2]), 1), ["#...", "##..", "####", "####"]);
        assert_eq!(picture(&Mask::canvas([0, 2]), 0), picture(&Mask::full(), 0));
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
        assert_eq!(mask.span(0, 1, 5), 0..5);
        assert_eq!(mask.span(0, 1, 8), 0..7);
    }

    #[test]
    fn a_window_narrows_each_kind() {
        assert_eq!(picture(&Mask::causal().with_window(2), 0), ["#...", "##..", ".##.", "..##"]);
        assert_eq!(picture(&Mask::full().with_window(2), 0), ["##..", "###.", ".###", "..##"]);
        assert_eq!(picture(&Mask::prefix([3]).with_window(2), 0), ["##..", "###.", ".##.", "..##"]);
        assert_eq!(picture(&Mask::causal().with_window(2).with_lengths([2]), 0), ["#...", "##..", ".#..", "...."]);
        assert_eq!(picture(&Mask::causal().with_window(1), 0), ["#...", ".#..", "..#.", "...#"]);
        assert_eq!(picture(&Mask::full().with_window(0), 0), ["...."; 4]);
    }
}
