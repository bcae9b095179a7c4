//! Instruction sets, and the compilation of a kernel for each.
//!
//! Loops over slices are left to the compiler, which vectorises them for the set that it compiles for. Only where it
//! does not do so reliably, in the tiles of a matrix product, are [`Simd::Lanes`] written out.

use crate::precision::from_bf16;

/// Accumulators of a reduction and columns of a tile: two AVX2 registers, one of AVX-512, four of NEON.
pub(crate) const LANES: usize = 16;

/// An instruction set, and [`LANES`] numbers in its registers.
///
/// # Safety
/// The methods may only be called where the processor has the set and the function that they end up in, after
/// inlining, is compiled for it: within what [`dispatch`] makes.
pub(crate) trait Simd {
    /// Whether multiplication and addition fuse. Without it `f32::mul_add` would be a call into the C library.
    const FMA: bool;
    /// Rows of a tile of a matrix product: as many as leave registers for the factors. Two multipliers of four cycles
    /// each want 8 sums or more under way.
    const TILE: usize;
    /// Panels that a tile of a matrix product is wide, at most 2. Where the sums of two fit into the registers each number
    /// of the left factor is read once for both: the multipliers then want less than a number a cycle of the memory.
    const SIDE: usize = 1;
    type Lanes: Copy;

    unsafe fn splat(x: f32) -> Self::Lanes;
    unsafe fn load(x: &[f32; LANES]) -> Self::Lanes;
    unsafe fn store(x: Self::Lanes, to: &mut [f32; LANES]);
    /// bf16 numbers, which are the upper halves of `f32`.
    #[inline(always)]
    unsafe fn widen(x: &[u16; LANES]) -> Self::Lanes {
        // SAFETY: the contract of the trait.
        unsafe { Self::load(&x.map(from_bf16)) }
    }
    /// `a * b + c`.
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;

    /// Transposes a square of [`LANES`] rows: `to[j * to_stride + i] = from[i * from_stride + j]`.
    ///
    /// # Safety
    /// Both squares are inside their allocations and do not overlap.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for j in 0..LANES {
            for i in 0..LANES {
                // SAFETY: inside the squares, by the contract.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) }
            }
        }
    }
}

/// Asks for the line of the first-level cache that holds `at`, which need not be memory of ours.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch of any address is allowed: it reads nothing.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Any processor.
pub(crate) struct Portable;

impl Simd for Portable {
    const FMA: bool = false;
    const TILE: usize = 6;
    type Lanes = [f32; LANES];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Lanes {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(x: &[f32; LANES]) -> Self::Lanes {
        *x
    }
    #[inline(always)]
    unsafe fn store(x: Self::Lanes, to: &mut [f32; LANES]) {
        *to = x;
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, mut c: Self::Lanes) -> Self::Lanes {
        for lane in 0..LANES {
            c[lane] += a[lane] * b[lane];
        }
        c
    }
}

/// An instruction set whose registers of `$width` numbers make up the lanes.
macro_rules! simd {
    ($(#[$attribute:meta])* $name:ident, $register:ident x $count:literal of $width:literal,
     $tile:literal rows of $side:literal, $splat:ident, $load:ident, $store:ident, |$a:ident, $b:ident, $c:ident| $mul_add:expr
     $(, $widen:expr, $transpose:ident)?) => {
        $(#[$attribute])*
        pub(crate) struct $name;

        // Where the set is part of the target's baseline, as NEON is, some of its functions are safe.
        #[allow(unused_unsafe)]
        // SAFETY, of all four methods: the instruction set is there by the trait's contract, and register i takes the
        // $width numbers from $width * i, with $width * $count = LANES.
        $(#[$attribute])*
        impl Simd for $name {
            const FMA: bool = true;
            const TILE: usize = $tile;
            const SIDE: usize = $side;
            type Lanes = [$register; $count];

            #[inline(always)]
            unsafe fn splat(x: f32) -> Self::Lanes {
                unsafe { [$splat(x); $count] }
            }
            #[inline(always)]
            unsafe fn load(x: &[f32; LANES]) -> Self::Lanes {
                std::array::from_fn(|i| unsafe { $load(x.as_ptr().add($width * i)) })
            }
            #[inline(always)]
            unsafe fn store(x: Self::Lanes, to: &mut [f32; LANES]) {
                for (i, x) in x.into_iter().enumerate() {
                    unsafe { $store(to.as_mut_ptr().add($width * i), x) }
                }
            }
            #[inline(always)]
            unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
                std::array::from_fn(|i| {
                    let ($a, $b, $c) = (a[i], b[i], c[i]);
                    unsafe { $mul_add }
                })
            }
            $(
                #[inline(always)]
                unsafe fn widen(x: &[u16; LANES]) -> Self::Lanes {
                    std::array::from_fn(|i| unsafe { $widen(x.as_ptr().add($width * i)) })
                }
                #[inline(always)]
                unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
                    unsafe { $transpose(from, from_stride, to, to_stride) }
                }
            )?
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

simd!(
    #[cfg(target_arch = "x86_64")]
    Avx512, __m512 x 1 of 16, 12 rows of 2,
    _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, |a, b, c| _mm512_fmadd_ps(a, b, c),
    |at: *const u16| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast())))),
    transpose_avx512
);
simd!(
    #[cfg(target_arch = "x86_64")]
    Avx2, __m256 x 2 of 8, 6 rows of 1,
    _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, |a, b, c| _mm256_fmadd_ps(a, b, c),
    |at: *const u16| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())))),
    transpose_avx2
);
simd!(
    #[cfg(target_arch = "aarch64")]
    Neon, float32x4_t x 4 of 4, 6 rows of 1, vdupq_n_f32, vld1q_f32, vst1q_f32, |a, b, c| vfmaq_f32(c, a, b)
);

/// [`Simd::transpose`]: each register takes the same four columns of two rows, four rows apart, so that a transposition
/// of 4x4 within its halves makes whole rows of the result.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_avx2(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the set is there, and the square inside its allocation, by the contract of the trait.
    unsafe {
        for (i, j) in (0..LANES).step_by(8).flat_map(|i| (0..LANES).step_by(4).map(move |j| (i, j))) {
            let [a, b, c, d] = std::array::from_fn(|row| {
                let at = |row: usize| _mm_loadu_ps(from.add((i + row) * from_stride + j));
                _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(at(row)), at(row + 4))
            });
            let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
            let columns = [
                _mm256_shuffle_ps::<0x44>(ab, cd),
                _mm256_shuffle_ps::<0xee>(ab, cd),
                _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            for (column, values) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(to.add((j + column) * to_stride + i), values);
            }
        }
    }
}

/// [`transpose_avx2`] with four rows in a register.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn transpose_avx512(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: as there.
    unsafe {
        for j in (0..LANES).step_by(4) {
            let [a, b, c, d] = std::array::from_fn(|row| {
                let at = |row: usize| _mm_loadu_ps(from.add(row * from_stride + j));
                let first = _mm512_castps128_ps512(at(row));
                let second = _mm512_insertf32x4::<1>(first, at(row + 4));
                let third = _mm512_insertf32x4::<2>(second, at(row + 8));
                _mm512_insertf32x4::<3>(third, at(row + 12))
            });
            let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
            let columns = [
                _mm512_shuffle_ps::<0x44>(ab, cd),
                _mm512_shuffle_ps::<0xee>(ab, cd),
                _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
                _mm512_shuffle_ps::<0xee>(ab_high, cd_high),
            ];
            for (column, values) in columns.into_iter().enumerate() {
                _mm512_storeu_ps(to.add((j + column) * to_stride), values);
            }
        }
    }
}

/// Makes `name`, which calls `body::<S>` compiled for the active instruction set `S`.
///
/// `body` and all that it calls must be `#[inline(always)]`, or they keep to the baseline's instructions.
macro_rules! dispatch {
    ($name:ident = $body:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?) => {
        fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($argument: $type),*) $(-> $result)? {
                $body::<$crate::simd::Avx512>($($argument),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $result)? {
                $body::<$crate::simd::Avx2>($($argument),*)
            }
            match $crate::isa::active() {
                // SAFETY: the active set is one that the processor has.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 | $crate::isa::Isa::Amx => unsafe {
                    avx512($($argument),*)
                },
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($($argument),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon => $body::<$crate::simd::Neon>($($argument),*),
                _ => $body::<$crate::simd::Portable>($($argument),*),
            }
        }
    };
}
pub(crate) use dispatch;
