//! Scaled dot-product attention (Vaswani et al., 2017, eq. 1) over the heads of a batch, and its backward pass.
//!
//! Blocks of queries meet chunks of keys, and the softmax is taken chunk by chunk with a running maximum and sum
//! (Milakov and Gimelshein, 1805.02867; FlashAttention, 2205.14135): at any length, no more than `BLOCK * KEYS` scores
//! exist at a time, and they stay in the second-level cache. What the mask hides is left out in tiles: a causal mask
//! costs little more than half of a full one, and a window no more than itself. The backward pass computes the
//! probabilities anew from the logarithms of the sums, the only thing kept of the forward pass beside its output.
//!
//! Several query heads may share keys and values (grouped queries, 2305.13245): then they share the packed ones too.

mod backward;
mod block;
mod cached;
mod forward;

pub use backward::attention_backward;
pub use cached::{CachedOptions, HeadCache, KeyValueCache, NewTokens, attention_cached, attention_cached_head};
pub use forward::attention;

use std::cell::Cell;
use std::ops::Range;

use crate::mask::Mask;
use crate::rotary::{Angles, Rotary, turn};
use crate::simd::{LANES, Simd};

/// Queries of a block.
const BLOCK: usize = 96;

/// Keys of a chunk.
const KEYS: usize = 256;

/// Elements from a query's scores to the next's: no power of two, or their columns would fall into few cache sets.
const STRIDE: usize = KEYS + LANES;

/// The shape of queries and output, `[rows * length, heads * head_width]`, and of keys and values,
/// `[rows * length, kv_heads * head_width]`. Head `h` of the queries belongs to `h / (heads / kv_heads)` of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub rows: usize,
    pub length: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
}

impl AttentionShape {
    /// As many heads of keys and values as of queries.
    pub fn new(rows: usize, length: usize, heads: usize, head_width: usize) -> Self {
        Self { rows, length, heads, kv_heads: heads, head_width }
    }

    /// Elements of queries or output.
    pub fn query_len(&self) -> usize {
        self.rows * self.length * self.heads * self.head_width
    }

    /// Elements of keys or values.
    pub fn key_len(&self) -> usize {
        self.rows * self.length * self.kv_heads * self.head_width
    }

    /// Query heads of a head of keys and values.
    fn group(&self) -> usize {
        self.heads.checked_div(self.kv_heads).unwrap_or(0)
    }

    /// Where `head` of `heads` of a token begins.
    #[inline(always)]
    fn at(&self, heads: usize, row: usize, token: usize, head: usize) -> usize {
        ((row * self.length + token) * heads + head) * self.head_width
    }
}

/// What attention computes beside the bare minimum.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct AttentionOptions {
    pub mask: Mask,
    /// Queries and keys are turned by their positions first.
    pub rotary: Option<Rotary>,
    /// What the products of queries and keys are multiplied by. `None`: `1 / sqrt(head_width)`.
    pub scale: Option<f32>,
    /// Scaled scores `s` become `cap * tanh(s / cap)` before the mask (Gemma 2, 2408.00118).
    pub soft_cap: Option<f32>,
}

impl From<Mask> for AttentionOptions {
    fn from(mask: Mask) -> Self {
        Self { mask, ..Self::default() }
    }
}

/// What all tasks of a call share.
struct Call<'a> {
    shape: AttentionShape,
    mask: &'a Mask,
    angles: Option<Angles>,
    scale: f32,
    soft_cap: Option<f32>,
}

impl<'a> Call<'a> {
    fn new(shape: AttentionShape, options: &'a AttentionOptions, queries: &[&[f32]], keys: &[&[f32]]) -> Self {
        let AttentionShape { rows, length, heads, kv_heads, head_width } = shape;
        assert!(queries.iter().all(|array| array.len() == shape.query_len()), "queries of the shape {shape:?}");
        assert!(keys.iter().all(|array| array.len() == shape.key_len()), "keys and values of the shape {shape:?}");
        assert!(heads == 0 || kv_heads > 0 && heads.is_multiple_of(kv_heads), "whole groups of query heads: {shape:?}");
        assert!(options.mask.covers(rows), "a mask of {rows} rows");
        if let Some(rotary) = &options.rotary {
            assert_eq!(2 * rotary.frequencies.len(), head_width, "a frequency for each two elements of a head");
            assert!(rotary.offsets.as_ref().is_none_or(|offsets| offsets.len() == rows), "an offset for each row");
        }
        Self {
            shape,
            mask: &options.mask,
            angles: options.rotary.as_ref().map(|rotary| Angles::new(rotary, rows, length)),
            scale: scale(options.scale, head_width),
            soft_cap: options.soft_cap,
        }
    }

    /// The keys that some of a row's blocks of queries see, from a whole panel on.
    fn keys_seen(&self, row: usize, blocks: Range<usize>) -> Range<usize> {
        let length = self.shape.length;
        let first = self.mask.span(row, blocks.start * BLOCK, length).start;
        let last = self.mask.span(row, length.min(blocks.end * BLOCK) - 1, length).end;
        first / LANES * LANES..last
    }

    /// Copies a head of some tokens, in an `array` of so many `heads`, to rows of `head_width`, turned by their
    /// positions.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        array: &[f32],
        (head, heads): (usize, usize),
        row: usize,
        tokens: Range<usize>,
        out: &mut [f32],
    ) {
        let width = self.shape.head_width;
        for (token, out) in tokens.zip(out.chunks_exact_mut(width)) {
            let head = &array[self.shape.at(heads, row, token, head)..][..width];
            match &self.angles {
                Some(angles) => turn::<S>(head, angles.of(row, token), false, out),
                None => out.copy_from_slice(head),
            }
        }
    }
}

/// `keys` in chunks from one multiple of [`KEYS`] to the next, the first from a whole panel on.
#[inline(always)]
fn chunks(keys: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let first = keys.start / LANES * LANES;
    let end = if keys.is_empty() { 0 } else { keys.end };
    (first / KEYS * KEYS..end).step_by(KEYS).map(move |start| start.max(first)..end.min(start + KEYS))
}

fn scale(scale: Option<f32>, head_width: usize) -> f32 {
    scale.unwrap_or_else(|| 1.0 / (head_width as f32).sqrt())
}

/// Gives `f` memory for `len` numbers that the thread keeps: fresh pages cost as much as the packing into them.
fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut memory = SCRATCH.take();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let result = f(&mut memory[..len]);
    SCRATCH.set(memory);
    result
}

/// The first `len` of what is left of `memory`.
#[inline(always)]
fn take<'a>(memory: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    memory.split_off_mut(..len).expect("room for every buffer")
}
