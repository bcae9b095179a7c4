//! The forward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::block::Block;
use super::{AttentionOptions, AttentionShape, BLOCK, Call, KEYS, STRIDE, chunks, take, with_scratch};
use crate::chunks::Shared;
use crate::math::{exp, exponentials, max, soft_cap};
use crate::panels::{Left, pack, pack_transposed, padded};
use crate::simd::{Simd, dispatch};

/// `out = softmax(scale q kᵀ) v` for each row and head, over the visible keys; where asked for, also the logarithms of
/// the softmax's denominators, `[rows, heads, length]`, for [`attention_backward`](super::attention_backward).
///
/// A query that sees no key gets 0, and minus infinity for its logarithm. Queries in the padding are computed like
/// others.
pub fn attention(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    shape: AttentionShape,
    options: &AttentionOptions,
    out: &mut [f32],
    log_sums: Option<&mut [f32]>,
) {
    let call = Call::new(shape, options, &[q, out], &[k, v]);
    let AttentionShape { rows, length, heads, kv_heads, .. } = shape;
    assert!(log_sums.as_ref().is_none_or(|sums| sums.len() == rows * heads * length), "a logarithm per query and head");
    if out.is_empty() {
        return;
    }
    let (out, log_sums) = (Shared::new(out), log_sums.map(Shared::new));
    // A task packs the keys and values of a head and takes all queries that share them, or some where there are few
    // such heads. Which it takes makes no difference to a query.
    let (groups, units) = (rows * kv_heads, shape.group() * length.div_ceil(BLOCK));
    let threads = rayon::current_num_threads();
    let parts = if groups < 2 * threads { (4 * threads).div_ceil(groups).min(units) } else { 1 };
    (0..groups * parts).into_par_iter().for_each(|task| {
        let (group, part) = (task / parts, task % parts);
        let units = part * units / parts..(part + 1) * units / parts;
        with_scratch(scratch_len(shape), |scratch| {
            forward(&call, [q, k, v], group / kv_heads, group % kv_heads, units, scratch, &out, log_sums.as_ref());
        });
    });
}

fn scratch_len(shape: AttentionShape) -> usize {
    let (depth, width) = (shape.head_width, padded(shape.head_width));
    padded(shape.length) * depth + shape.length * width + (KEYS + BLOCK) * depth + BLOCK * (STRIDE + width)
}

dispatch!(
    forward = forward_body(
        call: &Call,
        inputs: [&[f32]; 3],
        row: usize,
        kv_head: usize,
        units: Range<usize>,
        scratch: &mut [f32],
        out: &Shared,
        log_sums: Option<&Shared>,
    )
);

/// Units are the blocks of queries of the group's first head, then those of its second, and so on.
#[inline(always)]
fn forward_body<S: Simd>(
    call: &Call,
    [q, k, v]: [&[f32]; 3],
    row: usize,
    kv_head: usize,
    units: Range<usize>,
    mut scratch: &mut [f32],
    out: &Shared,
    log_sums: Option<&Shared>,
) {
    let AttentionShape { length, heads, kv_heads, head_width, .. } = call.shape;
    let (blocks, width) = (length.div_ceil(BLOCK), padded(head_width));
    let (first, last) = (units.start, units.end - 1);
    let one_head = first / blocks == last / blocks;
    let packed = call.keys_seen(row, if one_head { first % blocks..last % blocks + 1 } else { 0..blocks });

    let k_transposed = take(&mut scratch, padded(packed.len()) * head_width);
    let v_packed = take(&mut scratch, packed.len() * width);
    let gathered = take(&mut scratch, KEYS * head_width);
    let q_block = take(&mut scratch, BLOCK * head_width);
    let scores = take(&mut scratch, BLOCK * STRIDE);
    let mixed = take(&mut scratch, BLOCK * width);

    for tokens in chunks(packed.clone()) {
        call.gather::<S>(k, (kv_head, kv_heads), row, tokens.clone(), gathered);
        let k_transposed = &mut k_transposed[(tokens.start - packed.start) * head_width..];
        pack_transposed(gathered, head_width, head_width, tokens.len(), k_transposed);
    }
    if !packed.is_empty() {
        let from = call.shape.at(kv_heads, row, packed.start, kv_head);
        pack(&v[from..], kv_heads * head_width, packed.len(), head_width, v_packed);
    }

    for unit in units {
        let head = kv_head * call.shape.group() + unit / blocks;
        let block = Block::new(call.mask, row, unit % blocks, length);
        call.gather::<S>(q, (head, heads), row, block.queries.clone(), q_block);
        let q_block = Left { data: q_block, row: head_width, depth: 1 };
        let (mut largest, mut sums) = ([f32::NEG_INFINITY; BLOCK], [0f32; BLOCK]);
        mixed.fill(0.0);
        for chunk in chunks(block.keys()) {
            let k_transposed = &k_transposed[(chunk.start - packed.start) * head_width..];
            block.scores::<S>(q_block, k_transposed, head_width, &chunk, call.scale, scores);
            for query in 0..block.queries.len() {
                let scores = &mut scores[query * STRIDE..][..padded(chunk.len())];
                let columns = block.columns(query, &chunk);
                if let Some(cap) = call.soft_cap {
                    soft_cap::<S>(&mut scores[columns.panels.clone()], cap);
                }
                columns.hide(f32::NEG_INFINITY, scores);
                if columns.panels.is_empty() {
                    continue;
                }
                let scores = &mut scores[columns.panels];
                let before = largest[query];
                let now = before.max(max(scores));
                // Scores of minus infinity only weigh nothing so far, and 0 / 0 if there are no others.
                let shift = if now == f32::NEG_INFINITY { 0.0 } else { now };
                let sum = exponentials::<S>(scores, shift);
                if before < now && before > f32::NEG_INFINITY {
                    let factor = exp::<S>(before - shift);
                    sums[query] *= factor;
                    mixed[query * width..][..width].iter_mut().for_each(|mixed| *mixed *= factor);
                }
                largest[query] = now;
                sums[query] += sum;
            }
            block.mix::<S>(scores, v_packed, &packed, &chunk, mixed, width);
        }
        for (query, token) in block.queries.clone().enumerate() {
            let inverse = if block.sees(query) { 1.0 / sums[query] } else { 0.0 };
            // SAFETY: no two tasks have a token and a head in common.
            let out = unsafe { out.slice(call.shape.at(heads, row, token, head), head_width) };
            for (out, mixed) in out.iter_mut().zip(&mixed[query * width..]) {
                *out = mixed * inverse;
            }
        }
        if let Some(log_sums) = log_sums {
            let start = (row * heads + head) * length + block.queries.start;
            // SAFETY: as above.
            let log_sums = unsafe { log_sums.slice(start, block.queries.len()) };
            for (log_sum, (largest, sum)) in log_sums.iter_mut().zip(largest.iter().zip(&sums)) {
                *log_sum = largest + sum.ln();
            }
        }
    }
}
