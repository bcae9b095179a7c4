//! How noisy the gradient is: McCandlish et al., "An empirical model of large-batch training" (1812.06162), appendix A.1.
//!
//! A gradient over `B` targets has the mean square `|G|² + tr Σ / B`, with `G` the gradient over all data and `Σ` the
//! covariance of one target's. Its squares at two sizes of batch, that of a micro-batch and that of a step, give both. The
//! simple noise scale `tr Σ / |G|²` is the size of batch at which noise and gradient weigh the same: much smaller ones gain
//! in proportion from growing, much larger ones hardly.

use serde::{Deserialize, Serialize};

/// What one step says of both: each estimate by itself may be negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSample {
    /// Of `|G|²`.
    pub gradient: f64,
    /// Of `tr Σ`.
    pub noise: f64,
}

impl NoiseSample {
    /// From a step over `targets` in `parts` micro-batches of nearly the same size, two at least: `of_parts` is the sum of
    /// the squares of their gradients, each a share of the mean over the step, and `of_all` the square of the sum.
    pub fn new(of_parts: f64, of_all: f64, parts: u64, targets: f64) -> Self {
        let n = parts as f64;
        let (small, big) = (targets / n, targets);
        // The mean square of a micro-batch's own mean: its share is an n-th of it.
        let of_small = of_parts * n;
        Self {
            gradient: (big * of_all - small * of_small) / (big - small),
            noise: (of_small - of_all) / (1.0 / small - 1.0 / big),
        }
    }
}

/// Averages over the steps, of either by itself: the ratio of two noisy numbers is no estimate of the ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NoiseScale {
    gradient: f64,
    noise: f64,
    /// Sum of the weights that are in them.
    weight: f64,
}

/// Weight of all steps before against 1 of a new one.
const DECAY: f64 = 0.99;

impl NoiseScale {
    /// With one step more.
    pub fn with(self, sample: NoiseSample) -> Self {
        let weight = DECAY * self.weight + 1.0;
        let mix = |old: f64, new: f64| old + (new - old) / weight;
        Self { gradient: mix(self.gradient, sample.gradient), noise: mix(self.noise, sample.noise), weight }
    }

    /// `tr Σ / |G|²`, in targets; `None` before the first step and where an average is not positive.
    pub fn scale(self) -> Option<f64> {
        (self.gradient > 0.0 && self.noise > 0.0).then(|| self.noise / self.gradient)
    }
}

#[cfg(test)]
mod tests {
    use lapidary_kernels::rng::Stream;

    use super::*;

    /// Gradients of known mean and covariance.
    #[test]
    fn it_is_that_of_a_known_distribution() {
        const DIM: usize = 8;
        let (mean, deviation) = (0.3, 2.0);
        let (parts, each) = (4usize, 16usize);
        let mut stream = Stream::new(1, 0);
        let mut scale = NoiseScale::default();
        for _ in 0..4_000 {
            let mut shares = vec![[0.0f64; DIM]; parts];
            for share in &mut shares {
                for _ in 0..each {
                    share.iter_mut().for_each(|g| {
                        *g += (mean + deviation * f64::from(stream.normal())) / (parts * each) as f64;
                    });
                }
            }
            let square = |g: &[f64; DIM]| g.iter().map(|g| g * g).sum::<f64>();
            let all: [f64; DIM] = std::array::from_fn(|i| shares.iter().map(|share| share[i]).sum());
            let of_parts = shares.iter().map(square).sum();
            scale = scale.with(NoiseSample::new(of_parts, square(&all), parts as u64, (parts * each) as f64));
        }
        // tr Σ = 8 · 4, |G|² = 8 · 0.09.
        let found = scale.scale().unwrap();
        assert!((found / (4.0 / 0.09) - 1.0).abs() < 0.25, "{found}");
        assert_eq!(NoiseScale::default().scale(), None);
    }
}
