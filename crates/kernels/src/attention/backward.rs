//! The backward pass.

use std::ops::Range;

use rayon::prelude::*;

use super::block::Block;
use super::{AttentionOptions, AttentionShape, BLOCK, Call, KEYS, STRIDE, chunks, take, with_scratch};
use crate::chunks::Shared;
use crate::math::{dot, exp, mul_add, soft_cap};
use crate::panels::{Left, pack, pack_transposed, padded};
use crate::rotary::turn;
use crate::simd::{Simd, dispatch};

/// Tasks that the backward pass has at least, where the shape allows it. Tasks that share keys add up gradients of
/// their own, so their number must not depend on that of the threads.
const TASKS: usize = 16;

/// The gradients of [`attention`](super::attention) with respect to `q`, `k` and `v`, given that of its output, the
/// output, and the logarithms `log_sums` that it gave.
pub fn attention_backward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    log_sums: &[f32],
    dout: &[f32],
    shape: AttentionShape,
    options: &AttentionOptions,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let call = Call::new(shape, options, &[q, out, dout, dq], &[k, v, dk, dv]);
    let AttentionShape { rows, length, heads, kv_heads, head_width } = shape;
    assert_eq!(log_sums.len(), rows * heads * length, "a logarithm per query and head");
    if dq.is_empty() {
        return;
    }
    let (groups, units) = (rows * kv_heads, shape.group() * length.div_ceil(BLOCK));
    let parts = TASKS.div_ceil(groups).min(units);
    // The first part writes into `dk` and `dv`, the others into copies that are added to them.
    let mut copies = vec![0.0; (parts - 1) * 2 * shape.key_len()];
    let targets: Vec<[Shared; 2]> = std::iter::once([&mut *dk, &mut *dv])
        .chain(copies.chunks_exact_mut(2 * shape.key_len()).map(|both| both.split_at_mut(shape.key_len()).into()))
        .map(|both: [&mut [f32]; 2]| both.map(Shared::new))
        .collect();
    let dq = Shared::new(dq);
    (0..groups * parts).into_par_iter().for_each(|task| {
        let (group, part) = (task / parts, task % parts);
        let units = part * units / parts..(part + 1) * units / parts;
        with_scratch(scratch_len(head_width, units.len()), |scratch| {
            let inputs = [q, k, v, out, log_sums, dout];
            let [dk, dv] = &targets[part];
            backward(&call, inputs, group / kv_heads, group % kv_heads, units, scratch, [&dq, dk, dv]);
        });
    });
    drop(targets);
    for copy in copies.chunks_exact(2 * shape.key_len()) {
        let (k_part, v_part) = copy.split_at(shape.key_len());
        for (total, part) in dk.iter_mut().chain(dv.iter_mut()).zip(k_part.iter().chain(v_part)) {
            *total += part;
        }
    }
}

fn scratch_len(head_width: usize, units: usize) -> usize {
    let (depth, width) = (head_width, padded(head_width));
    KEYS * (3 * depth + 3 * width) + BLOCK * (depth + 2 * width + 2 * STRIDE) + units * BLOCK * (width + 1)
}

dispatch!(
    backward = backward_body(
        call: &Call,
        inputs: [&[f32]; 6],
        row: usize,
        kv_head: usize,
        units: Range<usize>,
        scratch: &mut [f32],
        gradients: [&Shared; 3],
    )
);

/// With the scores `S`, the probabilities `P = exp(S - log_sum)` and `dP = dout vᵀ`:
/// `dS = P (dP - Σ_keys P dP)`, where the sum is also that of `dout out`; `dq = dS k` and `dk = dSᵀ q`, both scaled as
/// the scores, and `dv = Pᵀ dout`. A soft cap multiplies `dS` by its derivative, `1 - (S / cap)^2`.
///
/// Units as in the forward pass. The chunks of keys are the outer loop: what is packed and summed for a chunk stays
/// in the cache while the blocks of queries go by.
#[inline(always)]
fn backward_body<S: Simd>(
    call: &Call,
    [q, k, v, out, log_sums, dout]: [&[f32]; 6],
    row: usize,
    kv_head: usize,
    units: Range<usize>,
    mut scratch: &mut [f32],
    [dq, dk, dv]: [&Shared; 3],
) {
    let AttentionShape { length, heads, kv_heads, head_width, .. } = call.shape;
    let (blocks, width) = (length.div_ceil(BLOCK), padded(head_width));
    let head_of = |unit: usize| kv_head * call.shape.group() + unit / blocks;
    let stride = heads * head_width;

    let gathered = take(&mut scratch, KEYS * head_width);
    let k_transposed = take(&mut scratch, KEYS * head_width);
    let v_transposed = take(&mut scratch, KEYS * head_width);
    let k_packed = take(&mut scratch, KEYS * width);
    let dk_chunk = take(&mut scratch, KEYS * width);
    let dv_chunk = take(&mut scratch, KEYS * width);
    let q_block = take(&mut scratch, BLOCK * head_width);
    let q_packed = take(&mut scratch, BLOCK * width);
    let dout_packed = take(&mut scratch, BLOCK * width);
    let probabilities = take(&mut scratch, BLOCK * STRIDE);
    let dscores = take(&mut scratch, BLOCK * STRIDE);
    let dq_units = take(&mut scratch, units.len() * BLOCK * width);
    let means = take(&mut scratch, units.len() * BLOCK);

    dq_units.fill(0.0);
    for (unit, means) in units.clone().zip(means.chunks_exact_mut(BLOCK)) {
        let block = unit % blocks * BLOCK;
        for (token, mean) in (block..length.min(block + BLOCK)).zip(means) {
            let at = call.shape.at(heads, row, token, head_of(unit));
            *mean = dot::<S>(&out[at..][..head_width], &dout[at..][..head_width]);
        }
    }

    for chunk in chunks(0..length) {
        let seen = call.keys_seen(row, 0..blocks);
        let chunk_all = chunk.clone();
        let chunk = chunk.start.max(seen.start)..chunk.end.min(seen.end);
        dk_chunk.fill(0.0);
        dv_chunk.fill(0.0);
        if !chunk.is_empty() {
            let keys = chunk.len();
            call.gather::<S>(k, (kv_head, kv_heads), row, chunk.clone(), gathered);
            pack_transposed(gathered, head_width, head_width, keys, k_transposed);
            pack(gathered, head_width, keys, head_width, k_packed);
            let from = call.shape.at(kv_heads, row, chunk.start, kv_head);
            pack_transposed(&v[from..], kv_heads * head_width, head_width, keys, v_transposed);
            for (index, unit) in units.clone().enumerate() {
                let block = Block::new(call.mask, row, unit % blocks, length);
                let seen = block.keys();
                if seen.is_empty() || seen.start >= chunk.end || seen.end <= chunk.start {
                    continue;
                }
                let (head, queries) = (head_of(unit), block.queries.len());
                call.gather::<S>(q, (head, heads), row, block.queries.clone(), q_block);
                let dout = &dout[call.shape.at(heads, row, block.queries.start, head)..];
                let log_sums = &log_sums[(row * heads + head) * length + block.queries.start..];
                let means = &means[index * BLOCK..];

                let left = Left { data: q_block, row: head_width, depth: 1 };
                block.scores::<S>(left, k_transposed, head_width, &chunk, call.scale, probabilities);
                let left = Left { data: dout, row: stride, depth: 1 };
                block.scores::<S>(left, v_transposed, head_width, &chunk, 1.0, dscores);
                for query in 0..queries {
                    let here = query * STRIDE..query * STRIDE + padded(keys);
                    let (p, ds) = (&mut probabilities[here.clone()], &mut dscores[here]);
                    let columns = block.columns(query, &chunk);
                    if let Some(cap) = call.soft_cap {
                        soft_cap::<S>(&mut p[columns.panels.clone()], cap);
                    }
                    columns.hide(f32::NEG_INFINITY, p);
                    columns.hide(0.0, ds);
                    let (p, ds) = (&mut p[columns.panels.clone()], &mut ds[columns.panels]);
                    gradient::<S>(p, ds, log_sums[query], means[query], call.soft_cap);
                }

                let dq = &mut dq_units[index * BLOCK * width..][..BLOCK * width];
                block.mix::<S>(dscores, &k_packed[..keys * width], &chunk, &chunk, dq, width);
                pack(q_block, head_width, queries, head_width, q_packed);
                block.mix_transposed::<S>(dscores, &q_packed[..queries * width], &chunk, dk_chunk, width);
                pack(dout, stride, queries, head_width, dout_packed);
                block.mix_transposed::<S>(probabilities, &dout_packed[..queries * width], &chunk, dv_chunk, width);
            }
        }
        for token in chunk_all {
            let at = call.shape.at(kv_heads, row, token, kv_head);
            // SAFETY: no two tasks have a token, a head of keys and a target in common.
            let (dk, dv) = unsafe { (dk.slice(at, head_width), dv.slice(at, head_width)) };
            if !chunk.contains(&token) {
                dk.fill(0.0);
                dv.fill(0.0);
                continue;
            }
            let from = (token - chunk.start) * width;
            dv.copy_from_slice(&dv_chunk[from..][..head_width]);
            finish::<S>(call, &mut dk_chunk[from..][..head_width], row, token, dk);
        }
    }
    for (index, unit) in units.enumerate() {
        let block = unit % blocks * BLOCK;
        for (query, token) in (block..length.min(block + BLOCK)).enumerate() {
            // SAFETY: no two tasks have a token and a head in common.
            let dq = unsafe { dq.slice(call.shape.at(heads, row, token, head_of(unit)), head_width) };
            let sums = &mut dq_units[(index * BLOCK + query) * width..][..head_width];
            finish::<S>(call, sums, row, token, dq);
        }
    }
}

/// Scores of visible keys to probabilities, and their gradients `dp` to those of the scores.
#[inline(always)]
fn gradient<S: Simd>(scores: &mut [f32], dp: &mut [f32], log_sum: f32, mean: f32, cap: Option<f32>) {
    match cap {
        None => {
            for (p, ds) in scores.iter_mut().zip(dp) {
                *p = exp::<S>(*p - log_sum);
                *ds = *p * (*ds - mean);
            }
        }
        Some(cap) => {
            let inverse = 1.0 / cap;
            for (p, ds) in scores.iter_mut().zip(dp) {
                let ratio = *p * inverse;
                let slope = mul_add::<S>(-ratio, ratio, 1.0);
                *p = exp::<S>(*p - log_sum);
                // Where a key is hidden the slope is that of minus infinity.
                *ds = if *p == 0.0 { 0.0 } else { *p * (*ds - mean) * slope };
            }
        }
    }
}

/// The gradient of a query or a key from `sums`, that of the same turned and scaled.
#[inline(always)]
fn finish<S: Simd>(call: &Call, sums: &mut [f32], row: usize, token: usize, gradient: &mut [f32]) {
    sums.iter_mut().for_each(|sum| *sum *= call.scale);
    match &call.angles {
        Some(angles) => turn::<S>(sums, angles.of(row, token), true, gradient),
        None => gradient.copy_from_slice(sums),
    }
}
