//! One pass through the model: many tokens at once, of one sequence or of several.
//!
//! The tokens of all sequences go through the matrices together, so that these are read once, and each sequence mixes its
//! own in its own cache. A product gives a row the same bits whatever other rows there are, and so does attention: what a
//! sequence comes to does not depend on what else is in the pass.

use std::borrow::BorrowMut;

use lapidary_kernels::attention::{CachedOptions, KeyValueCache, NewTokens, attention_cached};
use rayon::prelude::*;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::{Heads, PackedDecoder};

/// Whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Of every new token.
    All,
    /// Of the last one alone, which is what writing on needs.
    Last,
}

/// Neighbouring new tokens of a sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub tokens: usize,
    /// The position of the first; it sees what the cache holds before it.
    pub past: usize,
    /// They all see each other.
    pub canvas: bool,
}

impl PackedDecoder {
    /// Reads `ids` after those in the cache, on all threads, and adds them to it: logits `[N, V]`, or `[1, V]` of the last.
    ///
    /// # Errors
    /// A token outside the vocabulary, or more of them than there is room for; the cache is as it was then.
    pub fn read(&self, ids: &[u32], cache: &mut KvCache, wanted: Positions) -> Result<Vec<f32>, DecodeError> {
        self.read_all(&[ids], std::slice::from_mut(cache), wanted)
    }

    /// The same for several sequences at once, one a cache: their logits one behind the other, each the same bits as
    /// alone.
    ///
    /// # Errors
    /// As [`PackedDecoder::read`], and another number of caches; all of them are as they were then.
    pub fn read_all(
        &self,
        rows: &[&[u32]],
        caches: &mut [impl BorrowMut<KvCache>],
        wanted: Positions,
    ) -> Result<Vec<f32>, DecodeError> {
        let x = self.pass(rows, None, caches, false)?;
        rows.iter().zip(caches).for_each(|(ids, cache)| cache.borrow_mut().len += ids.len());
        if wanted == Positions::All {
            return Ok(self.logits(&x));
        }
        let mut last = Vec::with_capacity(rows.len() * self.width);
        let mut end = 0;
        for ids in rows.iter().filter(|ids| !ids.is_empty()) {
            end += ids.len();
            last.extend(&x[(end - 1) * self.width..end * self.width]);
        }
        Ok(self.logits(&last))
    }

    /// Reads a canvas behind the tokens in the cache, each place of which sees these and the whole canvas: logits `[N, V]`
    /// of what each place is to become. The cache holds the same tokens afterwards.
    ///
    /// # Errors
    /// As [`PackedDecoder::read`]; an empty cache, of a model whose canvases are shifted.
    pub fn repair(&self, canvas: &[u32], cache: &mut KvCache) -> Result<Vec<f32>, DecodeError> {
        self.repair_all(&[canvas], std::slice::from_mut(cache))
    }

    /// The same for several canvases at once, one a cache.
    ///
    /// # Errors
    /// As [`PackedDecoder::read_all`].
    pub fn repair_all(
        &self,
        canvases: &[&[u32]],
        caches: &mut [impl BorrowMut<KvCache>],
    ) -> Result<Vec<f32>, DecodeError> {
        Ok(self.logits(&self.repairing(canvases, None, caches)?))
    }

    /// The same for canvases of which a pass before said `expected [N, D]`, see [`PackedDecoder::expected`].
    ///
    /// # Errors
    /// As [`PackedDecoder::read_all`], and another number of places than those that were expected.
    pub fn repair_again(
        &self,
        canvases: &[&[u32]],
        expected: &[f32],
        caches: &mut [impl BorrowMut<KvCache>],
    ) -> Result<Vec<f32>, DecodeError> {
        let places = canvases.iter().map(|canvas| canvas.len()).sum();
        if expected.len() != places * self.width {
            return Err(DecodeError::Expected { places, expected: expected.len() / self.width.max(1) });
        }
        Ok(self.logits(&self.repairing(canvases, Some(expected), caches)?))
    }

    /// What the last block makes of what says each place of the canvases, `[N, D]`: of the places themselves or, where these
    /// are [shifted](lapidary_models::decoder::DecoderConfig::shifted_canvas), of the places before them.
    fn repairing(
        &self,
        canvases: &[&[u32]],
        expected: Option<&[f32]>,
        caches: &mut [impl BorrowMut<KvCache>],
    ) -> Result<Vec<f32>, DecodeError> {
        if !self.shifted_canvas {
            return self.pass(canvases, expected, caches, true);
        }
        let caches: Vec<&mut KvCache> = caches.iter_mut().map(BorrowMut::borrow_mut).collect();
        if canvases.len() != caches.len() {
            return Err(DecodeError::Caches { sequences: canvases.len(), caches: caches.len() });
        }
        let width = self.width;
        let (mut ids, mut said, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = expected.unwrap_or_default();
        for (canvas, cache) in canvases.iter().zip(&caches) {
            self.check(canvas, cache)?;
            let last = cache.last().ok_or(DecodeError::EmptyPrompt)?;
            // The token before the canvas is part of it, and sees it; what the cache keeps of it is what it is without.
            ids.extend([last, last]);
            ids.extend(*canvas);
            if expected.is_some() {
                let (of_canvas, behind) = rest.split_at(canvas.len() * width);
                said.resize(said.len() + 2 * width, 0.0);
                said.extend(of_canvas);
                rest = behind;
            }
            let past = cache.len - 1;
            parts
                .push([Part { tokens: 1, past, canvas: false }, Part { tokens: canvas.len() + 1, past, canvas: true }]);
        }
        let mut sequences: Vec<_> = parts.iter().zip(caches).map(|(parts, cache)| (parts.as_slice(), cache)).collect();
        let x = self.hidden(&ids, expected.map(|_| said.as_slice()), &mut sequences);
        let mut saying = Vec::with_capacity(x.len());
        let mut rest = x.as_slice();
        for canvas in canvases {
            let (of_canvas, behind) = rest.split_at((canvas.len() + 2) * width);
            saying.extend(&of_canvas[width..(canvas.len() + 1) * width]);
            rest = behind;
        }
        Ok(saying)
    }

    /// What the last block makes of a row of new tokens for each cache, `[N, D]`.
    fn pass(
        &self,
        rows: &[&[u32]],
        expected: Option<&[f32]>,
        caches: &mut [impl BorrowMut<KvCache>],
        canvas: bool,
    ) -> Result<Vec<f32>, DecodeError> {
        let caches: Vec<&mut KvCache> = caches.iter_mut().map(BorrowMut::borrow_mut).collect();
        if rows.len() != caches.len() {
            return Err(DecodeError::Caches { sequences: rows.len(), caches: caches.len() });
        }
        for (ids, cache) in rows.iter().zip(&caches) {
            self.check(ids, cache)?;
        }
        let parts: Vec<[Part; 1]> = rows
            .iter()
            .zip(&caches)
            .map(|(ids, cache)| [Part { tokens: ids.len(), past: cache.len, canvas }])
            .collect();
        let mut sequences: Vec<_> = parts.iter().zip(caches).map(|(parts, cache)| (parts.as_slice(), cache)).collect();
        Ok(self.hidden(&rows.concat(), expected, &mut sequences))
    }

    /// What the last block makes of new tokens, `[N, D]`: those of all parts of all sequences, one behind the other. The
    /// keys and values of each part lie at its positions in its sequence's cache afterwards; where parts of a sequence
    /// share positions, each sees its own, and those of the first stay.
    pub(crate) fn hidden(
        &self,
        ids: &[u32],
        expected: Option<&[f32]>,
        sequences: &mut [(&[Part], &mut KvCache)],
    ) -> Vec<f32> {
        let positions: Vec<u32> = sequences
            .iter()
            .flat_map(|(parts, _)| parts.iter())
            .flat_map(|part| part.past as u32..(part.past + part.tokens) as u32)
            .collect();
        let mut x = self.embed(ids, &positions);
        if let (Some(estimate), Some(expected)) = (&self.estimate, expected) {
            x = estimate.forward(expected, Some(&x));
        }
        let mut rest = ids;
        for (parts, cache) in &mut *sequences {
            let (of_sequence, behind) = rest.split_at(parts.iter().map(|part| part.tokens).sum());
            if let Some(first) = parts.first().filter(|part| !part.canvas) {
                cache.note(first.past, &of_sequence[..first.tokens]);
            }
            rest = behind;
        }
        let turns = self.turns(&positions);
        let mut normed = vec![0.0; x.len()];
        let (row, out_row) = (self.heads.of_row(), self.heads.of_queries());
        let mut mixed = vec![0.0; ids.len() * out_row];
        for (index, block) in self.blocks.iter().enumerate() {
            block.attention_norm.apply(&x, &mut normed);
            let mut rows = block.inputs.forward(&normed, None); // [N, (H + 2 G) K]
            block.place(&mut rows, self.heads, &turns);
            let (mut rows, mut rest) = (rows.as_slice(), mixed.as_mut_slice());
            let mut tasks = Vec::with_capacity(sequences.len());
            for (parts, cache) in &mut *sequences {
                let tokens: usize = parts.iter().map(|part| part.tokens).sum();
                let (of_sequence, behind) = rows.split_at(tokens * row);
                let (out, out_behind) = std::mem::take(&mut rest).split_at_mut(tokens * out_row);
                (rows, rest) = (behind, out_behind);
                tasks.push((*parts, &mut cache.blocks[index], of_sequence, out));
            }
            let mix = |(parts, cache, rows, out): (&[Part], &mut KeyValueCache, &[f32], &mut [f32])| {
                mix(self.heads, &block.options, parts, cache, rows, out)
            };
            match tasks.len() {
                1 => tasks.into_iter().for_each(mix),
                _ => tasks.into_par_iter().with_max_len(1).for_each(mix),
            }
            x = block.output.added(block.attention_out_norm.as_ref(), &mixed, x);
            block.feed_forward_norm.apply(&x, &mut normed);
            let inner = block.up.forward(&normed, None); // [N, F], or [N, 2 F] with a gate
            let mut activated = vec![0.0; ids.len() * block.inner()];
            block.activate(&inner, &mut activated);
            x = block.down.added(block.feed_forward_out_norm.as_ref(), &activated, x);
        }
        x
    }

    /// Rows of what the last block gives to logits `[N, V]`.
    pub(crate) fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; x.len()];
        self.norm.apply(x, &mut normed);
        self.output.forward(&normed, None)
    }
}

/// Attention of one sequence: rows of queries, keys and values `[N, (H + 2 G) K]` → `out [N, H K]`.
fn mix(
    heads: Heads,
    options: &CachedOptions,
    parts: &[Part],
    cache: &mut KeyValueCache,
    rows: &[f32],
    out: &mut [f32],
) {
    let (row, queries) = (heads.of_row(), heads.of_queries());
    let (mut rest, mut out) = (rows, out);
    for part in parts {
        let (rows, behind) = rest.split_at(part.tokens * row);
        let (mixed, out_behind) = std::mem::take(&mut out).split_at_mut(part.tokens * queries);
        (rest, out) = (behind, out_behind);
        remember(cache, rows, part.past, heads);
        let queries: Vec<f32> = rows.chunks_exact(row).flat_map(|row| &row[..queries]).copied().collect();
        let new = NewTokens { queries: &queries, heads: heads.queries, past: part.past };
        let options = CachedOptions { canvas: part.canvas.then_some(0), ..*options };
        attention_cached(new, cache, &options, mixed);
    }
    if let [first, _, ..] = parts {
        remember(cache, &rows[..first.tokens * row], first.past, heads);
    }
}

/// Takes the keys and values of new tokens out of rows of queries, keys and values.
fn remember(cache: &mut KeyValueCache, rows: &[f32], past: usize, heads: Heads) {
    for (position, row) in (past..).zip(rows.chunks_exact(heads.of_row())) {
        let (keys, values) = row[heads.of_queries()..].split_at(heads.of_keys());
        cache.put_shifting(position, keys, values, heads.shifted);
    }
}
