//! A block of queries, what they see, and the products over it that leave out what is hidden.

use std::ops::Range;

use super::{BLOCK, STRIDE};
use crate::mask::Mask;
use crate::panels::{Left, Right, product};
use crate::simd::{LANES, Simd};

/// Neighbouring queries of a row and the keys that each sees.
pub(super) struct Block {
    pub queries: Range<usize>,
    spans: [(usize, usize); BLOCK],
}

impl Block {
    /// Block `index` of a row.
    pub(super) fn new(mask: &Mask, row: usize, index: usize, length: usize) -> Self {
        let queries = index * BLOCK..length.min((index + 1) * BLOCK);
        let mut spans = [(0, 0); BLOCK];
        for (span, query) in spans.iter_mut().zip(queries.clone()) {
            let Range { start, end } = mask.span(row, query, length);
            *span = (start, end);
        }
        Self { queries, spans }
    }

    fn spans(&self) -> &[(usize, usize)] {
        &self.spans[..self.queries.len()]
    }

    /// Whether `query`, counted within the block, sees any key.
    pub(super) fn sees(&self, query: usize) -> bool {
        self.spans[query].0 < self.spans[query].1
    }

    /// From the first key that any query sees to the last.
    pub(super) fn keys(&self) -> Range<usize> {
        // Spans never move back from one query to the next.
        let spans = self.spans();
        spans[0].0..spans[spans.len() - 1].1
    }

    /// Moves on `queries`, counted within the block, to those from the first to the last that see any of `keys`, which
    /// must not lie before the keys that it was moved to last.
    #[inline(always)]
    fn advance(&self, queries: &mut Range<usize>, keys: Range<usize>) {
        let spans = self.spans();
        while queries.start < spans.len() && spans[queries.start].1 <= keys.start {
            queries.start += 1;
        }
        while queries.end < spans.len() && spans[queries.end].0 < keys.end {
            queries.end += 1;
        }
    }

    /// From the first to the last of a chunk of `keys`, counted within it, that some of the block's `queries` see.
    #[inline(always)]
    fn seen(&self, queries: Range<usize>, keys: &Range<usize>) -> Range<usize> {
        let (start, end) = (self.spans[queries.start].0, self.spans[queries.end - 1].1);
        let start = start.clamp(keys.start, keys.end) - keys.start;
        let end = end.clamp(keys.start, keys.end) - keys.start;
        start.min(end)..end
    }

    /// `scores = scale a bᵀ` in the tiles in which a query sees any of the chunk's `keys`: the rows of `a` are the
    /// block's queries, those of `b`, which is packed transposed and `depth` deep, the keys.
    #[inline(always)]
    pub(super) fn scores<S: Simd>(
        &self,
        a: Left,
        b: &[f32],
        depth: usize,
        keys: &Range<usize>,
        scale: f32,
        scores: &mut [f32],
    ) {
        let mut queries = 0..0;
        for (panel, first) in b.chunks_exact(depth * LANES).zip(keys.clone().step_by(LANES)) {
            self.advance(&mut queries, first..first + LANES);
            if !queries.is_empty() {
                let a = Left { data: &a.data[queries.start * a.row..], ..a };
                let panel = Right { panels: panel, depth };
                let scores = &mut scores[queries.start * STRIDE + first - keys.start..];
                product::<S>(a, panel, (queries.len(), depth, LANES), scale, scores, STRIDE, false);
            }
        }
    }

    /// `out += weights b` over the keys of a chunk that the queries see: `weights` as [`scores`](Self::scores), with 0
    /// for what is hidden; the rows of `b`, which is packed, are the keys `packed`; `out` has rows of `width`.
    #[inline(always)]
    pub(super) fn mix<S: Simd>(
        &self,
        weights: &[f32],
        b: &[f32],
        packed: &Range<usize>,
        keys: &Range<usize>,
        out: &mut [f32],
        width: usize,
    ) {
        for (panel, column) in b.chunks_exact(packed.len() * LANES).zip((0..width).step_by(LANES)) {
            let panel = &panel[(keys.start - packed.start) * LANES..];
            for queries in parts(self.queries.len(), S::TILE) {
                let seen = self.seen(queries.clone(), keys);
                let a = Left { data: &weights[queries.start * STRIDE + seen.start..], row: STRIDE, depth: 1 };
                let panel = Right { panels: &panel[seen.start * LANES..seen.end * LANES], depth: seen.len() };
                let out = &mut out[queries.start * width + column..];
                product::<S>(a, panel, (queries.len(), seen.len(), LANES), 1.0, out, width, true);
            }
        }
    }

    /// `out += weightsᵀ b`, over the queries that see the keys: `b`, packed, has the block's queries as rows, `out` the
    /// chunk's keys, `width` wide.
    #[inline(always)]
    pub(super) fn mix_transposed<S: Simd>(
        &self,
        weights: &[f32],
        b: &[f32],
        keys: &Range<usize>,
        out: &mut [f32],
        width: usize,
    ) {
        let mut queries = 0..0;
        for tile in parts(keys.len(), S::TILE) {
            self.advance(&mut queries, keys.start + tile.start..keys.start + tile.end);
            if queries.is_empty() {
                continue;
            }
            let a = Left { data: &weights[queries.start * STRIDE + tile.start..], row: 1, depth: STRIDE };
            for (panel, column) in b.chunks_exact(self.queries.len() * LANES).zip((0..width).step_by(LANES)) {
                let panel = Right { panels: &panel[queries.start * LANES..queries.end * LANES], depth: queries.len() };
                let out = &mut out[tile.start * width + column..];
                product::<S>(a, panel, (tile.len(), queries.len(), LANES), 1.0, out, width, true);
            }
        }
    }

    /// The part of `query`'s scores for a chunk of `keys` that is in use: from the first key that it sees to the last.
    #[inline(always)]
    pub(super) fn columns(&self, query: usize, keys: &Range<usize>) -> Columns {
        let seen = self.seen(query..query + 1, keys);
        let panels = seen.start / LANES * LANES..seen.end.next_multiple_of(LANES);
        if seen.is_empty() { Columns { seen: 0..0, panels: 0..0 } } else { Columns { seen, panels } }
    }
}

/// Columns of a query's scores: those of keys that it sees, and the panels that these are in.
pub(super) struct Columns {
    seen: Range<usize>,
    pub panels: Range<usize>,
}

impl Columns {
    /// Makes hidden columns of a query's `scores` 0, and within the panels `hidden`.
    #[inline(always)]
    pub(super) fn hide(&self, hidden: f32, scores: &mut [f32]) {
        scores[..self.panels.start].fill(0.0);
        scores[self.panels.start..self.seen.start].fill(hidden);
        scores[self.seen.end..self.panels.end].fill(hidden);
        scores[self.panels.end..].fill(0.0);
    }
}

/// `0..n` in as few ranges of at most `most` as it takes, of nearly equal length.
#[inline(always)]
fn parts(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    (0..count).map(move |i| i * n / count..(i + 1) * n / count)
}
