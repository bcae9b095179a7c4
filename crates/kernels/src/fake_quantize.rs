//! Quantization that stays in `f32`: values are rounded to the grid of an integer code and come back as numbers.
//!
//! A weight matrix is cut into groups of rows: group `g` of `groups` holds the rows
//! `g * rows / groups .. (g + 1) * rows / groups`, and has a scale above 0 and a zero, an integer code in `0..2^bits`
//! kept as `f32` (Q-BERT, arXiv:1909.05840, sections 3.1 and 3.3). Then
//!
//! `code = clamp(round(w / scale) + zero, 0, 2^bits - 1)` and `y = scale (code - zero)`, rounding ties to even.

use crate::chunks::{for_each_chunk, map_chunks, rows_per_chunk};
use crate::math::{fold, max, min};
use crate::simd::{LANES, Simd, dispatch};

/// The grid of one group: `lowest` and `highest` are the least and the greatest code, less the zero.
#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    zero: f32,
    lowest: f32,
    highest: f32,
}

impl Grid {
    fn new(scale: f32, zero: f32, bits: u32) -> Self {
        let codes = ((1u64 << bits) - 1) as f32;
        Self { scale, zero, lowest: -zero, highest: codes - zero }
    }

    /// `code - zero`.
    #[inline(always)]
    fn offset(self, w: f32) -> f32 {
        round((w / self.scale).clamp(self.lowest, self.highest))
    }
}

/// The nearest integer, ties to even, of a number below 2^22 in magnitude: adding 1.5 * 2^23 leaves no room for a
/// fraction. On a grid of integers clamping may come before rounding, which bounds the magnitude.
#[inline(always)]
fn round(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// The groups of a matrix with their grids.
#[derive(Clone, Copy)]
struct Groups<'a> {
    rows: usize,
    scales: &'a [f32],
    zeros: &'a [f32],
    bits: u32,
}

impl<'a> Groups<'a> {
    fn new(w: &[f32], rows: usize, cols: usize, scales: &'a [f32], zeros: &'a [f32], bits: u32) -> Self {
        assert_eq!(w.len(), rows * cols, "a matrix of {rows} rows and {cols} columns");
        assert!(scales.len() == zeros.len() && !scales.is_empty(), "a scale and a zero per group");
        assert!((1..=16).contains(&bits), "codes of 1 to 16 bits, not {bits}");
        Self { rows, scales, zeros, bits }
    }

    /// The last group that starts at or before `row`: the largest `g` with `g * rows / groups <= row`.
    fn of_row(&self, row: usize) -> usize {
        ((row + 1) * self.scales.len() - 1) / self.rows
    }

    fn grid(&self, row: usize) -> Grid {
        let group = self.of_row(row);
        Grid::new(self.scales[group], self.zeros[group], self.bits)
    }
}

/// `y`, `[rows, cols]` as `w`; `scales` and `zeros` `[groups]`, `bits` 1 to 16.
pub fn fake_quantize(w: &[f32], rows: usize, cols: usize, scales: &[f32], zeros: &[f32], bits: u32, y: &mut [f32]) {
    let groups = Groups::new(w, rows, cols, scales, zeros, bits);
    assert_eq!(y.len(), w.len(), "an output per weight");
    for_each_chunk(y, rows_per_chunk(cols) * cols.max(1), |start, y| {
        for (i, y) in y.chunks_exact_mut(cols).enumerate() {
            quantize(groups.grid(start / cols + i), &w[start + i * cols..][..cols], y);
        }
    });
}

/// The codes of [`fake_quantize`], `bits` 1 to 8.
pub fn fake_quantize_codes(
    w: &[f32],
    rows: usize,
    cols: usize,
    scales: &[f32],
    zeros: &[f32],
    bits: u32,
    codes: &mut [u8],
) {
    let groups = Groups::new(w, rows, cols, scales, zeros, bits);
    assert!(bits <= 8, "a code of {bits} bits does not fit into a byte");
    assert_eq!(codes.len(), w.len(), "a code per weight");
    for_each_chunk(codes, rows_per_chunk(cols) * cols.max(1), |start, codes| {
        for (i, codes) in codes.chunks_exact_mut(cols).enumerate() {
            encode(groups.grid(start / cols + i), &w[start + i * cols..][..cols], codes);
        }
    });
}

/// The gradients of [`fake_quantize`]: `dw [rows, cols]`, `dscales [groups]`.
///
/// The straight-through estimator of Q-BERT: `dw = dy` where the clamp changes nothing, 0 elsewhere. The scale's is
/// that of LSQ (Esser et al., arXiv:1902.08153, eq. 3) without its normalisation: `Σ dy ((code - zero) - w / scale)`
/// over the former, `Σ dy (code - zero)` over the latter.
pub fn fake_quantize_backward(
    w: &[f32],
    rows: usize,
    cols: usize,
    scales: &[f32],
    zeros: &[f32],
    bits: u32,
    dy: &[f32],
    dw: &mut [f32],
    dscales: &mut [f32],
) {
    let groups = Groups::new(w, rows, cols, scales, zeros, bits);
    assert!(dy.len() == w.len() && dw.len() == w.len(), "a gradient per weight");
    assert_eq!(dscales.len(), scales.len(), "a gradient per scale");
    let of_rows = map_chunks(dw, rows_per_chunk(cols) * cols.max(1), |start, dw| -> Vec<f32> {
        let row = |(i, dw): (usize, &mut [f32])| {
            let here = start + i * cols..start + (i + 1) * cols;
            backward(groups.grid(start / cols + i), &w[here.clone()], &dy[here], dw)
        };
        dw.chunks_exact_mut(cols).enumerate().map(row).collect()
    });
    let mut totals = vec![0f64; scales.len()];
    for (row, of_row) in of_rows.iter().flatten().enumerate() {
        totals[groups.of_row(row)] += f64::from(*of_row);
    }
    for (dscale, total) in dscales.iter_mut().zip(totals) {
        *dscale = total as f32;
    }
}

/// Activations, each row of `cols` on a grid of its own that spans `min(0, least) ..= max(0, greatest)`: asymmetric
/// and dynamic, and 0 stays 0. No value is clamped by more than half a step, so the straight-through gradient is `dy`
/// itself. NaN stays NaN, and an infinite element makes its row NaN.
pub fn fake_quantize_rows(x: &[f32], cols: usize, bits: u32, y: &mut [f32]) {
    assert!((1..=16).contains(&bits), "codes of 1 to 16 bits, not {bits}");
    assert!(x.len() == y.len() && x.len().is_multiple_of(cols.max(1)), "rows of {cols}");
    for_each_chunk(y, rows_per_chunk(cols) * cols.max(1), |start, y| {
        for (x, y) in x[start..].chunks_exact(cols).zip(y.chunks_exact_mut(cols)) {
            quantize_row(x, bits, y);
        }
    });
}

dispatch!(quantize = quantize_body(grid: Grid, w: &[f32], y: &mut [f32]));

#[inline(always)]
fn quantize_body<S: Simd>(grid: Grid, w: &[f32], y: &mut [f32]) {
    for (y, w) in y.iter_mut().zip(w) {
        *y = grid.scale * grid.offset(*w);
    }
}

dispatch!(encode = encode_body(grid: Grid, w: &[f32], codes: &mut [u8]));

#[inline(always)]
fn encode_body<S: Simd>(grid: Grid, w: &[f32], codes: &mut [u8]) {
    for (code, w) in codes.iter_mut().zip(w) {
        *code = (grid.offset(*w) + grid.zero) as u8;
    }
}

dispatch!(backward = backward_body(grid: Grid, w: &[f32], dy: &[f32], dw: &mut [f32]) -> f32);

/// The scale's gradient from one row.
#[inline(always)]
fn backward_body<S: Simd>(grid: Grid, w: &[f32], dy: &[f32], dw: &mut [f32]) -> f32 {
    let one = |w: f32, dy: f32| {
        let ratio = w / grid.scale;
        // One step beyond the grid is enough to tell what the clamp would change.
        let rounded = round(ratio.clamp(grid.lowest - 1.0, grid.highest + 1.0));
        let offset = rounded.clamp(grid.lowest, grid.highest);
        let inside = rounded == offset;
        (if inside { dy } else { 0.0 }, dy * if inside { offset - ratio } else { offset })
    };
    let mut sums = [0.0; LANES];
    let ((dw, dw_rest), (w, w_rest), (dy, dy_rest)) =
        (dw.as_chunks_mut::<LANES>(), w.as_chunks::<LANES>(), dy.as_chunks::<LANES>());
    for ((dw, w), dy) in dw.iter_mut().zip(w).zip(dy) {
        for i in 0..LANES {
            let (gradient, of_scale) = one(w[i], dy[i]);
            dw[i] = gradient;
            sums[i] += of_scale;
        }
    }
    for (i, dw) in dw_rest.iter_mut().enumerate() {
        let (gradient, of_scale) = one(w_rest[i], dy_rest[i]);
        *dw = gradient;
        sums[i] += of_scale;
    }
    fold(sums, |a, b| a + b)
}

dispatch!(quantize_row = quantize_row_body(x: &[f32], bits: u32, y: &mut [f32]));

#[inline(always)]
fn quantize_row_body<S: Simd>(x: &[f32], bits: u32, y: &mut [f32]) {
    let (least, greatest) = (min(x).min(0.0), max(x).max(0.0));
    let scale = (greatest - least) / ((1u64 << bits) - 1) as f32;
    if scale == 0.0 {
        return y.copy_from_slice(x);
    }
    quantize_body::<S>(Grid::new(scale, round(-least / scale), bits), x, y);
}
