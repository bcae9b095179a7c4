//! Sums over a whole slice, in an order that the number of threads does not change.

use rayon::prelude::*;

use crate::simd::{Simd, dispatch};

/// Elements whose sum is formed first; the sums of the chunks are added in order.
const CHUNK: usize = 64 * 1024;

/// `Σ x²` in `f64`.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    if x.len() <= CHUNK {
        return squares(x);
    }
    let partials: Vec<f64> = x.par_chunks(CHUNK).map(squares).collect();
    partials.iter().sum()
}

dispatch!(squares = squares_body(x: &[f32]) -> f64);

#[inline(always)]
fn squares_body<S: Simd>(x: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0f64; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            // The square of an f32 is exact in f64, so fusing would change nothing.
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(*x) * f64::from(*x);
    }
    sums.iter().sum()
}
