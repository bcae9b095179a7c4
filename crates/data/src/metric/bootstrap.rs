//! Confidence intervals of any score that is a function of sums over rows, by the percentile bootstrap (Efron 1979,
//! "Bootstrap methods: another look at the jackknife", Ann. Statist. 7; Efron and Tibshirani 1993, section 13.3).

use lapidary_kernels::rng::Stream;
use rayon::prelude::*;

pub use super::accuracy::Interval;

/// How often the rows are drawn anew.
pub const RESAMPLES: u64 = 1000;

/// The place of these draws among all of a step's.
const PLACE: u64 = u64::from_be_bytes(*b"resample");

/// The 2.5 % and 97.5 % quantiles of some scores over [`RESAMPLES`] draws of as many rows as there are, with
/// replacement. `rows` has the summands of each row, and `scores` makes the scores of their sums. Between two draws a
/// quantile is interpolated linearly, as NumPy does by default.
///
/// The same seed gives the same intervals, on any number of threads. There is at least one row, and no score is NaN.
pub fn intervals<const SUMS: usize, const SCORES: usize>(
    rows: &[[f64; SUMS]],
    seed: u64,
    scores: impl Fn([f64; SUMS]) -> [f64; SCORES] + Sync,
) -> [Interval; SCORES] {
    let draw = |resample: u64| {
        let mut stream = Stream::at_place(seed, resample, PLACE);
        let mut sums = [0.0; SUMS];
        for _ in 0..rows.len() {
            let row = &rows[stream.below(rows.len())];
            sums.iter_mut().zip(row).for_each(|(sum, summand)| *sum += summand);
        }
        scores(sums)
    };
    let drawn: Vec<[f64; SCORES]> = (0..RESAMPLES).into_par_iter().map(draw).collect();
    std::array::from_fn(|score| {
        let mut values: Vec<f64> = drawn.iter().map(|scores| scores[score]).collect();
        values.sort_by(f64::total_cmp);
        Interval { low: quantile(&values, 0.025), high: quantile(&values, 0.975) }
    })
}

/// A quantile of sorted values, of which there is one at least.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        let sorted = [1.0, 2.0, 4.0, 8.0, 16.0];
        assert_eq!([0.0, 0.25, 0.3, 1.0].map(|q| quantile(&sorted, q)), [1.0, 2.0, 2.4, 16.0]);
        assert_eq!(quantile(&[3.0], 0.975), 3.0);
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_normal_distribution() {
        // 400 rows of 0 and 1, half of each: a standard error of 0.5 / sqrt(400) = 0.025.
        let rows: Vec<[f64; 1]> = (0..400).map(|row| [f64::from(row % 2)]).collect();
        let mean = |[sum]: [f64; 1]| [sum / 400.0, 7.0];
        let [interval, constant] = intervals(&rows, 3, mean);
        assert!((interval.low - 0.451).abs() < 0.006 && (interval.high - 0.549).abs() < 0.006, "{interval:?}");
        assert_eq!((constant.low, constant.high), (7.0, 7.0));
        assert_eq!(intervals(&rows, 3, mean)[0], interval);
        assert_ne!(intervals(&rows, 4, mean)[0], interval);
    }
}
