//! The one random generator of the product: counter-based, stateless, the same on every machine.
//!
//! A draw is a pure function of where it is used, so nothing has to be saved to take a run up again and no draw
//! depends on the number of threads. The n-th number under a key is the n-th output of SplitMix64 started from that
//! key (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), with Stafford's
//! "Mix13" finalizer; keys are split off the same way, seed, then step, then place. Where an operator needs a number
//! for each element, the numbers under its key are those of Philox, whose 32-bit arithmetic vectorises.

/// 2^64 divided by the golden ratio: the increment of SplitMix64.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The place that [`Stream::new`] draws from; operators number theirs upwards from 0.
const STREAM_PLACE: u64 = u64::MAX;

/// Stafford's variant 13 of the MurmurHash3 finalizer, a bijection of 64 bits.
#[inline(always)]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The `index`-th output of SplitMix64 from state `key`.
#[inline(always)]
pub(crate) fn draw(key: u64, index: u64) -> u64 {
    mix(key.wrapping_add(index.wrapping_add(1).wrapping_mul(GAMMA)))
}

/// 64 random bits that belong to (`seed`, `step`, `place`).
#[inline]
pub fn bits(seed: u64, step: u64, place: u64) -> u64 {
    draw(draw(draw(0, seed), step), place)
}

/// A uniform number in [0, 1) that belongs to (`seed`, `step`, `place`), a multiple of 2^-24.
#[inline]
pub fn uniform(seed: u64, step: u64, place: u64) -> f32 {
    unit(bits(seed, step, place))
}

/// The upper 24 bits as a number in [0, 1): every value is exact in `f32`.
#[inline(always)]
fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 * (1.0 / (1u64 << 24) as f32)
}

/// Philox4x32-7: four words for each counter under a key (Salmon et al., "Parallel random numbers: as easy as 1, 2,
/// 3", SC 2011, section 3.3; seven rounds are the fewest that pass their test batteries).
#[inline(always)]
pub(crate) fn philox(counter: [u32; 4], key: u64) -> [u32; 4] {
    philox_rounds::<7>(counter, key)
}

#[inline(always)]
fn philox_rounds<const ROUNDS: usize>([mut a, mut b, mut c, mut d]: [u32; 4], key: u64) -> [u32; 4] {
    let (mut key0, mut key1) = (key as u32, (key >> 32) as u32);
    for _ in 0..ROUNDS {
        let (first, second) = (u64::from(a) * 0xd251_1f53, u64::from(c) * 0xcd9e_8d57);
        (a, b, c, d) = ((second >> 32) as u32 ^ b ^ key0, second as u32, (first >> 32) as u32 ^ d ^ key1, first as u32);
        key0 = key0.wrapping_add(0x9e37_79b9);
        key1 = key1.wrapping_add(0xbb67_ae85);
    }
    [a, b, c, d]
}

/// Numbers drawn one after the other from one (seed, step).
///
/// `position` is all of its state: a stream taken up at a position goes on as if it had never stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
    position: u64,
}

impl Stream {
    pub fn new(seed: u64, step: u64) -> Self {
        Self::at_place(seed, step, STREAM_PLACE)
    }

    /// A stream of its own for a `place`, for several consumers within one step.
    pub fn at_place(seed: u64, step: u64, place: u64) -> Self {
        Self { key: bits(seed, step, place), position: 0 }
    }

    /// How many 64-bit numbers were drawn so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The same stream, about to draw number `position`.
    pub fn seek(self, position: u64) -> Self {
        Self { position, ..self }
    }

    pub fn next_u64(&mut self) -> u64 {
        let bits = draw(self.key, self.position);
        self.position = self.position.wrapping_add(1);
        bits
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub fn uniform(&mut self) -> f32 {
        unit(self.next_u64())
    }

    /// Uniform in `0..bound` without bias (Lemire, "Fast random integer generation in an interval", 2019);
    /// 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        // 2^64 mod bound: so many of the low halves would make some values likelier than others.
        let rejected = if bound == 0 { 0 } else { bound.wrapping_neg() % bound };
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= rejected {
                return (product >> 64) as usize;
            }
        }
    }

    /// Standard normal (Box and Muller, 1958). Each call takes two numbers of the stream.
    pub fn normal(&mut self) -> f32 {
        // Of 53 bits, and never 0, so that the logarithm is finite.
        let unit53 = |bits: u64| ((bits >> 11) + 1) as f64 * (1.0 / (1u64 << 53) as f64);
        let radius = (-2.0 * unit53(self.next_u64()).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit53(self.next_u64());
        (radius * angle.cos()) as f32
    }

    /// Puts `items` into a uniformly random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outputs_are_those_of_splitmix64() {
        // The published test vector of SplitMix64 for state 1234567.
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(draw(1234567, index as u64), expected);
        }
    }

    #[test]
    fn philox_gives_the_known_answers_of_random123() {
        assert_eq!(philox([0; 4], 0), [0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48]);
        assert_eq!(philox_rounds::<10>([0; 4], 0), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        let ones = philox_rounds::<10>([u32::MAX; 4], u64::MAX);
        assert_eq!(ones, [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    }

    #[test]
    fn seed_step_and_place_all_matter() {
        let mut all: Vec<u64> =
            (0..1000u64).map(|i| bits(i / 100, i / 10 % 10, i % 10)).chain([bits(1 << 40, 0, 0)]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1001);
    }

    #[test]
    fn moments_of_uniform_and_normal() {
        let mut stream = Stream::new(3, 0);
        let n = 200_000;
        let mut sums = [0f64; 4];
        for _ in 0..n {
            let (u, z) = (f64::from(stream.uniform()), f64::from(stream.normal()));
            assert!((0.0..1.0).contains(&u));
            for (sum, x) in sums.iter_mut().zip([u, u * u, z, z * z]) {
                *sum += x / f64::from(n);
            }
        }
        for (sum, expected) in sums.into_iter().zip([0.5, 1.0 / 3.0, 0.0, 1.0]) {
            assert!((sum - expected).abs() < 0.01, "{sum} {expected}");
        }
    }

    #[test]
    fn below_is_even() {
        let mut stream = Stream::new(5, 1);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn shuffle_permutes_and_a_stream_goes_on_from_its_position() {
        let mut stream = Stream::new(9, 4);
        let mut items: Vec<u32> = (0..100).collect();
        stream.shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        let mut taken_up = Stream::new(9, 4).seek(stream.position());
        assert_eq!(taken_up.next_u64(), stream.next_u64());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
