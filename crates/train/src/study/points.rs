//! Places to try in a space of settings.

use lapidary_kernels::rng::Stream;

/// `count` points of the unit cube that fill it evenly: Halton's sequence, moved by a draw of the seed and wrapped around
/// (quasi-random search, as the tuning playbook of Godbole et al. recommends it).
pub fn evenly(count: usize, dimensions: usize, seed: u64) -> Vec<Vec<f64>> {
    const BASES: [usize; 8] = [2, 3, 5, 7, 11, 13, 17, 19];
    assert!(dimensions <= BASES.len(), "{dimensions} settings to search");
    let mut stream = Stream::new(seed, 0);
    let moved: Vec<f64> = (0..dimensions).map(|_| f64::from(stream.uniform())).collect();
    let point = |index: usize| {
        let place = |(moved, base): (&f64, &usize)| (radical_inverse(index, *base) + moved).fract();
        moved.iter().zip(&BASES).map(place).collect()
    };
    (0..count).map(point).collect()
}

/// The digits of a number in a base, mirrored at the point.
fn radical_inverse(mut number: usize, base: usize) -> f64 {
    let (mut inverse, mut digit) = (0.0, 1.0 / base as f64);
    while number > 0 {
        inverse += (number % base) as f64 * digit;
        number /= base;
        digit /= base as f64;
    }
    inverse
}

/// A grid of `side` points along each axis, both ends included; of one point the middle.
pub fn grid(side: usize, dimensions: usize) -> Vec<Vec<f64>> {
    let share = |place: usize| if side == 1 { 0.5 } else { place as f64 / (side - 1) as f64 };
    let all = side.pow(dimensions as u32);
    (0..all).map(|i| (0..dimensions).map(|axis| share(i / side.pow(axis as u32) % side)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `base^k` points each `base^k`-th part of the axis has one, wherever the sequence was moved to.
    #[test]
    fn each_axis_is_filled_without_gaps() {
        for (axis, count) in [(0, 64), (1, 81), (2, 25)] {
            let mut places: Vec<f64> = evenly(count, 3, 3).iter().map(|point| point[axis]).collect();
            places.sort_by(f64::total_cmp);
            let around = places[0] + 1.0 - places[count - 1];
            let gaps = places.windows(2).map(|pair| pair[1] - pair[0]).chain([around]);
            gaps.for_each(|gap| assert!((gap - 1.0 / count as f64).abs() < 1e-9, "axis {axis}: a gap of {gap}"));
        }
        // Both together: no quarter of the square has less than half of its share of points.
        let quarters = evenly(64, 2, 3).iter().fold([0; 4], |mut quarters, point| {
            quarters[usize::from(point[0] < 0.5) * 2 + usize::from(point[1] < 0.5)] += 1;
            quarters
        });
        assert!(quarters.iter().all(|count| *count >= 8), "{quarters:?}");
        assert_eq!(evenly(8, 2, 3)[..], evenly(64, 2, 3)[..8]);
        assert_ne!(evenly(8, 2, 4), evenly(8, 2, 3));
    }

    #[test]
    fn a_grid_has_its_ends() {
        assert_eq!(grid(3, 1), [[0.0], [0.5], [1.0]]);
        assert_eq!(grid(2, 2), [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        assert_eq!(grid(1, 2), [[0.5, 0.5]]);
    }
}
