//! Attention of new tokens over a cache of keys and values, as decoding needs it: causal, forward only.
//!
//! A token's numbers are the same to the last bit however many tokens come with it: a query goes by itself through
//! blocks of keys that begin at fixed positions, and each of its sums has a fixed order. Neither keys nor values are
//! packed, which for one query would cost as much as using them.

use std::ops::Range;

use rayon::prelude::*;

use super::{scale, with_scratch};
use crate::chunks::Shared;
use crate::math::{exp, exponentials, fold, max, soft_cap};
use crate::simd::{LANES, Simd, dispatch};

/// Keys of a block.
const KEYS: usize = 64;

/// New tokens of a task: they share what a block of keys costs to bring into the cache.
const TOKENS: usize = 16;

/// The shape of the new tokens' queries and output, `[tokens, heads * head_width]`, and of the caches of keys and
/// values, each `[kv_heads, capacity, head_width]`, the new tokens' own included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachedShape {
    /// New tokens, at the positions from `past` on.
    pub tokens: usize,
    /// Tokens before them.
    pub past: usize,
    /// Tokens that the cache has room for: `past + tokens` or more.
    pub capacity: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
}

/// What cached attention computes beside the bare minimum: as [`AttentionOptions`](super::AttentionOptions), for
/// queries and keys that have been turned before.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct CachedOptions {
    /// As [`Mask::window`](crate::mask::Mask::window).
    pub window: Option<usize>,
    pub scale: Option<f32>,
    pub soft_cap: Option<f32>,
}

/// `out = softmax(scale q kᵀ) v` for new tokens, each of which sees those before it and itself.
pub fn attention_cached(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: CachedShape,
    options: &CachedOptions,
    out: &mut [f32],
) {
    let CachedShape { tokens, past, capacity, heads, kv_heads, head_width } = shape;
    let cache = kv_heads * capacity * head_width;
    assert!(q.len() == tokens * heads * head_width && out.len() == q.len(), "queries of the shape {shape:?}");
    assert!(keys.len() == cache && values.len() == cache, "caches of the shape {shape:?}");
    if out.is_empty() {
        return;
    }
    let (group, blocks) = (heads / kv_heads, tokens.div_ceil(TOKENS));
    let out = Shared::new(out);
    let task = |task: usize| {
        let (kv_head, block) = (task / blocks, task % blocks);
        let tokens = block * TOKENS..tokens.min((block + 1) * TOKENS);
        let cache = kv_head * capacity * head_width..(kv_head + 1) * capacity * head_width;
        let width = group * head_width;
        with_scratch(tokens.len() * width, |part| {
            let (keys, values) = (&keys[cache.clone()], &values[cache]);
            attention_cached_head(q, keys, values, shape, options, kv_head, tokens.clone(), part);
            for (token, part) in tokens.zip(part.chunks_exact(width)) {
                // SAFETY: no two tasks have a token and a head in common.
                let out = unsafe { out.slice(token * heads * head_width + kv_head * width, width) };
                out.copy_from_slice(part);
            }
        });
    };
    // Below this many multiplications waking other threads costs more than it saves.
    if tokens * (past + tokens) * heads * head_width < 1 << 16 {
        (0..kv_heads * blocks).for_each(task);
    } else {
        (0..kv_heads * blocks).into_par_iter().for_each(task);
    }
}

/// The part of [`attention_cached`] that belongs to one head of keys and values and some of the new `tokens`, counted
/// from 0, on the calling thread.
///
/// `q` is whole; `keys` and `values` are those of the head, `[capacity, head_width]`; `out`
/// `[tokens, heads / kv_heads * head_width]` are the outputs of the query heads that share them.
pub fn attention_cached_head(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: CachedShape,
    options: &CachedOptions,
    kv_head: usize,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    let CachedShape { tokens: count, past, capacity, heads, kv_heads, head_width } = shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && kv_head < kv_heads, "whole groups of heads: {shape:?}");
    assert!(past + count <= capacity && tokens.end <= count, "tokens within the cache: {shape:?}");
    assert_eq!(q.len(), count * heads * head_width, "queries of the shape {shape:?}");
    assert!(keys.len() == capacity * head_width && values.len() == keys.len(), "a head's cache of the shape {shape:?}");
    assert_eq!(out.len(), tokens.len() * heads / kv_heads * head_width, "the outputs of some tokens and heads");
    if !out.is_empty() {
        head(q, keys, values, shape, options, kv_head, tokens, out);
    }
}

dispatch!(
    head = head_body(
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        shape: CachedShape,
        options: &CachedOptions,
        kv_head: usize,
        tokens: Range<usize>,
        out: &mut [f32],
    )
);

#[inline(always)]
fn head_body<S: Simd>(
    q: &[f32],
    keys: &[f32],
    values: &[f32],
    shape: CachedShape,
    options: &CachedOptions,
    kv_head: usize,
    tokens: Range<usize>,
    out: &mut [f32],
) {
    let CachedShape { past, heads, kv_heads, head_width, .. } = shape;
    let group = heads / kv_heads;
    let scale = scale(options.scale, head_width);
    // The positions that a token sees, which move on from one token to the next.
    let seen = |token: usize| {
        let end = past + token + 1;
        end.saturating_sub(options.window.unwrap_or(usize::MAX))..end
    };
    let mut states = vec![(f32::NEG_INFINITY, 0f32); tokens.len() * group];
    out.fill(0.0);
    let (first, last) = (seen(tokens.start).start, seen(tokens.end - 1).end);
    for block in (first / KEYS * KEYS..last).step_by(KEYS) {
        let rows = states.chunks_exact_mut(group).zip(out.chunks_exact_mut(group * head_width)).zip(tokens.clone());
        for ((states, out), token) in rows {
            let seen = seen(token);
            let here = seen.start.max(block)..seen.end.min(block + KEYS);
            if here.is_empty() {
                continue;
            }
            let (keys, values) = (&keys[here.start * head_width..], &values[here.start * head_width..]);
            let heads_of_token = &q[(token * heads + kv_head * group) * head_width..];
            let heads = heads_of_token.chunks_exact(head_width).zip(out.chunks_exact_mut(head_width));
            for ((q, out), (largest, sum)) in heads.zip(states) {
                let mut scores = [f32::NEG_INFINITY; KEYS];
                let visible = here.start - block..here.end - block;
                products::<S>(q, keys, scale, &mut scores[visible.clone()]);
                if let Some(cap) = options.soft_cap {
                    soft_cap::<S>(&mut scores[visible.clone()], cap);
                }
                let before = *largest;
                *largest = before.max(max(&scores));
                // Scores of minus infinity only weigh nothing so far, and 0 / 0 if there are no others.
                let shift = if *largest == f32::NEG_INFINITY { 0.0 } else { *largest };
                let block_sum = exponentials::<S>(&mut scores, shift);
                if before < *largest && before > f32::NEG_INFINITY {
                    let factor = exp::<S>(before - shift);
                    *sum *= factor;
                    out.iter_mut().for_each(|out| *out *= factor);
                }
                *sum += block_sum;
                mix::<S>(&scores[visible], values, out);
            }
        }
    }
    if options.window == Some(0) {
        return;
    }
    for ((_, sum), out) in states.iter().zip(out.chunks_exact_mut(head_width)) {
        let inverse = 1.0 / sum;
        out.iter_mut().for_each(|out| *out *= inverse);
    }
}

/// `scores[j] = scale q · keys[j]`.
#[inline(always)]
fn products<S: Simd>(q: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    /// Keys at a time, enough for the multipliers not to wait for each other. A product is the same in any number.
    const KEYS: usize = 4;
    let width = q.len();
    let (fours, rest) = scores.as_chunks_mut::<KEYS>();
    let (keys, last_keys) = keys[..(KEYS * fours.len() + rest.len()) * width].split_at(KEYS * fours.len() * width);
    for (scores, keys) in fours.iter_mut().zip(keys.chunks_exact(KEYS * width)) {
        *scores = dots::<S, KEYS>(q, keys).map(|dot| scale * dot);
    }
    for (score, key) in rest.iter_mut().zip(last_keys.chunks_exact(width)) {
        *score = scale * dots::<S, 1>(q, key)[0];
    }
}

/// The products of `q` with `N` rows.
#[inline(always)]
fn dots<S: Simd, const N: usize>(q: &[f32], rows: &[f32]) -> [f32; N] {
    let width = q.len();
    let rows: [&[f32]; N] = std::array::from_fn(|n| &rows[n * width..][..width]);
    // SAFETY, of all blocks: kernels are instantiated for a set by `dispatch`, where the processor has it.
    let mut sums = [unsafe { S::splat(0.0) }; N];
    let (chunks, rest) = q.as_chunks::<LANES>();
    for (i, q) in chunks.iter().enumerate() {
        let q = unsafe { S::load(q) };
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = unsafe { S::mul_add(q, S::load(&row.as_chunks::<LANES>().0[i]), *sum) };
        }
    }
    if !rest.is_empty() {
        let q = unsafe { S::load(&edge(rest)) };
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = unsafe { S::mul_add(q, S::load(&edge(&row[width - rest.len()..])), *sum) };
        }
    }
    sums.map(|sum| {
        let mut lanes = [0.0; LANES];
        unsafe { S::store(sum, &mut lanes) };
        fold(lanes, |a, b| a + b)
    })
}

/// `out += Σ_j weights[j] values[j]`, in the order of `j`.
#[inline(always)]
fn mix<S: Simd>(weights: &[f32], values: &[f32], out: &mut [f32]) {
    /// Panels at a time, for the same reason as above.
    const PANELS: usize = 4;
    let width = out.len();
    let mut column = 0;
    while column + PANELS * LANES <= width {
        mix_panels::<S, PANELS>(weights, &values[column..], width, &mut out[column..]);
        column += PANELS * LANES;
    }
    while column + LANES <= width {
        mix_panels::<S, 1>(weights, &values[column..], width, &mut out[column..]);
        column += LANES;
    }
    if column < width {
        let mut last = edge(&out[column..]);
        for (j, weight) in weights.iter().enumerate() {
            let values = edge(&values[j * width + column..(j + 1) * width]);
            // SAFETY: kernels are instantiated for a set by `dispatch`, where the processor has it.
            unsafe { S::store(S::mul_add(S::splat(*weight), S::load(&values), S::load(&last)), &mut last) };
        }
        out[column..].copy_from_slice(&last[..width - column]);
    }
}

/// [`mix`] of `PANELS * LANES` columns of rows of `stride`.
#[inline(always)]
fn mix_panels<S: Simd, const PANELS: usize>(weights: &[f32], values: &[f32], stride: usize, out: &mut [f32]) {
    let out = out.as_chunks_mut::<LANES>().0;
    // SAFETY, of all blocks: kernels are instantiated for a set by `dispatch`, where the processor has it.
    let mut sums: [S::Lanes; PANELS] = std::array::from_fn(|panel| unsafe { S::load(&out[panel]) });
    for (j, weight) in weights.iter().enumerate() {
        let row = values[j * stride..].as_chunks::<LANES>().0;
        let weight = unsafe { S::splat(*weight) };
        for (panel, sum) in sums.iter_mut().enumerate() {
            *sum = unsafe { S::mul_add(weight, S::load(&row[panel]), *sum) };
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        unsafe { S::store(sum, out) };
    }
}

/// Fewer than [`LANES`] numbers, filled up with zeros.
#[inline(always)]
fn edge(x: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..x.len()].copy_from_slice(x);
    lanes
}
