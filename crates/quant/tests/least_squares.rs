//! The search for the grid of least squared error, against the true optimum and at its limits.

use approx::assert_relative_eq;
use lapidary_quant::{Method, find_ranges};

use crate::support::{errors, normal, one_error, one_group};

/// The least squared error over all zeros and all scales, exactly.
///
/// For a fixed zero the codes change only at the scales `|w| / (k + 1/2)`; between two of those they are constant and
/// the best scale is `<w, q> / <q, q>`, whose error is `<w, w> - <w, q>^2 / <q, q>` (at another scale the codes may be
/// worse than nearest, so the minimum over all intervals is not below the optimum).
fn optimum(w: &[f32], bits: u32) -> f64 {
    let steps = (1i32 << bits) - 1;
    let mut turns: Vec<f64> = w
        .iter()
        .filter(|w| **w != 0.0)
        .flat_map(|w| (0..=steps).map(move |k| f64::from(w.abs()) / (f64::from(k) + 0.5)))
        .collect();
    turns.sort_by(f64::total_cmp);
    let total: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum();
    let mut least = total;
    for zero in 0..=steps {
        for pair in turns.windows(2) {
            let scale = 0.5 * (pair[0] + pair[1]);
            let (mut along, mut square) = (0.0, 0.0);
            for w in w {
                let w = f64::from(*w);
                let q = (w / scale).round().clamp(f64::from(-zero), f64::from(steps - zero));
                along += w * q;
                square += q * q;
            }
            if square > 0.0 && along > 0.0 {
                least = least.min(total - along * along / square);
            }
        }
    }
    least
}

#[test]
fn close_to_the_true_optimum_of_tiny_groups() {
    for bits in [2, 3, 4] {
        let (mut found, mut best) = (0.0, 0.0);
        for seed in 0..60 {
            let w = normal(8 + seed as usize % 17, seed);
            let (error, least) = (one_error(&w, bits, Method::LeastSquares), optimum(&w, bits));
            assert!(error >= least * (1.0 - 1e-4), "{bits} bits, seed {seed}: {error} below the optimum {least}");
            found += error;
            best += least;
        }
        assert!(found < 1.10 * best, "{bits} bits: {} of the optimum", found / best);
    }
}

#[test]
fn matches_the_best_steps_of_the_normal_distribution() {
    // Least mean squared errors of the uniform quantizer with a level at 0 and 2^bits levels lie a little above
    // Max's (1960) for 2^bits levels placed freely: 0.1188, 0.03744, 0.01154, 0.00349, 0.00104.
    let w = normal(1 << 16, 5);
    for (bits, max) in [(2, 0.1188), (3, 0.03744), (4, 0.01154), (5, 0.00349), (6, 0.00104)] {
        let error = one_error(&w, bits, Method::LeastSquares) / w.len() as f64;
        let slack = 1.0 + 3.0 / f64::from(1u32 << bits);
        assert!((0.97 * max..slack * max).contains(&error), "{bits} bits: {error} against {max}");
    }
}

#[test]
fn never_worse_than_the_whole_range() {
    for seed in 0..20 {
        let w: Vec<f32> = normal(600, seed).iter().map(|w| w * w * w + 0.3).collect();
        for bits in 2..=8 {
            let [fitted, whole] = [Method::LeastSquares, Method::MinMax]
                .map(|method| errors(&w, 20, 30, &find_ranges(&w, 20, 30, 7, bits, method).unwrap(), bits));
            for (fitted, whole) in fitted.iter().zip(whole) {
                assert!(*fitted <= whole * (1.0 + 1e-4), "{bits} bits: {fitted} {whole}");
            }
        }
    }
}

/// MiniLM's FFN output matrices hold weights 170 standard deviations out: 4,608 weights make a group.
#[test]
fn one_giant_weight() {
    for sign in [1.0, -1.0] {
        let mut w = normal(4608, 8);
        w[1000] = 170.0 * sign;
        // Clipping the giant costs more than all the rest is worth, so it stays, and the rest becomes about zero.
        let error = one_error(&w, 4, Method::LeastSquares);
        let rest: f64 = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() - 170f64.powi(2);
        assert!(error <= 1.001 * rest, "{error} {rest}");
        assert!(one_error(&w, 4, Method::LeastSquares) <= one_error(&w, 4, Method::MinMax) * (1.0 + 1e-6));

        // In a group of 100,000 it is the other way round: the giant goes.
        let mut w = normal(100_000, 9);
        w[1000] = 170.0 * sign;
        let (scale, _) = one_group(&w, 4, Method::LeastSquares);
        assert!((0.2..0.6).contains(&scale), "{scale}");
        let error = one_error(&w, 4, Method::LeastSquares);
        let clipped = 0.0116 * 1e5 + 168f64.powi(2);
        assert!(error < 1.02 * clipped, "{error} {clipped}");
    }
}

#[test]
fn exact_grids_are_found() {
    // Two values, symmetric: one scale apart from 0 even with the fewest bits.
    let (scale, _) = one_group(&[-1.0, 1.0, 1.0, -1.0], 2, Method::LeastSquares);
    assert_relative_eq!(scale, 1.0, max_relative = 1e-6);
    // A grid with its zero anywhere.
    for zero in 0..=7 {
        let w: Vec<f32> = (0..=7).map(|code| 0.3 * (code - zero) as f32).collect();
        let (scale, found) = one_group(&w, 3, Method::LeastSquares);
        assert_relative_eq!(scale, 0.3, max_relative = 1e-6);
        assert_eq!(found, zero as f32);
    }
}

#[test]
fn sizes_of_any_order() {
    let w = normal(512, 3);
    let (scale, zero) = one_group(&w, 4, Method::LeastSquares);
    for factor in [1e-30f32, 1e-10, 1e10, 1e30] {
        let scaled: Vec<f32> = w.iter().map(|w| w * factor).collect();
        let (found, same_zero) = one_group(&scaled, 4, Method::LeastSquares);
        assert_relative_eq!(found / factor, scale, max_relative = 1e-4);
        assert_eq!(same_zero, zero);
    }
    // Subnormal weights have no digits left to fit; whatever comes is a usable grid.
    let (scale, _) = one_group(&[1e-42, -3e-45, 2e-41], 4, Method::LeastSquares);
    assert!(scale.is_normal());
}
