//! Dropout (Srivastava et al., 2014) whose choices are a function of seed, step, place and element, so nothing is kept
//! for the backward pass.

use crate::chunks::{ELEMENTS, for_each_chunk};
use crate::rng;
use crate::simd::{Simd, dispatch};

/// `y = x / (1 - p)` with probability `1 - p`, else 0. Applied to `dy` it gives `dx`.
///
/// `p` is the probability in [0, 1] of dropping an element; `place` tells the dropouts of one step apart.
pub fn dropout(x: &[f32], p: f32, seed: u64, step: u64, place: u64, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output per input");
    // Dropped are the 32-bit draws below this.
    let threshold = (f64::from(p.clamp(0.0, 1.0)) * (1u64 << 32) as f64) as u64;
    if threshold == 0 {
        return y.copy_from_slice(x);
    }
    if threshold == 1 << 32 {
        return y.fill(0.0);
    }
    let key = rng::bits(seed, step, place);
    for_each_chunk(y, ELEMENTS, |start, y| {
        choose(&x[start..start + y.len()], key, start, threshold as u32, 1.0 / (1.0 - p), y);
    });
}

dispatch!(choose = choose_body(x: &[f32], key: u64, start: usize, threshold: u32, scale: f32, y: &mut [f32]));

/// Counters whose words are drawn at a time. Element `256 g + 64 w + i` has word `w` of counter `64 g + i`, so that
/// both loops run over neighbours.
const COUNTERS: usize = 64;

/// `start` is a multiple of [`ELEMENTS`] and so of `4 * COUNTERS`.
#[inline(always)]
fn choose_body<S: Simd>(x: &[f32], key: u64, start: usize, threshold: u32, scale: f32, y: &mut [f32]) {
    let mut words = [[0; COUNTERS]; 4];
    let mut counter = (start / 4) as u64;
    for (y, x) in y.chunks_mut(4 * COUNTERS).zip(x.chunks(4 * COUNTERS)) {
        // The counters of a group share their upper half: they start at a multiple of 64.
        let (low, high) = (counter as u32, (counter >> 32) as u32);
        // By index, since four arrays are written at a time.
        #[allow(clippy::needless_range_loop)]
        for i in 0..COUNTERS {
            let drawn = rng::philox([low + i as u32, high, 0, 0], key);
            for word in 0..4 {
                words[word][i] = drawn[word];
            }
        }
        for ((y, x), word) in y.iter_mut().zip(x).zip(words.as_flattened()) {
            *y = if *word >= threshold { x * scale } else { 0.0 };
        }
        counter += COUNTERS as u64;
    }
}
