//! Products of bf16 pairs with AMX: matrices of 16 rows of 64 bytes in registers, tiles.
//!
//! The packed factors are those of [`bf16`](crate::bf16). 16 lines of the left one, 16 words long, are one tile; a panel
//! of the right one is a column of tiles, each a kibibyte in memory. `tdpbf16ps` multiplies two and adds to a tile of 16
//! by 16 `f32`: 16384 operations in 16 cycles. Loading a tile takes 8 cycles from the first-level cache, so 2x2 tiles
//! of the output are summed at a time, which makes four products of four loads.
//!
//! Sized for a Sapphire Rapids core, 48 KiB of first-level and 2 MiB of second-level cache: a block of two panels is
//! 32 KiB and stays in the first level, while the task's lines, 384 times 1 KiB, are read from the second at 32 bytes a
//! cycle, half of what it delivers. Each pair of panels, from the third level or memory, serves 12 tiles of the task
//! and 1024 cycles each, which leaves it 3 bytes a cycle to arrive.
//!
//! Tiles are configured for a task and released after it. The compiler knows nothing of them, and a thread that keeps
//! them costs the system 8 KiB at each switch.

use std::arch::asm;
use std::ops::Range;

use crate::bf16::Pairs;
use crate::packing::{STRIDE, pack_left};
use crate::product::{Job, Right, parts};
use crate::simd::{Avx512, LANES, prefetch};

/// Words of the inner dimension in a tile.
pub(crate) const WORDS: usize = 16;

/// Words of a block of the inner dimension, at most.
pub(crate) const BLOCK: usize = 256;

/// Rows of the output that are summed at a time: two tiles.
pub(crate) const TILE: usize = 2 * LANES;

/// Rows of a task.
pub(crate) const TASK_ROWS: usize = 384;

/// The shape of the tiles, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_a_row: [u16; 16],
    rows: [u8; 16],
}

/// Tiles that are configured for as long as this lives.
struct Configured;

impl Configured {
    /// All eight tiles with 16 rows of 64 bytes.
    ///
    /// # Safety
    /// The processor has AMX, and the system has granted its use.
    unsafe fn new() -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes_a_row: [0; 16], rows: [0; 16] };
        configuration.bytes_a_row[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: AMX is there by the contract; the instruction reads the 64 bytes of the configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly, preserves_flags)) }
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: tiles have been configured, so they are there.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) }
    }
}

/// The sums of 2x2 tiles, panel after panel.
#[repr(align(64))]
struct Sums([[[f32; LANES]; TILE]; 2]);

/// [`multiply_tiles`](crate::product::multiply_tiles) with AMX; each of the job's tiles is 2x2 here, where there are so
/// many rows and panels.
///
/// # Safety
/// The processor has AMX, and the system has granted its use.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub(crate) unsafe fn multiply(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]) {
    let Right::Words(right) = job.right else { unreachable!("AMX reads pairs of bf16") };
    let right = right.as_chunks::<LANES>().0;
    let rows = job.rows(tiles.clone(), TILE);
    let depth = job.words.len();
    let mut sums = Sums([[[0.0; LANES]; TILE]; 2]);
    // SAFETY: by the contract.
    let _configured = unsafe { Configured::new() };
    for block in parts(0..depth, job.block) {
        let words = job.words.start + block.start..job.words.start + block.end;
        pack_left::<Avx512, Pairs>(job.a, rows.clone(), words.clone(), left);
        for pair in parts(panels.clone(), 2) {
            let panel = |panel: usize| &right[panel * depth + block.start..panel * depth + block.end];
            // A last panel without a neighbour is taken twice.
            let b = [panel(pair.start), panel(pair.end - 1)];
            let share = block.len().div_ceil(tiles.len());
            for (i, tile) in tiles.clone().enumerate() {
                // The next two panels come into the cache while these are used.
                for b in b {
                    let next = b.as_ptr().wrapping_add(2 * depth);
                    (i * share..(i + 1) * share).for_each(|line| prefetch(next.wrapping_add(line)));
                }
                let here = job.rows(tile..tile + 1, TILE);
                pair.clone().for_each(|panel| job.prefetch(here.clone(), panel));
                let first = here.start - rows.start;
                // The same where there are no more rows than one tile takes.
                let second = if here.len() > LANES { first + LANES } else { first };
                let a = [first, second].map(|row| &left[row * STRIDE..][..(LANES - 1) * STRIDE + block.len()]);
                // SAFETY: tiles are configured.
                unsafe { two_by_two(a, b, &mut sums) };
                for (panel, sums) in pair.clone().zip(&sums.0) {
                    job.finish(&sums[..here.len()], here.start, panel, words.start == 0);
                }
            }
        }
    }
}

/// `sums[j][16 i..16 i + 16] = a[i] b[j]`: `a` are 16 lines, each [`STRIDE`] after the one before, `b` panels. Their words
/// are as many as the panels have lines, a multiple of [`WORDS`].
///
/// # Safety
/// Tiles are configured as by [`Configured::new`].
#[inline(always)]
unsafe fn two_by_two(a: [&[f32]; 2], b: [&[[f32; LANES]]; 2], sums: &mut Sums) {
    let words = b[0].len();
    assert!(words > 0 && words.is_multiple_of(WORDS) && b[1].len() == words, "whole tiles of the right factor");
    assert!(a.iter().all(|a| a.len() >= (LANES - 1) * STRIDE + words), "whole tiles of the left factor");
    // SAFETY: each step reads 16 words of 16 lines of `a` and 16 lines of `b`, which the assertions bound, and the end
    // writes four times 16 rows of 16 numbers, which are `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {a_stride}*1]",
            "tileloadd tmm6, [{b0} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {line}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {a_stride}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 2048], tmm1",
            "tilestored [{c} + {line}*1 + 1024], tmm2",
            "tilestored [{c} + {line}*1 + 3072], tmm3",
            a0 = inout(reg) a[0].as_ptr() => _,
            a1 = inout(reg) a[1].as_ptr() => _,
            b0 = inout(reg) b[0].as_ptr() => _,
            b1 = inout(reg) b[1].as_ptr() => _,
            steps = inout(reg) words / WORDS => _,
            a_stride = in(reg) STRIDE * size_of::<f32>(),
            line = in(reg) 64usize,
            c = in(reg) sums.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    }
}
