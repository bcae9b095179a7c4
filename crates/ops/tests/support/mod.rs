//! Random inputs and comparisons.

use lapidary_kernels::rng::Stream;

/// Standard normal numbers.
pub fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| stream.normal()).collect()
}

/// Every element of `actual` is within `tolerance` of `expected`, relative to the larger of 1 and the expectation.
#[track_caller]
pub fn assert_close<A, E>(actual: &[A], expected: &[E], tolerance: f64, what: &str)
where
    A: Copy + Into<f64>,
    E: Copy + Into<f64>,
{
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (&actual, &expected)) in actual.iter().zip(expected).enumerate() {
        let (actual, expected): (f64, f64) = (actual.into(), expected.into());
        let error = (actual - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}] is {actual}, not {expected}: error {error:e}");
    }
}
