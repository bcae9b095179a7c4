//! Attention of new tokens over a cache of keys and values, as decoding needs it: causal, forward only.
//!
//! The cache keeps keys and values in the panels that the inner loops read, so that one new token costs no packing and
//! many share what they read. A token's numbers are the same to the last bit however many come with it: each of its
//! sums goes through the keys in their order, in blocks that begin at fixed positions.

use std::ops::Range;

use rayon::prelude::*;

use super::{scale, take, with_scratch};
use crate::chunks::Shared;
use crate::math::{exp, exponentials, max, soft_cap};
use crate::panels::{for_height, padded};
use crate::simd::{LANES, Simd, dispatch, prefetch};

/// Keys of a block.
const KEYS: usize = 64;

/// New tokens of a task.
const TOKENS: usize = 24;

/// Rows of a tile at most, under any instruction set.
const TALLEST: usize = 12;

/// Keys and values of the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct KeyValueCache {
    heads: Vec<HeadCache>,
    capacity: usize,
    head_width: usize,
}

/// Those of one head.
#[derive(Clone, Debug)]
pub struct HeadCache {
    /// `[capacity / LANES, width, LANES]`: their transpose in panels.
    keys: Vec<f32>,
    /// `[width / LANES, capacity, LANES]`.
    values: Vec<f32>,
    capacity: usize,
    width: usize,
}

impl KeyValueCache {
    /// Room for `capacity` tokens.
    pub fn new(capacity: usize, kv_heads: usize, head_width: usize) -> Self {
        let head = HeadCache {
            keys: vec![0.0; padded(capacity) * head_width],
            values: vec![0.0; padded(head_width) * capacity],
            capacity,
            width: head_width,
        };
        Self { heads: vec![head; kv_heads], capacity, head_width }
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the token at `position`: `key` and `value` `[kv_heads * head_width]`.
    pub fn put(&mut self, position: usize, key: &[f32], value: &[f32]) {
        self.put_shifting(position, key, value, 0);
    }

    /// The same, but that the keys of the last `shifted` heads are those of the position behind it, if there is room for
    /// one.
    pub fn put_shifting(&mut self, position: usize, key: &[f32], value: &[f32], shifted: usize) {
        let (heads, width) = (self.heads.len(), self.head_width);
        assert!(key.len() == heads * width && value.len() == key.len(), "{heads} heads of {width}");
        if width > 0 {
            let tokens = key.chunks_exact(width).zip(value.chunks_exact(width));
            let own = heads - shifted;
            for (index, (head, (key, value))) in self.heads.iter_mut().zip(tokens).enumerate() {
                match index < own {
                    true => head.put(position, key, value),
                    false => head.put_shifted(position, key, value),
                }
            }
        }
    }

    /// Its heads, for callers with threads of their own.
    pub fn heads_mut(&mut self) -> &mut [HeadCache] {
        &mut self.heads
    }
}

impl HeadCache {
    /// Sets the token at `position`: `key` and `value` `[head_width]`.
    pub fn put(&mut self, position: usize, key: &[f32], value: &[f32]) {
        self.put_key(position, key);
        self.put_value(position, value);
    }

    /// The same, the key being that of the position behind it, if there is room for one.
    pub fn put_shifted(&mut self, position: usize, key: &[f32], value: &[f32]) {
        if position + 1 < self.capacity {
            self.put_key(position + 1, key);
        }
        self.put_value(position, value);
    }

    fn put_key(&mut self, position: usize, key: &[f32]) {
        let width = self.width;
        assert!(position < self.capacity, "position {position} of {}", self.capacity);
        assert_eq!(key.len(), width, "a head of {width}");
        let panel = position / LANES * width * LANES;
        for (k, key) in key.iter().enumerate() {
            self.keys[panel + k * LANES + position % LANES] = *key;
        }
    }

    fn put_value(&mut self, position: usize, value: &[f32]) {
        assert!(position < self.capacity, "position {position} of {}", self.capacity);
        assert_eq!(value.len(), self.width, "a head of {}", self.width);
        for (panel, value) in value.chunks(LANES).enumerate() {
            let at = (panel * self.capacity + position) * LANES;
            self.values[at..at + value.len()].copy_from_slice(value);
        }
    }

    /// Asks for what the first `tokens` tokens take, so that it is near when it is read.
    pub fn prefetch(&self, tokens: usize) {
        let tokens = tokens.min(self.capacity);
        let keys = &self.keys[..padded(tokens) * self.width];
        keys.iter().step_by(LANES).for_each(|key| prefetch(&raw const *key));
        for panel in self.values.chunks_exact(self.capacity.max(1) * LANES) {
            panel[..tokens * LANES].iter().step_by(LANES).for_each(|value| prefetch(&raw const *value));
        }
    }

    /// Panels, each `[width, LANES]`.
    #[inline(always)]
    fn keys(&self) -> &[[f32; LANES]] {
        self.keys.as_chunks().0
    }

    /// Panels, each `[capacity, LANES]`.
    #[inline(always)]
    fn values(&self) -> &[[f32; LANES]] {
        self.values.as_chunks().0
    }
}

/// What cached attention computes beside the bare minimum: as [`AttentionOptions`](super::AttentionOptions), for
/// queries and keys that have been turned before.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct CachedOptions {
    /// As [`Mask::window`](crate::mask::Mask::window).
    pub window: Option<usize>,
    pub scale: Option<f32>,
    pub soft_cap: Option<f32>,
    /// New tokens from this one on see all new tokens, not only those before them.
    pub canvas: Option<usize>,
}

/// New tokens, which the cache holds already, at the positions from `past` on.
#[derive(Clone, Copy, Debug)]
pub struct NewTokens<'a> {
    /// `[tokens, heads * head_width]`.
    pub queries: &'a [f32],
    /// Query heads, a multiple of those of keys and values: head `h` belongs to `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Tokens before them.
    pub past: usize,
}

/// `out = softmax(scale q kᵀ) v` for new tokens, each of which sees those before it and itself, or all if it is part
/// of a canvas: `out` has the shape of the queries.
pub fn attention_cached(new: NewTokens, cache: &KeyValueCache, options: &CachedOptions, out: &mut [f32]) {
    let call = Call::new(new, cache.heads.len(), cache.capacity, cache.head_width, options);
    assert_eq!(out.len(), new.queries.len(), "an output for each query");
    if out.is_empty() {
        return;
    }
    let blocks = call.tokens.div_ceil(TOKENS);
    let out = Shared::new(out);
    let task = |task: usize| {
        let (kv_head, block) = (task / blocks, task % blocks);
        let tokens = block * TOKENS..call.tokens.min((block + 1) * TOKENS);
        let place = Place { out: &out, first: call.row(tokens.start, kv_head), stride: new.heads * cache.head_width };
        run(&call, &cache.heads[kv_head], kv_head, tokens, place);
    };
    // Below this many multiplications waking other threads costs more than it saves.
    if (new.past + call.tokens) * new.queries.len() < 1 << 16 {
        (0..cache.heads.len() * blocks).for_each(task);
    } else {
        (0..cache.heads.len() * blocks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// The part of [`attention_cached`] that belongs to head `kv_head` of `kv_heads`, on the calling thread: `cache` is that
/// head's, and `out` `[tokens, heads / kv_heads * head_width]` that of the query heads that share it.
pub fn attention_cached_head(
    new: NewTokens,
    cache: &HeadCache,
    options: &CachedOptions,
    kv_head: usize,
    kv_heads: usize,
    out: &mut [f32],
) {
    let call = Call::new(new, kv_heads, cache.capacity, cache.width, options);
    let stride = call.group * cache.width;
    assert!(kv_head < kv_heads, "head {kv_head} of {kv_heads}");
    assert_eq!(out.len(), call.tokens * stride, "the outputs of a head's queries");
    if !out.is_empty() {
        run(&call, cache, kv_head, 0..call.tokens, Place { out: &Shared::new(out), first: 0, stride });
    }
}

/// What all tasks of a call share.
struct Call<'a> {
    new: NewTokens<'a>,
    head_width: usize,
    window: Option<usize>,
    scale: f32,
    soft_cap: Option<f32>,
    canvas: Option<usize>,
    tokens: usize,
    /// Query heads of a head of keys and values.
    group: usize,
}

impl<'a> Call<'a> {
    fn new(new: NewTokens<'a>, kv_heads: usize, capacity: usize, width: usize, options: &CachedOptions) -> Self {
        let heads = new.heads;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "whole groups of heads: {heads} of {kv_heads}");
        let tokens = new.queries.len().checked_div(heads * width).unwrap_or(0);
        assert_eq!(new.queries.len(), tokens * heads * width, "queries of {heads} heads of {width}");
        assert!(new.past + tokens <= capacity, "{tokens} tokens after {} in {capacity}", new.past);
        Self {
            new,
            head_width: width,
            window: options.window,
            scale: scale(options.scale, width),
            soft_cap: options.soft_cap,
            canvas: options.canvas,
            tokens,
            group: heads / kv_heads,
        }
    }

    /// Where the queries of a token that belong to a head of keys begin.
    #[inline(always)]
    fn row(&self, token: usize, kv_head: usize) -> usize {
        (token * self.new.heads + kv_head * self.group) * self.head_width
    }

    /// The positions that a token sees.
    #[inline(always)]
    fn seen(&self, token: usize) -> Range<usize> {
        let next = self.new.past + token + 1;
        let window = self.window.unwrap_or(usize::MAX);
        let is_canvas = self.canvas.is_some_and(|first| token >= first);
        let end = if is_canvas { self.new.past + self.tokens } else { next };
        let end = end.min((next - 1).saturating_add(window));
        next.saturating_sub(window).min(end)..end
    }
}

/// Where a task writes: the heads of its first token, and from one token to the next.
#[derive(Clone, Copy)]
struct Place<'a> {
    out: &'a Shared<'a>,
    first: usize,
    stride: usize,
}

/// All queries of some tokens that share a head of keys.
fn run(call: &Call, cache: &HeadCache, kv_head: usize, tokens: Range<usize>, place: Place) {
    let width = cache.width;
    with_scratch(TALLEST * (width + KEYS + padded(width)), |scratch| {
        head(call, cache, kv_head, tokens, scratch, place)
    });
}

dispatch!(
    head = head_body(
        call: &Call,
        cache: &HeadCache,
        kv_head: usize,
        tokens: Range<usize>,
        scratch: &mut [f32],
        place: Place,
    )
);

#[inline(always)]
fn head_body<S: Simd>(
    call: &Call,
    cache: &HeadCache,
    kv_head: usize,
    tokens: Range<usize>,
    mut scratch: &mut [f32],
    place: Place,
) {
    let (width, group) = (cache.width, call.group);
    let queries = take(&mut scratch, TALLEST * width);
    let scores = take(&mut scratch, TALLEST * KEYS);
    let mixed = take(&mut scratch, TALLEST * padded(width));
    // A row is a token's query of one head: token after token, and of each the heads of the group.
    let rows = tokens.len() * group;
    for first in (0..rows).step_by(S::TILE) {
        let height = S::TILE.min(rows - first);
        for (row, query) in (first..).zip(queries.chunks_exact_mut(width).take(height)) {
            let at = call.row(tokens.start + row / group, kv_head) + row % group * width;
            query.iter_mut().zip(&call.new.queries[at..]).for_each(|(to, q)| *to = q * call.scale);
        }
        let seen: [Range<usize>; TALLEST] =
            std::array::from_fn(
                |row| {
                    if row < height { call.seen(tokens.start + (first + row) / group) } else { 0..0 }
                },
            );
        let sums = tile::<S>(call, cache, &seen[..height], queries, scores, mixed);
        for (row, sum) in (first..first + height).zip(sums) {
            let at = place.first + row / group * place.stride + row % group * width;
            // SAFETY: no two tasks have a token and a head in common.
            let out = unsafe { place.out.slice(at, width) };
            // A query that sees no key gets 0.
            let inverse = if seen[row - first].is_empty() { 0.0 } else { 1.0 / sum };
            let mixed = &mixed[(row - first) * padded(width)..];
            out.iter_mut().zip(mixed).for_each(|(out, mixed)| *out = mixed * inverse);
        }
    }
}

/// The mixed values of some rows, each a part of `mixed` `[rows, padded head width]`, and what they are to be divided by.
#[inline(always)]
fn tile<S: Simd>(
    call: &Call,
    cache: &HeadCache,
    seen: &[Range<usize>],
    queries: &[f32],
    scores: &mut [f32],
    mixed: &mut [f32],
) -> [f32; TALLEST] {
    let stride = padded(cache.width);
    let (mut largest, mut sums) = ([f32::NEG_INFINITY; TALLEST], [0f32; TALLEST]);
    mixed.fill(0.0);
    // Later rows see later keys.
    let (first, last) = (seen[0].start, seen[seen.len() - 1].end);
    for block in (first / KEYS * KEYS..last).step_by(KEYS) {
        let here = |row: usize| seen[row].start.max(block)..seen[row].end.min(block + KEYS);
        products::<S>(cache, block, first.max(block)..last.min(block + KEYS), seen.len(), queries, scores);
        for row in 0..seen.len() {
            let here = here(row);
            if here.is_empty() {
                continue;
            }
            let scores = &mut scores[row * KEYS..][..KEYS];
            let visible = here.start - block..here.end - block;
            if let Some(cap) = call.soft_cap {
                soft_cap::<S>(&mut scores[visible.clone()], cap);
            }
            scores[..visible.start].fill(f32::NEG_INFINITY);
            let end = visible.end.next_multiple_of(LANES);
            scores[visible.end..end].fill(f32::NEG_INFINITY);
            let scores = &mut scores[..end];
            let before = largest[row];
            let now = before.max(max(scores));
            // Scores of minus infinity only weigh nothing so far, and 0 / 0 if there are no others.
            let shift = if now == f32::NEG_INFINITY { 0.0 } else { now };
            let sum = exponentials::<S>(scores, shift);
            if before < now && before > f32::NEG_INFINITY {
                let factor = exp::<S>(before - shift);
                sums[row] *= factor;
                mixed[row * stride..][..stride].iter_mut().for_each(|mixed| *mixed *= factor);
            }
            largest[row] = now;
            sums[row] += sum;
        }
        let all = (0..seen.len()).map(here).reduce(|a, b| a.start.max(b.start)..a.end.min(b.end)).expect("a row");
        for row in 0..seen.len() {
            let here = here(row);
            let alone = if all.is_empty() { here } else { here.start..all.start };
            mix::<S>(cache, block, alone, row..row + 1, scores, mixed);
        }
        mix::<S>(cache, block, all.clone(), 0..seen.len(), scores, mixed);
        for row in (0..seen.len()).filter(|_| !all.is_empty()) {
            mix::<S>(cache, block, all.end..here(row).end, row..row + 1, scores, mixed);
        }
    }
    sums
}

/// Panels that few rows use at a time: enough sums for the multipliers not to wait for each other.
const fn side_by_side(height: usize) -> usize {
    match height {
        1 => 4,
        2 | 3 => 2,
        _ => 1,
    }
}

/// `scores[row, j - block] = queries[row] · keys[j]` for the panels that hold `keys`.
#[inline(always)]
fn products<S: Simd>(
    cache: &HeadCache,
    block: usize,
    keys: Range<usize>,
    height: usize,
    queries: &[f32],
    scores: &mut [f32],
) {
    let width = cache.width;
    let packed = cache.keys();
    let panels = keys.start / LANES..keys.end.div_ceil(LANES);
    for_height!(height, S::TILE, HEIGHT => {
        const PANELS: usize = side_by_side(HEIGHT);
        let rest = panels.start + panels.len() / PANELS * PANELS;
        for panel in (panels.start..rest).step_by(PANELS) {
            score::<S, HEIGHT, PANELS>(packed, width, panel, panel * LANES - block, queries, scores);
        }
        for panel in rest..panels.end {
            score::<S, HEIGHT, 1>(packed, width, panel, panel * LANES - block, queries, scores);
        }
    });
}

#[inline(always)]
fn score<S: Simd, const HEIGHT: usize, const PANELS: usize>(
    packed: &[[f32; LANES]],
    width: usize,
    panel: usize,
    column: usize,
    queries: &[f32],
    scores: &mut [f32],
) {
    let keys: [&[[f32; LANES]]; PANELS] = std::array::from_fn(|i| &packed[(panel + i) * width..][..width]);
    // SAFETY, of all blocks here and below: kernels are instantiated for a set by `dispatch`, where the processor has it.
    let mut sums = [[unsafe { S::splat(0.0) }; HEIGHT]; PANELS];
    add_products::<S, HEIGHT, PANELS>(queries, width, keys, &mut sums);
    for (i, sums) in sums.into_iter().enumerate() {
        for (row, sum) in sums.into_iter().enumerate() {
            let to = scores[row * KEYS + column + i * LANES..].first_chunk_mut().expect("a panel of scores");
            unsafe { S::store(sum, to) };
        }
    }
}

/// `mixed[row] += Σ_j scores[row, j - block] values[j]` over `keys`, in their order.
#[inline(always)]
fn mix<S: Simd>(
    cache: &HeadCache,
    block: usize,
    keys: Range<usize>,
    rows: Range<usize>,
    scores: &[f32],
    mixed: &mut [f32],
) {
    if keys.is_empty() {
        return;
    }
    let stride = padded(cache.width);
    let values = cache.values();
    let weights = &scores[rows.start * KEYS + keys.start - block..];
    let mixed = &mut mixed[rows.start * stride..];
    let panels = stride / LANES;
    for_height!(rows.len(), S::TILE, HEIGHT => {
        const PANELS: usize = side_by_side(HEIGHT);
        let rest = panels / PANELS * PANELS;
        for panel in (0..rest).step_by(PANELS) {
            mix_panels::<S, HEIGHT, PANELS>(values, cache.capacity, keys.clone(), panel, weights, mixed, stride);
        }
        for panel in rest..panels {
            mix_panels::<S, HEIGHT, 1>(values, cache.capacity, keys.clone(), panel, weights, mixed, stride);
        }
    });
}

#[inline(always)]
fn mix_panels<S: Simd, const HEIGHT: usize, const PANELS: usize>(
    values: &[[f32; LANES]],
    capacity: usize,
    keys: Range<usize>,
    panel: usize,
    weights: &[f32],
    mixed: &mut [f32],
    stride: usize,
) {
    let values: [&[[f32; LANES]]; PANELS] = std::array::from_fn(|i| &values[(panel + i) * capacity..][keys.clone()]);
    let at = |row: usize, i: usize| row * stride + (panel + i) * LANES;
    let mut sums: [[S::Lanes; HEIGHT]; PANELS] = std::array::from_fn(|i| {
        std::array::from_fn(|row| unsafe { S::load(mixed[at(row, i)..].first_chunk().expect("a panel")) })
    });
    add_products::<S, HEIGHT, PANELS>(weights, KEYS, values, &mut sums);
    for (i, sums) in sums.into_iter().enumerate() {
        for (row, sum) in sums.into_iter().enumerate() {
            unsafe { S::store(sum, mixed[at(row, i)..].first_chunk_mut().expect("a panel")) };
        }
    }
}

/// `sums[i][row] += Σ_k a[row * stride + k] b[i][k]`, each in the order of `k`.
#[inline(always)]
fn add_products<S: Simd, const HEIGHT: usize, const PANELS: usize>(
    a: &[f32],
    stride: usize,
    b: [&[[f32; LANES]]; PANELS],
    sums: &mut [[S::Lanes; HEIGHT]; PANELS],
) {
    let depth = b[0].len();
    assert!(b.iter().all(|b| b.len() == depth), "panels of one depth");
    assert!(depth == 0 || a.len() >= (HEIGHT - 1) * stride + depth, "the rows of the left factor");
    for k in 0..depth {
        for (b, sums) in b.iter().zip(&mut *sums) {
            let b = unsafe { S::load(&b[k]) };
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: row < HEIGHT and k < depth, for which the assertion has the place.
                let a = unsafe { *a.get_unchecked(row * stride + k) };
                *sum = unsafe { S::mul_add(S::splat(a), b, *sum) };
            }
        }
    }
}
