//! Each slice kernel against a twin in `f64` made of obvious loops, on random shapes; each backward pass against
//! central differences of the forward twin.

mod adamw;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod fake_quantize;
mod gelu;
mod layer_norm;
mod linear;
mod reduce;
mod threads;

use lapidary_kernels::rng::Stream;

/// Standard normal numbers.
fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| stream.normal()).collect()
}

fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Every element of `actual` is within `tolerance` of `expected`, relative to the larger of 1 and the expectation.
#[track_caller]
fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(actual) - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}] is {actual}, not {expected}: error {error:e}");
    }
}

/// The gradient at `x` of `Σ dy f(x)` by central differences in `f64`.
fn difference(x: &[f32], dy: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = to_f64(x);
    let objective = |x: &[f64]| -> f64 { f(x).iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum() };
    let mut gradient = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let at = x[i];
        x[i] = at + STEP;
        let above = objective(&x);
        x[i] = at - STEP;
        let below = objective(&x);
        x[i] = at;
        gradient.push((above - below) / (2.0 * STEP));
    }
    gradient
}
