//! Matrix products over all cores: packed panels and a register tile (Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008).
//!
//! Each element is a sum over the inner dimension in blocks of one size ([`Arithmetic::block`]), in order, whatever the
//! other dimensions and the number of threads: a row of the product does not depend on what else is in the batch.

use std::cell::Cell;
use std::ops::Range;
use std::thread::LocalKey;

use rayon::prelude::*;

use crate::chunks::{Shared, for_each_chunk};
use crate::isa;
use crate::packing::{BLOCK, Exact, Matrix, Rounded, STRIDE, Words, pack_left, pack_right};
use crate::panels::{Left, for_height, padded, tile_sums};
use crate::precision::{Precision, from_bf16};
use crate::simd::{LANES, Simd, dispatch, prefetch};
#[cfg(target_arch = "x86_64")]
use crate::{amx, bf16};

/// What a precision comes down to under the active instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    /// Words are `f32` numbers.
    Exact,
    /// Words are `f32` numbers rounded to bf16.
    Rounded,
    /// Words are pairs of bf16, which AVX512_BF16 multiplies.
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// The same, in the tiles of AMX.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Arithmetic {
    pub(crate) fn of(precision: Precision) -> Self {
        match (precision, isa::active()) {
            (Precision::F32, _) => Self::Exact,
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, isa::Isa::Avx512Bf16) => Self::Pairs,
            #[cfg(target_arch = "x86_64")]
            (Precision::Bf16, isa::Isa::Amx) => Self::Tiles,
            (Precision::Bf16, _) => Self::Rounded,
        }
    }

    /// Words of `depth` numbers; one of zeros where there are none, so that there is a block that writes the terms.
    pub(crate) fn words(self, depth: usize) -> usize {
        let depth = depth.max(1);
        match self {
            Self::Exact | Self::Rounded => depth,
            #[cfg(target_arch = "x86_64")]
            Self::Pairs => depth.div_ceil(2),
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => depth.div_ceil(2).next_multiple_of(amx::WORDS),
        }
    }

    /// How many of `words` are summed at a time, beginning with zero: equal parts, of which a panel or two stay in the
    /// first-level cache.
    pub(crate) fn block(self, words: usize) -> usize {
        let parts = |most: usize| words.div_ceil(words.div_ceil(most).max(1)).max(1);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => parts(amx::BLOCK).next_multiple_of(amx::WORDS),
            _ => parts(BLOCK),
        }
    }

    /// Rows of a tile.
    fn tile(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::TILE,
            _ => vector_tile(),
        }
    }

    /// Whether the words are multiplied in vector registers.
    pub(crate) fn has_vectors(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => false,
            _ => true,
        }
    }

    /// Rows of the left factor in a task: with a block of the depth they take a part of the second-level cache.
    fn task_rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => amx::TASK_ROWS,
            _ => TASK_ROWS,
        }
    }

    /// Packs `words` of the `lines` of the right factor, given transposed, into panels.
    pub(crate) fn pack(self, b: Matrix, lines: Range<usize>, words: Range<usize>, right: &mut [f32]) {
        /// Panels of a task.
        const PANELS: usize = 4;
        if words.is_empty() {
            return;
        }
        for_each_chunk(right, PANELS * words.len() * LANES, |start, panels| {
            let first = lines.start + start / words.len();
            let (lines, words) = (first..lines.end.min(first + PANELS * LANES), words.clone());
            match self {
                Self::Exact => pack_exact(b, lines, words, panels),
                Self::Rounded => pack_rounded(b, lines, words, panels),
                // SAFETY: the processor has the active set.
                #[cfg(target_arch = "x86_64")]
                Self::Pairs | Self::Tiles => unsafe { bf16::pack(b, lines, words, panels) },
            }
        });
    }

    /// Some tiles of rows by some panels.
    fn multiply(self, job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]) {
        match self {
            Self::Exact => multiply_exact(job, tiles, panels, left),
            Self::Rounded => multiply_rounded(job, tiles, panels, left),
            // SAFETY: the processor has the active set.
            #[cfg(target_arch = "x86_64")]
            Self::Pairs => unsafe { bf16::multiply(job, tiles, panels, left) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Tiles => unsafe { amx::multiply(job, tiles, panels, left) },
        }
    }
}

dispatch!(vector_tile = vector_tile_body() -> usize);
dispatch!(pack_exact = pack_exact_body(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]));
dispatch!(pack_rounded = pack_rounded_body(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]));
dispatch!(multiply_exact = multiply_exact_body(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]));
dispatch!(
    multiply_rounded = multiply_rounded_body(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32])
);

#[inline(always)]
fn vector_tile_body<S: Simd>() -> usize {
    S::TILE
}

#[inline(always)]
fn pack_exact_body<S: Simd>(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]) {
    pack_right::<S, Exact>(b, lines, words, panels);
}

#[inline(always)]
fn pack_rounded_body<S: Simd>(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]) {
    pack_right::<S, Rounded>(b, lines, words, panels);
}

#[inline(always)]
fn multiply_exact_body<S: Simd>(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]) {
    multiply_tiles::<S, S, Exact>(job, tiles, panels, left);
}

#[inline(always)]
fn multiply_rounded_body<S: Simd>(job: &Job, tiles: Range<usize>, panels: Range<usize>, left: &mut [f32]) {
    multiply_tiles::<S, S, Rounded>(job, tiles, panels, left);
}

/// Words of the right factor that are packed at a time: they stay in the last-level cache.
const PACKED: usize = 1 << 20;

/// See [`Arithmetic::task_rows`]: 128 KiB.
const TASK_ROWS: usize = 96;

/// A task of fewer rows than this is not split further: it would be less than a tile.
const LEAST_ROWS: usize = 12;

/// Memory for packed factors, in cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(#[expect(dead_code, reason = "read and written as a part of many")] [f32; LANES]);

impl Line {
    pub(crate) const ZERO: Self = Self([0.0; LANES]);

    /// The numbers of some lines.
    pub(crate) fn numbers(lines: &[Self]) -> &[f32] {
        // SAFETY: a line is LANES numbers and nothing else.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
    }

    /// The bf16 numbers of some lines.
    pub(crate) fn halves(lines: &[Self]) -> &[u16] {
        // SAFETY: as above, and any bits are two bf16 numbers.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 2 * LANES) }
    }

    pub(crate) fn halves_mut(lines: &mut [Self]) -> &mut [u16] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 2 * LANES) }
    }

    pub(crate) fn numbers_mut(lines: &mut [Self]) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
    }
}

thread_local! {
    /// The memory of the packed right factor, kept from one product to the next: fresh pages cost as much as packing.
    static RIGHT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    /// The same for a task's part of the left factor.
    pub(crate) static LEFT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Gives `f` a buffer of `len` numbers that the thread keeps.
pub(crate) fn with_buffer<R>(
    buffer: &'static LocalKey<Cell<Vec<Line>>>,
    len: usize,
    f: impl FnOnce(&mut [f32]) -> R,
) -> R {
    // Taken, not borrowed: while `f` waits for other threads this one may start on another product.
    let mut memory = buffer.take();
    let lines = len.div_ceil(LANES);
    if memory.len() < lines {
        memory.resize(lines, Line::ZERO);
    }
    let result = f(&mut Line::numbers_mut(&mut memory)[..len]);
    buffer.set(memory);
    result
}

/// What is added to a product of `columns`: a number per column, a matrix like the product.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
}

impl Terms<'_> {
    pub(crate) fn check(&self, rows: usize, columns: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == columns), "a bias per column");
        assert!(self.residual.is_none_or(|residual| residual.len() == rows * columns), "a residual per element");
    }
}

/// `c = a b + bias + residual`; `c` is row-major.
pub(crate) fn product(a: Matrix, b: Matrix, terms: Terms, precision: Precision, c: &mut [f32]) {
    let (rows, depth, columns) = (a.rows, a.columns, b.columns);
    assert_eq!(depth, b.rows, "the inner dimensions of a product");
    assert_eq!(c.len(), rows * columns, "the output of a product");
    terms.check(rows, columns);
    let arithmetic = Arithmetic::of(precision);
    let words = arithmetic.words(depth);
    let block = arithmetic.block(words);
    let output = Output { c: &Shared::new(c), stride: columns, first: 0 };
    let most = (PACKED / block / LANES).max(1) * LANES;
    let part = columns.div_ceil(columns.div_ceil(most).max(1)).next_multiple_of(LANES);
    for columns in parts(0..columns, part) {
        let part = (PACKED / padded(columns.len()) / block).max(1) * block;
        for words in parts(0..words, part) {
            with_buffer(&RIGHT, words.len() * padded(columns.len()), |right| {
                arithmetic.pack(b.transposed(), columns.clone(), words.clone(), right);
                let right = Right::Words(right);
                let columns = columns.clone();
                multiply(&Job { arithmetic, a, right, words, columns, width: b.columns, block, terms, output });
            });
        }
    }
}

/// `range` in parts of `size`.
pub(crate) fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(size.max(1)).map(move |start| start..range.end.min(start + size))
}

/// Panels of the right factor.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    Words(&'a [f32]),
    /// Single bf16 numbers, which are widened on their way into the registers.
    Halves(&'a [u16]),
}

/// Where a product is written.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    pub c: &'a Shared<'a>,
    /// From one row to the next.
    pub stride: usize,
    /// The product's column that is the first of a row here.
    pub first: usize,
}

/// A product of `a` and a packed part of the right factor.
pub(crate) struct Job<'a> {
    pub arithmetic: Arithmetic,
    pub a: Matrix<'a>,
    pub right: Right<'a>,
    /// The part of the depth that `right` holds.
    pub words: Range<usize>,
    /// The columns that `right` holds.
    pub columns: Range<usize>,
    /// All columns of the product.
    pub width: usize,
    pub block: usize,
    pub terms: Terms<'a>,
    pub output: Output<'a>,
}

/// All rows of some columns of the product, in tasks of some rows, and of some panels where the rows are few.
pub(crate) fn multiply(job: &Job) {
    let threads = rayon::current_num_threads();
    let (rows, tile) = (job.a.rows, job.arithmetic.tile());
    let (tiles, panels) = (rows.div_ceil(tile), job.columns.len().div_ceil(LANES));
    if tiles == 0 || panels == 0 {
        return;
    }
    let row_tasks = rows.div_ceil(job.arithmetic.task_rows());
    // Each task of rows reads all panels: where these are the larger factor, they and not the rows are divided.
    let row_tasks = if rows < job.columns.len() { row_tasks } else { row_tasks.next_multiple_of(2 * threads) };
    let row_tasks = row_tasks.min(rows.div_ceil(LEAST_ROWS)).min(tiles);
    let panel_tasks = (2 * threads).div_ceil(row_tasks).min(panels);
    let task = |task: usize| {
        let (row, panel) = (task / panel_tasks, task % panel_tasks);
        let tiles = row * tiles / row_tasks..(row + 1) * tiles / row_tasks;
        let panels = panel * panels / panel_tasks..(panel + 1) * panels / panel_tasks;
        multiply_task(job, tiles, panels);
    };
    // Below this many multiplications waking other threads costs more than it saves.
    if rows * job.words.len() * job.columns.len() < 1 << 16 {
        (0..row_tasks * panel_tasks).for_each(task);
    } else {
        // Task by task, so that no thread is left with several at the end.
        (0..row_tasks * panel_tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// [`multiply`] on the calling thread.
pub(crate) fn multiply_here(job: &Job) {
    let (rows, tile) = (job.a.rows, job.arithmetic.tile());
    for tiles in parts(0..rows.div_ceil(tile), job.arithmetic.task_rows().div_ceil(tile)) {
        multiply_task(job, tiles, 0..job.columns.len().div_ceil(LANES));
    }
}

/// Some tiles of rows by some panels.
fn multiply_task(job: &Job, tiles: Range<usize>, panels: Range<usize>) {
    // A tile that is written for LANES rows may end beyond the last one.
    let rows = (tiles.len() * job.arithmetic.tile() + LANES).next_multiple_of(LANES);
    with_buffer(&LEFT, rows * STRIDE, |left| job.arithmetic.multiply(job, tiles, panels, left));
}

impl Job<'_> {
    /// The rows of some of all tiles of at most `most`. Their heights are nearly equal: 13 rows are 5 + 4 + 4, since
    /// lower tiles than 4 leave the multipliers waiting for each other.
    #[inline(always)]
    pub(crate) fn rows(&self, tiles: Range<usize>, most: usize) -> Range<usize> {
        let count = self.a.rows.div_ceil(most);
        tiles.start * self.a.rows / count..tiles.end * self.a.rows / count
    }

    /// Asks for the output's lines in the columns of a panel.
    #[inline(always)]
    pub(crate) fn prefetch(&self, rows: Range<usize>, panel: usize) {
        let column = self.columns.start + panel * LANES;
        for row in rows {
            prefetch(self.output.c.at(self.place(row, column)));
        }
    }

    /// Writes the sums of a tile, or adds them to what blocks before have made.
    #[inline(always)]
    pub(crate) fn finish(&self, tile: &[[f32; LANES]], row: usize, panel: usize, is_first: bool) {
        let column = self.columns.start + panel * LANES;
        let width = LANES.min(self.columns.end - column);
        for (row, sums) in (row..).zip(tile) {
            let at = row * self.width + column;
            // SAFETY: no two tasks have a row and a panel in common.
            let c = unsafe { self.output.c.slice(self.place(row, column), width) };
            let bias = self.terms.bias.filter(|_| is_first).map(|bias| &bias[column..column + width]);
            let residual = self.terms.residual.filter(|_| is_first).map(|residual| &residual[at..at + width]);
            if let Some(c) = c.first_chunk_mut::<LANES>() {
                // Whole arrays, one after the other: the compiler need not ask which of them overlap.
                let mut before = if is_first { [0.0; LANES] } else { *c };
                if let Some(bias) = bias.and_then(<[f32]>::first_chunk::<LANES>) {
                    before = *bias;
                }
                if let Some(residual) = residual.and_then(<[f32]>::first_chunk::<LANES>) {
                    before = std::array::from_fn(|lane| before[lane] + residual[lane]);
                }
                *c = std::array::from_fn(|lane| before[lane] + sums[lane]);
                continue;
            }
            for (j, (c, sum)) in c.iter_mut().zip(sums).enumerate() {
                let before = if is_first { bias.map_or(0.0, |bias| bias[j]) } else { *c };
                *c = residual.map_or(before, |residual| before + residual[j]) + sum;
            }
        }
    }

    /// Where an element of the product is in the output.
    #[inline(always)]
    fn place(&self, row: usize, column: usize) -> usize {
        row * self.output.stride + column - self.output.first
    }
}

/// Some tiles of rows by some panels, in vector registers; `P` multiplies words.
#[inline(always)]
pub(crate) fn multiply_tiles<S: Simd, P: Simd, W: Words>(
    job: &Job,
    tiles: Range<usize>,
    panels: Range<usize>,
    left: &mut [f32],
) {
    let rows = job.rows(tiles.clone(), S::TILE);
    for block in parts(0..job.words.len(), job.block) {
        let words = job.words.start + block.start..job.words.start + block.end;
        pack_left::<S, W>(job.a, rows.clone(), words.clone(), left);
        for panels in parts(panels.clone(), P::SIDE) {
            match panels.len() {
                2 if P::SIDE == 2 => multiply_panels::<S, P, 2>(job, tiles.clone(), panels.start, block.clone(), left),
                _ => multiply_panels::<S, P, 1>(job, tiles.clone(), panels.start, block.clone(), left),
            }
        }
    }
}

/// The packed rows of some tiles by `SIDE` panels, a block of the depth.
#[inline(always)]
fn multiply_panels<S: Simd, P: Simd, const SIDE: usize>(
    job: &Job,
    tiles: Range<usize>,
    panel: usize,
    block: Range<usize>,
    left: &[f32],
) {
    let depth = job.words.len();
    let first = job.rows(tiles.clone(), S::TILE).start;
    // Only widened numbers need it, and filling it takes as long as a tile.
    let mut wide;
    let here = |side: usize| (panel + side) * depth + block.start..(panel + side) * depth + block.end;
    // The panels, where the next ones begin, which come into the cache while these are used, and the bytes of a word.
    let (right, next, size): ([&[[f32; LANES]]; SIDE], [*const u8; SIDE], usize) = match job.right {
        Right::Words(right) => {
            let right = right.as_chunks::<LANES>().0;
            let next = |side: usize| right.as_ptr().wrapping_add(here(side).start + SIDE * depth).cast();
            (std::array::from_fn(|side| &right[here(side)]), std::array::from_fn(next), size_of::<[f32; LANES]>())
        }
        Right::Halves(right) => {
            let right = right.as_chunks::<LANES>().0;
            let next = |side: usize| right.as_ptr().wrapping_add(here(side).start + SIDE * depth).cast();
            wide = [[[0.0; LANES]; BLOCK]; SIDE];
            for (side, wide) in wide.iter_mut().enumerate() {
                wide.iter_mut().zip(&right[here(side)]).for_each(|(wide, b)| *wide = b.map(from_bf16));
            }
            (wide.each_ref().map(|wide| &wide[..block.len()]), std::array::from_fn(next), size_of::<[u16; LANES]>())
        }
    };
    let share = block.len().div_ceil(tiles.len()) * size;
    let mut tile = [[[0.0; LANES]; 12]; SIDE];
    for (i, here) in tiles.enumerate() {
        for at in (i * share..(i + 1) * share).step_by(size_of::<Line>()) {
            next.iter().for_each(|next| prefetch(next.wrapping_add(at)));
        }
        let here = job.rows(here..here + 1, S::TILE);
        (0..SIDE).for_each(|side| job.prefetch(here.clone(), panel + side));
        let left = Left { data: &left[(here.start - first) * STRIDE..], row: STRIDE, depth: 1 };
        for_height!(here.len(), S::TILE, HEIGHT => {
            for (row, sums) in tile_sums::<P, HEIGHT, SIDE>(left, right).into_iter().enumerate() {
                for (sum, tile) in sums.into_iter().zip(&mut tile) {
                    // SAFETY: kernels are instantiated for a set by `dispatch`, where the processor has it.
                    unsafe { P::store(sum, &mut tile[row]) }
                }
            }
        });
        for (side, tile) in tile.iter().enumerate() {
            job.finish(&tile[..here.len()], here.start, panel + side, block.start + job.words.start == 0);
        }
    }
}
