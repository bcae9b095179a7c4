//! Elementary functions and reductions that vectorise.
//!
//! They are inlined into functions compiled for the instruction set `S`.

use crate::simd::{LANES, Simd};

/// `a * b + c`.
#[inline(always)]
pub(crate) fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `coefficients[0] + coefficients[1] x + ...` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut y = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        y = mul_add::<S>(y, x, coefficients[i]);
    }
    y
}

/// `exp(x)` to about 1e-7 relative; 0 for `x` below -87, where the result would be subnormal, and `exp(88)` above 88.
///
/// Cephes' `expf`: `x = n ln 2 + r` and a polynomial in `|r| <= ln 2 / 2`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits of the sum: no conversion is needed.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of few bits, so that n times it is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let below = x < -87.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = mul_add::<S>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<S>(n, -LN2_LOW, mul_add::<S>(n, -LN2_HIGH, x));
    let p = polynomial::<S, 6>(r, [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4]);
    let y = mul_add::<S>(p, r * r, r) + 1.0;
    let power_of_two = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if below { 0.0 } else { y * power_of_two }
}

/// `tanh(x)` to about 1e-7 relative.
///
/// Cephes' `tanhf`: a polynomial below 0.625, where `1 - 2 / (exp(2 x) + 1)` would cancel, and that above.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(x: f32) -> f32 {
    let a = x.abs();
    let square = x * x;
    let p = polynomial::<S, 5>(square, [-3.333_328e-1, 1.333_144_2e-1, -5.373_971_6e-2, 2.063_909e-2, -5.704_988_7e-3]);
    let small = mul_add::<S>(p * square, x, x);
    let large = (1.0 - 2.0 / (exp::<S>(2.0 * a) + 1.0)).copysign(x);
    if a < 0.625 { small } else { large }
}

/// `x = cap tanh(x / cap)` in place.
#[inline(always)]
pub(crate) fn soft_cap<S: Simd>(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    x.iter_mut().for_each(|x| *x = cap * tanh::<S>(*x * inverse));
}

/// `x = exp(x - shift)` in place, and the sum.
#[inline(always)]
pub(crate) fn exponentials<S: Simd>(x: &mut [f32], shift: f32) -> f32 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (x, sum) in chunk.iter_mut().zip(&mut sums) {
            *x = exp::<S>(*x - shift);
            *sum += *x;
        }
    }
    for (x, sum) in rest.iter_mut().zip(&mut sums) {
        *x = exp::<S>(*x - shift);
        *sum += *x;
    }
    fold(sums, |a, b| a + b)
}

/// `Σ exp(x - shift)`.
#[inline(always)]
pub(crate) fn sum_of_exponentials<S: Simd>(x: &[f32], shift: f32) -> f32 {
    fold(lanes(x, 0.0, |sum, x| sum + exp::<S>(x - shift)), |a, b| a + b)
}

/// The standard normal's cumulative distribution and density at `x`, `(1 + erf(x / sqrt 2)) / 2` and
/// `exp(-x^2 / 2) / sqrt(2 pi)`, to about 1e-7.
///
/// The tail is `exp(-a^2 / 2) t P(t)` with `t = 1 / (1 + 0.29 a)`, the form of Abramowitz and Stegun 7.1.26. `P` has
/// degree 7, fitted by weighted least squares (Lawson's minimax iteration) on 0 <= a <= 14: error of the fit 5e-9.
#[inline(always)]
pub(crate) fn normal<S: Simd>(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    let a = x.abs();
    let t = 1.0 / mul_add::<S>(a, 0.29, 1.0);
    let bell = exp::<S>(-0.5 * a * a);
    let p = polynomial::<S, 8>(t, TAIL);
    let tail = bell * t * p;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell * INVERSE_SQRT_TAU)
}

const TAIL: [f32; 8] =
    [0.115_439_73, 0.119_567_05, 0.080_609_225, 0.179_006_49, -0.144_058_57, 0.301_683_16, -0.191_407_1, 0.039_160_013];

/// Lanes to one number, always in the same tree.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// `f` applied element after element to a lane each: the shape of every reduction here.
#[inline(always)]
fn lanes(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, *x);
    }
    lanes
}

#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    fold(lanes(x, 0.0, |sum, x| sum + x), |a, b| a + b)
}

/// The sum of `(x - centre)^2`.
#[inline(always)]
pub(crate) fn sum_of_squared_deviations<S: Simd>(x: &[f32], centre: f32) -> f32 {
    fold(lanes(x, 0.0, |sum, x| mul_add::<S>(x - centre, x - centre, sum)), |a, b| a + b)
}

#[inline(always)]
pub(crate) fn dot<S: Simd>(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for i in 0..LANES {
            lanes[i] = mul_add::<S>(x[i], y[i], lanes[i]);
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *lane = mul_add::<S>(*x, *y, *lane);
    }
    fold(lanes, |a, b| a + b)
}

/// The largest element that is not NaN; minus infinity for none.
#[inline(always)]
pub(crate) fn max(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    fold(lanes(x, f32::NEG_INFINITY, larger), larger)
}

/// The smallest element that is not NaN; infinity for none.
#[inline(always)]
pub(crate) fn min(x: &[f32]) -> f32 {
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    fold(lanes(x, f32::INFINITY, smaller), smaller)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn exp_agrees_with_f64() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let expected = f64::from(x).exp();
            let y = exp::<Portable>(x);
            assert!((f64::from(y) / expected - 1.0).abs() < 2.5e-7, "exp({x}) = {y}, not {expected}");
        }
        assert_eq!(exp::<Portable>(0.0), 1.0);
        assert!(exp::<Portable>(f32::NAN).is_nan());
        assert_eq!((exp::<Portable>(f32::NEG_INFINITY), exp::<Portable>(-87.001)), (0.0, 0.0));
    }

    #[test]
    fn tanh_agrees_with_f64() {
        for i in -100_000..100_000 {
            let x = i as f32 / 6543.2;
            let (y, expected) = (tanh::<Portable>(x), f64::from(x).tanh());
            assert!((f64::from(y) - expected).abs() <= 2e-7 * expected.abs(), "tanh({x}) = {y}, not {expected}");
        }
        assert_eq!([f32::NEG_INFINITY, f32::INFINITY, 1e-30].map(tanh::<Portable>), [-1.0, 1.0, 1e-30]);
        assert!(tanh::<Portable>(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_take_every_length() {
        for n in 0..50 {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
            assert_eq!(sum(&x), x.iter().sum::<f32>());
            assert_eq!(dot::<Portable>(&x, &x), x.iter().map(|x| x * x).sum::<f32>());
            assert_eq!(dot::<Portable>(&x, &x), sum_of_squared_deviations::<Portable>(&x, 0.0));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(min(&x), x.iter().copied().fold(f32::INFINITY, f32::min));
        }
    }
}
