//! Scaled dot-product attention (Vaswani et al., 2017, eq. 1) over the heads of a batch, and its backward pass.
//!
//! Work is split by (row, head). Within a head, blocks of queries meet the keys that any of them sees: a causal mask
//! costs little more than half of a full one, and never more than `BLOCK * length` scores exist at a time. The
//! backward pass computes the probabilities anew.

use rayon::prelude::*;

use crate::chunks::Shared;
use crate::mask::Mask;
use crate::math::{dot, exp, max, sum};
use crate::panels::{Left, Right, pack, pack_transposed, padded, product};
use crate::simd::{Simd, dispatch};

/// Queries whose scores are held at a time.
const BLOCK: usize = 48;

/// The shape of queries, keys, values and output, each `[rows * length, heads * head_width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub rows: usize,
    pub length: usize,
    pub heads: usize,
    pub head_width: usize,
}

impl AttentionShape {
    fn width(&self) -> usize {
        self.heads * self.head_width
    }

    fn len(&self) -> usize {
        self.rows * self.length * self.width()
    }

    /// Where the first token of a row's head begins.
    fn offset(&self, row: usize, head: usize) -> usize {
        row * self.length * self.width() + head * self.head_width
    }
}

/// `out = softmax(q kᵀ / sqrt(head_width)) v` for each row and head, over the visible keys.
///
/// A query that sees no key gets 0. Queries in the padding are computed like others.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], shape: AttentionShape, mask: &Mask, out: &mut [f32]) {
    check(shape, mask, &[q, k, v, out]);
    let out = Shared::new(out);
    for_each_head(
        shape,
        || Forward::new(shape),
        |scratch, row, head| {
            let start = shape.offset(row, head);
            forward(scratch, [&q[start..], &k[start..], &v[start..]], shape, row, mask);
            // SAFETY: `for_each_head` visits each (row, head) once.
            unsafe { write(&out, shape, row, head, &scratch.out) };
        },
    );
}

/// The gradients of [`attention`] with respect to `q`, `k` and `v`, given that of its output.
pub fn attention_backward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dout: &[f32],
    shape: AttentionShape,
    mask: &Mask,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    check(shape, mask, &[q, k, v, dout, dq, dk, dv]);
    let [dq, dk, dv] = [dq, dk, dv].map(Shared::new);
    for_each_head(
        shape,
        || Backward::new(shape),
        |scratch, row, head| {
            let start = shape.offset(row, head);
            backward(scratch, [&q[start..], &k[start..], &v[start..], &dout[start..]], shape, row, mask);
            // SAFETY: `for_each_head` visits each (row, head) once.
            unsafe {
                write(&dq, shape, row, head, &scratch.dq);
                write(&dk, shape, row, head, &scratch.dk);
                write(&dv, shape, row, head, &scratch.dv);
            }
        },
    );
}

fn check(shape: AttentionShape, mask: &Mask, arrays: &[&[f32]]) {
    assert!(arrays.iter().all(|array| array.len() == shape.len()), "arrays of the shape {shape:?}");
    assert!(mask.covers(shape.rows), "a mask of {} rows", shape.rows);
}

/// Calls `f(scratch, row, head)` once for each row and head, in parallel.
fn for_each_head<S>(
    shape: AttentionShape,
    new: impl Fn() -> S + Sync + Send,
    f: impl Fn(&mut S, usize, usize) + Sync + Send,
) {
    if shape.len() == 0 {
        return;
    }
    let tasks = shape.rows * shape.heads;
    (0..tasks).into_par_iter().for_each_init(new, |scratch, task| f(scratch, task / shape.heads, task % shape.heads));
}

/// Copies a head of `tokens`, rows of `padded(head_width)`, to where it belongs in `array`.
///
/// # Safety
/// No two threads may write the same row and head at a time.
unsafe fn write(array: &Shared, shape: AttentionShape, row: usize, head: usize, tokens: &[f32]) {
    let start = shape.offset(row, head);
    for (token, values) in tokens.chunks_exact(padded(shape.head_width)).take(shape.length).enumerate() {
        // SAFETY: the elements belong to this row and head alone.
        let out = unsafe { array.slice(start + token * shape.width(), shape.head_width) };
        out.copy_from_slice(&values[..shape.head_width]);
    }
}

/// What a thread needs for the forward pass of a head: packed right factors, the scores of a block with rows of up to
/// `padded(length)`, and the output with rows of `padded(head_width)`.
struct Forward {
    k_transposed: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Forward {
    fn new(shape: AttentionShape) -> Self {
        let buffers = Buffers::new(shape);
        Self { k_transposed: buffers.packed(), v: buffers.packed(), scores: buffers.scores(), out: buffers.packed() }
    }
}

/// What a thread needs for the backward pass of a head: packed right factors, the probabilities and the gradient of
/// the scores of a block, and the gradients.
struct Backward {
    k_transposed: Vec<f32>,
    v_transposed: Vec<f32>,
    k: Vec<f32>,
    q: Vec<f32>,
    dout: Vec<f32>,
    probabilities: Vec<f32>,
    dscores: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl Backward {
    fn new(shape: AttentionShape) -> Self {
        let buffers = Buffers::new(shape);
        Self {
            k_transposed: buffers.packed(),
            v_transposed: buffers.packed(),
            k: buffers.packed(),
            q: buffers.packed(),
            dout: buffers.packed(),
            probabilities: buffers.scores(),
            dscores: buffers.scores(),
            dq: buffers.packed(),
            dk: buffers.packed(),
            dv: buffers.packed(),
        }
    }
}

/// Makes the buffers of a head.
struct Buffers {
    length: usize,
    width: usize,
}

impl Buffers {
    fn new(shape: AttentionShape) -> Self {
        Self { length: shape.length, width: shape.head_width }
    }

    /// Room for the tokens of a head, packed either way.
    fn packed(&self) -> Vec<f32> {
        vec![0.0; padded(self.length) * padded(self.width)]
    }

    fn scores(&self) -> Vec<f32> {
        vec![0.0; BLOCK.min(self.length) * padded(self.length)]
    }
}

/// Blocks of queries: where each begins, how many it holds, and how many keys its queries see at most.
#[inline(always)]
fn blocks(row: usize, length: usize, mask: &Mask) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..length).step_by(BLOCK).map(move |start| {
        let queries = BLOCK.min(length - start);
        // Spans never shrink from one query to the next.
        (start, queries, mask.span(row, start + queries - 1, length))
    })
}

/// `scores [queries, columns]` of a block to probabilities in place, 0 for keys at and beyond `span(query)`.
#[inline(always)]
fn softmax<S: Simd>(scores: &mut [f32], columns: usize, span: impl Fn(usize) -> usize) {
    for (query, scores) in scores.chunks_exact_mut(columns.max(1)).enumerate() {
        let span = span(query);
        if span == 0 {
            scores.fill(0.0);
            continue;
        }
        // Whole panels are computed, hidden keys included: a row of 13 is faster as one of 16.
        scores[span..].fill(f32::NEG_INFINITY);
        let largest = max(scores);
        for score in scores.iter_mut() {
            *score = exp::<S>(*score - largest);
        }
        let inverse = 1.0 / sum(scores);
        scores.iter_mut().for_each(|score| *score *= inverse);
    }
}

dispatch!(
    forward = forward_body(scratch: &mut Forward, inputs: [&[f32]; 3], shape: AttentionShape, row: usize, mask: &Mask)
);

#[inline(always)]
fn forward_body<S: Simd>(
    scratch: &mut Forward,
    [q, k, v]: [&[f32]; 3],
    shape: AttentionShape,
    row: usize,
    mask: &Mask,
) {
    let AttentionShape { length, head_width, .. } = shape;
    let (stride, width, scale) = (shape.width(), padded(head_width), 1.0 / (head_width as f32).sqrt());
    let keys = mask.span(row, length - 1, length);
    if keys == 0 {
        return scratch.out.fill(0.0);
    }
    pack_transposed(k, stride, head_width, keys, &mut scratch.k_transposed);
    pack(v, stride, keys, head_width, &mut scratch.v);
    let k_transposed = Right { panels: &scratch.k_transposed, depth: head_width };
    let v = Right { panels: &scratch.v, depth: keys };
    for (start, queries, keys) in blocks(row, length, mask) {
        let columns = padded(keys);
        let scores = &mut scratch.scores[..queries * columns];
        let q = Left { data: &q[start * stride..], row: stride, depth: 1 };
        product::<S>(q, k_transposed, (queries, head_width, columns), scale, scores, columns, false);
        softmax::<S>(scores, columns, |query| mask.span(row, start + query, length));
        let probabilities = Left { data: scores, row: columns, depth: 1 };
        let out = &mut scratch.out[start * width..][..queries * width];
        if keys == 0 {
            out.fill(0.0);
        }
        product::<S>(probabilities, v, (queries, keys, width), 1.0, out, width, false);
    }
}

dispatch!(
    backward = backward_body(scratch: &mut Backward, inputs: [&[f32]; 4], shape: AttentionShape, row: usize, mask: &Mask)
);

/// With probabilities `P` and `dP = dout vᵀ`:
/// `dS = P (dP - Σ_keys P dP)`, `dq = dS k`, `dk = dSᵀ q`, both scaled as the scores, and `dv = Pᵀ dout`.
#[inline(always)]
fn backward_body<S: Simd>(
    scratch: &mut Backward,
    [q, k, v, dout]: [&[f32]; 4],
    shape: AttentionShape,
    row: usize,
    mask: &Mask,
) {
    let AttentionShape { length, head_width, .. } = shape;
    let (stride, width, scale) = (shape.width(), padded(head_width), 1.0 / (head_width as f32).sqrt());
    let keys = mask.span(row, length - 1, length);
    scratch.dq.fill(0.0);
    scratch.dk.fill(0.0);
    scratch.dv.fill(0.0);
    if keys == 0 {
        return;
    }
    pack_transposed(k, stride, head_width, keys, &mut scratch.k_transposed);
    pack_transposed(v, stride, head_width, keys, &mut scratch.v_transposed);
    pack(k, stride, keys, head_width, &mut scratch.k);
    let k_transposed = Right { panels: &scratch.k_transposed, depth: head_width };
    let v_transposed = Right { panels: &scratch.v_transposed, depth: head_width };
    let k = Right { panels: &scratch.k, depth: keys };
    for (start, queries, keys) in blocks(row, length, mask) {
        let columns = padded(keys);
        let (q, dout) = (&q[start * stride..], &dout[start * stride..]);
        let probabilities = &mut scratch.probabilities[..queries * columns];
        let dscores = &mut scratch.dscores[..queries * columns];

        let rows_of = |data| Left { data, row: stride, depth: 1 };
        product::<S>(rows_of(q), k_transposed, (queries, head_width, columns), scale, probabilities, columns, false);
        softmax::<S>(probabilities, columns, |query| mask.span(row, start + query, length));
        product::<S>(rows_of(dout), v_transposed, (queries, head_width, columns), 1.0, dscores, columns, false);
        for (p, ds) in probabilities.chunks_exact(columns.max(1)).zip(dscores.chunks_exact_mut(columns.max(1))) {
            let mean = dot::<S>(p, ds);
            for (ds, p) in ds.iter_mut().zip(p) {
                *ds = p * (*ds - mean);
            }
        }

        let dq = &mut scratch.dq[start * width..][..queries * width];
        let along_keys = Left { data: dscores, row: columns, depth: 1 };
        product::<S>(along_keys, k, (queries, keys, width), scale, dq, width, false);
        pack(q, stride, queries, head_width, &mut scratch.q);
        pack(dout, stride, queries, head_width, &mut scratch.dout);
        let (q, dout) = (Right { panels: &scratch.q, depth: queries }, Right { panels: &scratch.dout, depth: queries });
        let along_queries = |data| Left { data, row: 1, depth: columns };
        product::<S>(along_queries(dscores), q, (keys, queries, width), scale, &mut scratch.dk, width, true);
        product::<S>(along_queries(probabilities), dout, (keys, queries, width), 1.0, &mut scratch.dv, width, true);
    }
}
