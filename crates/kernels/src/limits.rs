//! What the machine can do at most, measured: what kernels are held against.

use crate::math::sum;
use crate::simd::{LANES, Simd, dispatch};
use crate::team::{Ahead, Team, part};

/// Accumulators in flight: enough for two multipliers of four cycles each, in half of the registers.
const CHAINS: usize = 6;

/// Multiplications and additions of every thread in registers alone: `rounds` for each of `6 * 16` chains.
///
/// Returns how many floating-point operations that was.
pub fn multiply_add(rounds: usize) -> f64 {
    let threads = rayon::current_num_threads();
    let sums: Vec<f32> = rayon::broadcast(|_| chains(rounds));
    std::hint::black_box(sums);
    (2 * LANES * CHAINS * rounds * threads) as f64
}

dispatch!(chains = chains_body(rounds: usize) -> f32);

#[inline(always)]
fn chains_body<S: Simd>(rounds: usize) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: `dispatch` instantiates this for a set that the processor has.
    unsafe {
        let (factor, term) = (S::splat(std::hint::black_box(0.999_9)), S::splat(std::hint::black_box(1e-3)));
        let mut chains = [term; CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = S::mul_add(*chain, factor, term);
            }
        }
        for chain in chains {
            let mut these = [0.0; LANES];
            S::store(chain, &mut these);
            for (lane, x) in lanes.iter_mut().zip(these) {
                *lane += x;
            }
        }
    }
    sum(&lanes)
}

/// Reads `x` once, each thread of the team an equal part of it, in several places at once: the processor reads ahead in
/// each, and all of them together come faster than one.
pub fn read(x: &[f32], team: &mut Team) -> f32 {
    let mut totals = vec![0.0; team.size()];
    let size = team.size();
    team.split(
        &mut totals,
        1,
        |_| Ahead::NOTHING,
        |range, totals| {
            for (index, sum) in range.zip(totals) {
                *sum = total(&x[part(x.len(), LANES, index, size)]);
            }
        },
    );
    totals.iter().sum()
}

dispatch!(total = total_body(x: &[f32]) -> f32);

#[inline(always)]
fn total_body<S: Simd>(x: &[f32]) -> f32 {
    const PLACES: usize = 6;
    let (lines, rest) = x.as_chunks::<LANES>();
    let each = lines.len() / PLACES;
    let places: [_; PLACES] = std::array::from_fn(|place| &lines[place * each..][..each]);
    let mut sums = [[0.0; LANES]; PLACES];
    for line in 0..each {
        for (sum, place) in sums.iter_mut().zip(places) {
            for (sum, x) in sum.iter_mut().zip(&place[line]) {
                *sum += x;
            }
        }
    }
    let left: f32 = lines[PLACES * each..].iter().map(|line| sum(line)).sum();
    sums.iter().map(|lanes| sum(lanes)).sum::<f32>() + left + sum(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::team::with_team;

    #[test]
    fn all_is_read() {
        for n in [0, 1, 63, 64, 1000] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            for threads in [1, 2, 3] {
                with_team(threads, |team| assert_eq!(read(&x, team), x.iter().sum::<f32>()));
            }
        }
        assert_eq!(multiply_add(10), (2 * 16 * 6 * 10 * rayon::current_num_threads()) as f64);
    }
}
