//! Where the grid of each group lies.
//!
//! A matrix `[rows, cols]` is cut into groups of whole rows; group `g` of `groups` holds the rows
//! `g rows / groups .. (g + 1) rows / groups` (Q-BERT, arXiv 1909.05840, section 3.3: the outputs of an attention head
//! and shares of them). Each has a scale and a zero, and
//!
//! `code = clamp(round(w / scale) + zero, 0, 2^bits - 1)`, `weight = scale (code - zero)`,
//!
//! which is `lapidary_kernels::fake_quantize`. Q-BERT keeps the lower end of the range as a float; here the zero
//! is itself a code, so that the weight 0 is exact. With a few bits that decides: a group whose one giant weight
//! stretches the range becomes zeros instead of a constant.

use std::ops::Range;

use lapidary_kernels::fake_quantize::fake_quantize_codes;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{QuantError, least_squares};

/// Beyond this a weight on a stretched grid could overflow: a quarter of the largest `f32`.
const LARGEST: f32 = f32::MAX / 4.0;

/// How the range of a group is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// From the least weight to the greatest, 0 included: no weight is off by more than half a scale.
    MinMax,
    /// The scale and zero of least squared error; large weights may be clipped. Never worse than `MinMax`.
    LeastSquares,
}

/// The grid of every group of a matrix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// Step of the grid, above 0. `[groups]`
    pub scales: Vec<f32>,
    /// The code that stands for 0, an integer in `0..2^bits` kept as `f32`. `[groups]`
    pub zeros: Vec<f32>,
}

impl Ranges {
    pub fn groups(&self) -> usize {
        self.scales.len()
    }

    /// Whether these can be the ranges of a matrix with `rows` rows and codes of `bits` bits. Ranges that were read
    /// from a file are to be checked before they reach a kernel.
    pub fn check(&self, rows: usize, bits: u32) -> Result<(), QuantError> {
        let steps = steps(bits)?;
        if self.scales.len() != self.zeros.len() {
            return Err(QuantError::Unpaired { scales: self.scales.len(), zeros: self.zeros.len() });
        }
        check_groups(self.groups(), rows)?;
        for (group, (&scale, &zero)) in self.scales.iter().zip(&self.zeros).enumerate() {
            let good = scale > 0.0 && scale.is_finite() && (0.0..=steps).contains(&zero) && zero.fract() == 0.0;
            if !good {
                return Err(QuantError::Range { group, scale, zero, bits });
            }
        }
        Ok(())
    }
}

/// The rows of group `group` out of `groups`; sizes differ by at most one row. `group < groups <= rows`.
pub fn group_rows(rows: usize, groups: usize, group: usize) -> Range<usize> {
    // In 128 bits: the product of two lengths overflows on no machine.
    let start = |group: usize| (group as u128 * rows as u128 / groups.max(1) as u128) as usize;
    start(group)..start(group + 1)
}

/// The ranges of `w`, `[rows, cols]` row-major, for codes of `bits` bits (2 to 8). Parallel over groups.
///
/// A group of zeros gets scale 1. Fails on bits or groups out of range, on a `w` of another length, and on weights
/// that are NaN, infinite or too large (naming the first group that has one).
pub fn find_ranges(
    w: &[f32],
    rows: usize,
    cols: usize,
    groups: usize,
    bits: u32,
    method: Method,
) -> Result<Ranges, QuantError> {
    steps(bits)?;
    check_groups(groups, rows)?;
    check_shape("weights", w.len(), rows, cols)?;
    let found: Vec<Result<Grid, QuantError>> = (0..groups)
        .into_par_iter()
        .map_init(Vec::new, |scratch, group| {
            let rows = group_rows(rows, groups, group);
            let weights = &w[rows.start * cols..rows.end * cols];
            if let Some(at) = weights.iter().position(|w| !w.is_finite() || w.abs() > LARGEST) {
                let (row, col) = (rows.start + at / cols, at % cols);
                return Err(QuantError::Weight { group, row, col, value: weights[at] });
            }
            Ok(match method {
                Method::MinMax => Grid::min_max(weights, bits),
                Method::LeastSquares => least_squares::fit(weights, bits, scratch),
            })
        })
        .collect();
    let mut ranges = Ranges { scales: Vec::with_capacity(groups), zeros: Vec::with_capacity(groups) };
    for grid in found {
        let grid = grid?;
        ranges.scales.push(grid.scale);
        ranges.zeros.push(grid.zero as f32);
    }
    Ok(ranges)
}

/// The codes of `w`, `[rows, cols]`, one a byte.
pub fn quantize_codes(w: &[f32], rows: usize, cols: usize, ranges: &Ranges, bits: u32) -> Result<Vec<u8>, QuantError> {
    ranges.check(rows, bits)?;
    check_shape("weights", w.len(), rows, cols)?;
    let mut codes = vec![0; w.len()];
    fake_quantize_codes(w, rows, cols, &ranges.scales, &ranges.zeros, bits, &mut codes);
    Ok(codes)
}

/// The weights that `codes`, `[rows, cols]`, stand for.
pub fn dequantize(codes: &[u8], rows: usize, cols: usize, ranges: &Ranges, bits: u32) -> Result<Vec<f32>, QuantError> {
    ranges.check(rows, bits)?;
    check_shape("codes", codes.len(), rows, cols)?;
    let mut weights = vec![0.0; codes.len()];
    for group in 0..ranges.groups() {
        let (scale, zero) = (ranges.scales[group], ranges.zeros[group]);
        let rows = group_rows(rows, ranges.groups(), group);
        let place = rows.start * cols..rows.end * cols;
        for (weight, &code) in weights[place.clone()].iter_mut().zip(&codes[place]) {
            *weight = scale * (f32::from(code) - zero);
        }
    }
    Ok(weights)
}

/// Scale and zero of one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub scale: f32,
    pub zero: i32,
}

impl Grid {
    /// The whole of `[min(0, least), max(0, greatest)]`. The ends lie within half a scale of the grid's, since the
    /// zero is rounded.
    ///
    /// In the arithmetic of `lapidary_kernels::fake_quantize::fake_quantize_rows`, to the last bit: a table whose
    /// rows a model rounds as it looks them up is packed as it was evaluated.
    pub fn min_max(weights: &[f32], bits: u32) -> Self {
        let (least, greatest) = span(weights);
        let width = greatest - least;
        if width == 0.0 {
            return Self { scale: 1.0, zero: 0 };
        }
        // Subnormal numbers have too few digits for a scale.
        let scale = (width / ((1u32 << bits) - 1) as f32).max(f32::MIN_POSITIVE);
        Self { scale, zero: (-least / scale).round_ties_even() as i32 }
    }
}

/// Least and greatest weight, 0 among them.
pub(crate) fn span(weights: &[f32]) -> (f32, f32) {
    weights.iter().fold((0.0, 0.0), |(least, greatest), &w| (w.min(least), w.max(greatest)))
}

/// The greatest code, `2^bits - 1`.
fn steps(bits: u32) -> Result<f32, QuantError> {
    if (2..=8).contains(&bits) { Ok(((1u32 << bits) - 1) as f32) } else { Err(QuantError::Bits(bits)) }
}

pub(crate) fn check_groups(groups: usize, rows: usize) -> Result<(), QuantError> {
    match groups {
        0 => Err(QuantError::NoGroups),
        groups if groups > rows => Err(QuantError::Groups { groups, rows }),
        _ => Ok(()),
    }
}

pub(crate) fn check_bits(bits: u32) -> Result<(), QuantError> {
    steps(bits).map(drop)
}

fn check_shape(what: &'static str, found: usize, rows: usize, cols: usize) -> Result<(), QuantError> {
    if rows.checked_mul(cols) == Some(found) { Ok(()) } else { Err(QuantError::Shape { what, found, rows, cols }) }
}
