//! Dot products and norms of `f32` vectors, accumulated in `f64`.
//!
//! The order of summation is fixed (eight interleaved partial sums, then the lanes in order), so the same vectors give
//! the same bits on every machine. A product of two `f32` is exact in `f64`, and no sum of squares can overflow.

use lapidary_kernels::rng::Stream;

const LANES: usize = 8;

/// Sum over i of `term(a[i], b[i])`, in the fixed order. Vectorises: the lanes are independent.
#[inline(always)]
fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let mut lanes = [0f64; LANES];
    let (mut a_chunks, mut b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut a_chunks).zip(&mut b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    for (lane, (&a, &b)) in a_chunks.remainder().iter().zip(b_chunks.remainder()).enumerate() {
        lanes[lane] += term(f64::from(a), f64::from(b));
    }
    lanes.iter().sum()
}

/// `<a, b>`; the slices have the same length.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum_pairs(a, b, |a, b| a * b)
}

/// Euclidean norm.
pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// `||a - factor b||`, without forming the difference.
pub(crate) fn distance(a: &[f32], factor: f64, b: &[f32]) -> f64 {
    sum_pairs(a, b, |a, b| (a - factor * b) * (a - factor * b)).sqrt()
}

/// `out = factor x`, rounded once.
pub(crate) fn scale_into(x: &[f32], factor: f64, out: &mut [f32]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (f64::from(x) * factor) as f32;
    }
}

/// A direction drawn uniformly from the sphere.
pub(crate) fn random_unit(dim: usize, stream: &mut Stream) -> Vec<f32> {
    let normal: Vec<f32> = (0..dim).map(|_| stream.normal()).collect();
    let length = norm(&normal);
    let mut unit = vec![0.0; dim];
    if length > 0.0 {
        scale_into(&normal, 1.0 / length, &mut unit);
    } else if let Some(first) = unit.first_mut() {
        // Every draw was 0: possible, if only in few dimensions, and a zero start would report a zero eigenvalue.
        *first = 1.0;
    }
    unit
}

/// Entries of 1 and -1, each as likely.
pub(crate) fn fill_signs(signs: &mut [f32], stream: &mut Stream) {
    for signs in signs.chunks_mut(64) {
        let bits = stream.next_u64();
        for (place, sign) in signs.iter_mut().enumerate() {
            *sign = if bits >> place & 1 == 1 { 1.0 } else { -1.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_plain_sum_at_every_remainder() {
        for n in 0..40usize {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 1.3).cos()).collect();
            let plain: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            approx::assert_abs_diff_eq!(dot(&a, &b), plain, epsilon = 1e-12);
            let plain: f64 = a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - 0.5 * f64::from(b)).powi(2)).sum();
            approx::assert_abs_diff_eq!(distance(&a, 0.5, &b), plain.sqrt(), epsilon = 1e-12);
        }
    }

    #[test]
    fn large_entries_do_not_overflow() {
        approx::assert_relative_eq!(norm(&[3e38, 3e38]), 3e38 * 2f64.sqrt(), max_relative = 1e-6);
    }
}
