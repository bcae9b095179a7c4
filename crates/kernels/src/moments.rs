//! How far codes miss the weights that they stand for: what a search for a better scale needs to know.

use crate::simd::{LANES, Simd, dispatch};

/// Sums in f32 are short, so that they keep their digits.
const BLOCK: usize = 64 * LANES;

/// `Σ (w - s q)²`, `Σ (w - s q) q` and `Σ q²` for the codes `q`, which are `w / s` rounded and no less than `lowest`,
/// no more than `highest`: integers of magnitudes below 2^22.
///
/// Multiplies by the reciprocal and fuses nothing: the same bits on every machine.
pub fn rounding_moments(weights: &[f32], scale: f32, lowest: f32, highest: f32) -> [f64; 3] {
    moments(weights, scale, lowest, highest)
}

dispatch!(moments = moments_body(weights: &[f32], scale: f32, lowest: f32, highest: f32) -> [f64; 3]);

#[inline(always)]
fn moments_body<S: Simd>(weights: &[f32], scale: f32, lowest: f32, highest: f32) -> [f64; 3] {
    let reciprocal = 1.0 / scale;
    let mut totals = [0f64; 3];
    for block in weights.chunks(BLOCK) {
        let (mut error, mut along, mut square) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let q = round((chunk[i] * reciprocal).clamp(lowest, highest));
                let miss = chunk[i] - scale * q;
                error[i] += miss * miss;
                along[i] += miss * q;
                square[i] += q * q;
            }
        }
        for (i, &w) in rest.iter().enumerate() {
            let q = round((w * reciprocal).clamp(lowest, highest));
            let miss = w - scale * q;
            error[i] += miss * miss;
            along[i] += miss * q;
            square[i] += q * q;
        }
        for (total, sums) in totals.iter_mut().zip([error, along, square]) {
            *total += sums.iter().map(|&sum| f64::from(sum)).sum::<f64>();
        }
    }
    totals
}

/// Ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no room for a fraction. Clamping to integers may
/// come before rounding, which bounds the magnitude.
#[inline(always)]
fn round(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}
