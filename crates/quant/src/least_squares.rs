//! The grid of least squared error for one group: minimise `E(s, z) = sum (w - s q)^2` over scales `s` and zeros `z`,
//! where `q = clamp(round(w / s), -z, steps - z)` and `steps = 2^bits - 1`.
//!
//! Three facts carry the search:
//!
//! - For a fixed scale, `E` is convex in the zero. The grid lies on multiples of `s` whatever `z` is; moving `z` by
//!   one moves only the two ends that weights are clipped to, and what each weight loses is convex in its end. So the
//!   best zero is found by going downhill.
//! - For fixed codes, the best scale is `<w, q> / <q, q>`. Alternating the two descends to a local minimum.
//! - Weights inside the ends are off by at most `s / 2`, so clipping alone costs at least `E - n s^2 / 4` at the best
//!   zero, and at smaller scales it costs no less. Once that exceeds the best error seen, no smaller scale can win.
//!
//! So scales are tried on a geometric ladder, downwards, until the third fact ends it; the best few are refined by the
//! second. With a single weight far out the ladder goes on until clipping that weight has been weighed against
//! rounding all others to zero.

use lapidary_kernels::moments::rounding_moments;

use crate::quantizer::{Grid, span};

/// Scales tried per octave.
const PER_OCTAVE: f64 = 8.0;
/// A ladder never gets this far: 60 octaves below the range, every weight is clipped.
const LONGEST_LADDER: usize = 480;
/// How many of the scales tried are refined.
const REFINED: usize = 3;
/// Refinements of one scale; most stop by themselves after four or five.
const REFINEMENTS: usize = 12;

/// The best grid found for finite `weights`; never one of greater error than [`Grid::min_max`]. `scaled` is working
/// memory.
pub(crate) fn fit(weights: &[f32], bits: u32, scaled: &mut Vec<f32>) -> Grid {
    let min_max = Grid::min_max(weights, bits);
    let (least, greatest) = span(weights);
    let size = f64::from(greatest.max(-least));
    if size < f64::from(f32::MIN_POSITIVE) {
        return min_max;
    }
    // Relative to the largest weight, so that no square overflows or vanishes.
    scaled.clear();
    scaled.extend(weights.iter().map(|&w| (f64::from(w) / size) as f32));
    let group = Group { weights: scaled, steps: (1 << bits) - 1 };

    let whole = (f64::from(greatest) - f64::from(least)) / size;
    let mut best = group.climb_down(whole, min_max.zero);
    for candidate in &mut best {
        *candidate = group.refine(*candidate);
    }
    // Compared with the scale as it is kept, rounded to f32.
    let grid = |c: &Candidate| Grid { scale: ((c.scale * size) as f32).max(f32::MIN_POSITIVE), zero: c.zero };
    let error = |grid: &Grid| group.at(f64::from(grid.scale) / size, grid.zero).error;
    best.iter()
        .map(grid)
        .fold((error(&min_max), min_max), |(least, kept), grid| {
            let error = error(&grid);
            if error < least { (error, grid) } else { (least, kept) }
        })
        .1
}

struct Group<'a> {
    /// The largest in magnitude is 1.
    weights: &'a [f32],
    steps: i32,
}

#[derive(Clone, Copy)]
struct Candidate {
    scale: f64,
    zero: i32,
    /// `sum (w - s q)^2`
    error: f64,
    /// The scale that is best for this one's codes.
    better_scale: f64,
}

impl Group<'_> {
    fn at(&self, scale: f64, zero: i32) -> Candidate {
        let [error, along, square] =
            rounding_moments(self.weights, scale as f32, -zero as f32, (self.steps - zero) as f32);
        // <w, q> / <q, q> = s + <w - s q, q> / <q, q>, which keeps its digits where the error is small.
        let better_scale = if square > 0.0 { scale + along / square } else { scale };
        Candidate { scale, zero, error, better_scale }
    }

    /// The best zero for `scale`, going downhill from `zero` with strides that double.
    fn best_zero(&self, scale: f64, zero: i32) -> Candidate {
        let mut best = self.at(scale, zero.clamp(0, self.steps));
        for direction in [1, -1] {
            let mut stride = 1;
            while stride > 0 {
                let zero = (best.zero + direction * stride).clamp(0, self.steps);
                let next = if zero == best.zero { best } else { self.at(scale, zero) };
                if next.error < best.error {
                    best = next;
                    stride *= 2;
                } else {
                    stride /= 2;
                }
            }
        }
        best
    }

    /// The best few scales of the ladder, best first. `whole` is the width of the range, `zero` its zero.
    fn climb_down(&self, whole: f64, zero: i32) -> Vec<Candidate> {
        // Of `steps` grid points besides 0, one may lie outside the range. The best scale for any codes is a mean of
        // |w| / |q|, so it is at most 1.
        let first = (whole / f64::from(self.steps - 1)).min(1.0);
        let mut best: Vec<Candidate> = Vec::with_capacity(REFINED + 1);
        let mut zero = zero;
        for rung in 0..LONGEST_LADDER {
            let scale = first * (-(rung as f64) / PER_OCTAVE).exp2();
            let candidate = self.best_zero(scale, zero);
            zero = candidate.zero;
            let place = best.partition_point(|other| other.error <= candidate.error);
            best.insert(place, candidate);
            best.truncate(REFINED);
            let clipping = candidate.error - self.weights.len() as f64 * scale * scale / 4.0;
            if clipping > best[0].error {
                break;
            }
        }
        best
    }

    /// Alternates codes and scale until the error stands still.
    fn refine(&self, mut best: Candidate) -> Candidate {
        for _ in 0..REFINEMENTS {
            let next = self.best_zero(best.better_scale, best.zero);
            if next.error >= best.error * (1.0 - 1e-5) {
                return if next.error < best.error { next } else { best };
            }
            best = next;
        }
        best
    }
}
