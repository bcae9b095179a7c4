//! Random weights and plain twins of the crate's arithmetic.

use lapidary_kernels::rng::Stream;
use lapidary_quant::{Method, Ranges, find_ranges, group_rows};

/// Standard normal weights.
pub fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| stream.normal()).collect()
}

/// The formula as it is written, one weight at a time, in f64 but for the division and the code's rounding.
pub fn plain(w: f32, scale: f32, zero: f32, bits: u32) -> (u8, f64) {
    let code = ((w / scale).round_ties_even() + zero).clamp(0.0, ((1u32 << bits) - 1) as f32);
    (code as u8, f64::from(scale) * f64::from(code - zero))
}

/// Squared error of every group.
pub fn errors(w: &[f32], rows: usize, cols: usize, ranges: &Ranges, bits: u32) -> Vec<f64> {
    (0..ranges.groups())
        .map(|group| {
            let rows = group_rows(rows, ranges.groups(), group);
            let weights = &w[rows.start * cols..rows.end * cols];
            let error = |&w: &f32| (f64::from(w) - plain(w, ranges.scales[group], ranges.zeros[group], bits).1).powi(2);
            weights.iter().map(error).sum()
        })
        .collect()
}

/// Scale and zero of a matrix that is one group.
pub fn one_group(w: &[f32], bits: u32, method: Method) -> (f32, f32) {
    let ranges = find_ranges(w, 1, w.len(), 1, bits, method).unwrap();
    (ranges.scales[0], ranges.zeros[0])
}

pub fn one_error(w: &[f32], bits: u32, method: Method) -> f64 {
    errors(w, 1, w.len(), &find_ranges(w, 1, w.len(), 1, bits, method).unwrap(), bits)[0]
}
