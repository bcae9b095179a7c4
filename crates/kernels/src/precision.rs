//! How precisely the factors of a matrix product are read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The numbers that a matrix product multiplies. Its sums are `f32` either way, and so are its arguments.
///
/// A bf16 number is the upper half of an `f32`: the same range, and 8 bits of mantissa. Products of two are exact in
/// `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Both factors as they are.
    #[default]
    F32,
    /// Both factors rounded to bf16, to the nearest, ties to even; NaN stays NaN, and what is too large for bf16 becomes
    /// infinity.
    ///
    /// The same under every instruction set up to the rounding of the sums, with one exception: AVX512_BF16 and AMX take
    /// subnormal factors and sums (below 1.2e-38) for zero. These two add up pairs of products, AMX even and odd places
    /// of 32 apart, so that their sums of `n` products differ from those of the other sets by what any order of
    /// summation may differ: at most `n 2^-23` of the sum of the products' absolute values, and typically `sqrt(n)` in
    /// the place of `n`.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    /// As [`Display`](fmt::Display) writes it.
    fn from_str(name: &str) -> Result<Self, String> {
        [Self::F32, Self::Bf16]
            .into_iter()
            .find(|precision| precision.to_string() == name)
            .ok_or_else(|| format!("give f32 or bf16, not {name:?}"))
    }
}

/// `x` rounded to the nearest bf16, ties to even: its bits.
#[inline(always)]
pub fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    // Adding almost half of the last place carries where rounding goes up, into the exponent if need be.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // That might carry a NaN to zero or to infinity.
    let quiet = bits | 0x0040_0000;
    ((if x.is_nan() { quiet } else { rounded }) >> 16) as u16
}

/// The number that a bf16's bits stand for.
#[inline(always)]
pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_nearest_and_ties_to_even() {
        for bits in (0..=u16::MAX).filter(|&bits| !from_bf16(bits).is_nan()) {
            assert_eq!(bf16(from_bf16(bits)), bits);
        }
        for bits in (0..0x7f80u16).chain(0x8000..0xff80) {
            // Between a number and the next one away from zero.
            let between = |low: u32| bf16(f32::from_bits(u32::from(bits) << 16 | low));
            assert_eq!(
                (between(1), between(0x7fff), between(0x8001), between(0xffff)),
                (bits, bits, bits + 1, bits + 1)
            );
            assert_eq!(between(0x8000), bits + (bits & 1));
        }
        assert_eq!(from_bf16(bf16(f32::MAX)), f32::INFINITY);
        for nan in [0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0xffff_ffff] {
            assert!(from_bf16(bf16(f32::from_bits(nan))).is_nan());
        }
    }
}
