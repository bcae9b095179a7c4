//! Products of bf16 pairs with AVX512_BF16: two numbers of the inner dimension in each 32-bit word, and an instruction
//! that multiplies and adds both.
//!
//! The packed factors are those of `f32` with pairs in place of numbers, and so is the loop: twice the numbers for the
//! same instructions. The instructions take subnormal numbers for zero and round each addition to the nearest.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::packing::{Matrix, Words, pack_right};
use crate::product::{Job, Right, multiply_tiles};
use crate::simd::{Avx512, LANES, Simd};

/// Pairs of numbers rounded to bf16, the first in the lower half.
///
/// Only for functions compiled for AVX512_BF16.
pub(crate) struct Pairs;

impl Words for Pairs {
    const DEPTH: usize = 2;

    #[inline(always)]
    fn along(x: &[f32]) -> [f32; LANES] {
        let [low, high] = [&x[..LANES], &x[LANES..2 * LANES]];
        // SAFETY: both slices hold LANES numbers, and the words are plain bits; the processor has the set.
        unsafe {
            let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high.as_ptr()), _mm512_loadu_ps(low.as_ptr()));
            std::mem::transmute::<__m512bh, [f32; LANES]>(pairs)
        }
    }

    #[inline(always)]
    fn across<'a>(x: impl Fn(usize) -> &'a [f32; LANES]) -> [f32; LANES] {
        // SAFETY: as above.
        unsafe {
            let [low, high] = [x(0), x(1)].map(|x| {
                let halves = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
                _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(halves))
            });
            std::mem::transmute::<__m512i, [f32; LANES]>(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }
}

/// AVX-512 whose lanes hold such pairs: it multiplies both numbers of each and adds them to an `f32`.
pub(crate) struct Avx512Pairs;

// SAFETY, of all methods: the instruction set is there by the trait's contract.
impl Simd for Avx512Pairs {
    const FMA: bool = true;
    const TILE: usize = Avx512::TILE;
    const SIDE: usize = Avx512::SIDE;
    type Lanes = <Avx512 as Simd>::Lanes;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Lanes {
        unsafe { Avx512::splat(x) }
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self::Lanes {
        unsafe { Avx512::load(x) }
    }
    #[inline(always)]
    unsafe fn store(x: Self::Lanes, to: &mut [f32; LANES]) {
        unsafe { Avx512::store(x, to) }
    }
    #[inline(always)]
    unsafe fn mul_add([a]: Self::Lanes, [b]: Self::Lanes, [c]: Self::Lanes) -> Self::Lanes {
        unsafe {
            let [a, b] = [std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b)];
            [_mm512_dpbf16_ps(c, a, b)]
        }
    }
}

/// [`pack_right`] in pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) fn pack(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]) {
    pack_right::<Avx512, Pairs>(b, lines, words, panels);
}

/// [`multiply_tiles`] of pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) fn multiply(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]) {
    multiply_tiles::<Avx512, Avx512Pairs, Pairs>(job, tiles, panels, left);
}

/// [`packed::stream`](crate::packed::stream) of pairs.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) fn stream(job: &Job, panels: Range<usize>, x: &mut [f32]) {
    let Right::Words(right) = job.right else { unreachable!("words of pairs") };
    crate::packed::stream::<Avx512Pairs, Pairs, _>(job, right.as_chunks().0, panels, x);
}
