//! The factors of a matrix product, and how they are packed for its inner loops: in blocks of the inner dimension, in
//! words of 32 bits, each of one number or of a pair of bf16.
//!
//! Both factors are lines that meet along the inner dimension, rows of the left one and columns of the right one. The
//! left one is packed line after line, `[lines][STRIDE]`, the right one in panels, `[lines / LANES][words][LANES]`. So
//! where a factor already lies as it is wanted packing copies, and elsewhere it transposes.

use std::ops::Range;

use crate::precision::{bf16, from_bf16};
use crate::simd::{LANES, Simd, prefetch};

/// Words of a block of the inner dimension, at most: a panel of so many stays in the first-level cache.
pub(crate) const BLOCK: usize = 320;

/// Words from one line of the packed left factor to the next: an odd number of cache lines, so that lines do not compete
/// for the same places of a cache.
pub(crate) const STRIDE: usize = BLOCK + LANES;

/// A matrix in a slice, row-major or the transpose of one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub transposed: bool,
}

impl<'a> Matrix<'a> {
    pub(crate) fn row_major(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} rows and {columns} columns");
        Self { data, rows, columns, transposed: false }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }
}

/// What a word holds.
pub(crate) trait Words {
    /// Numbers of the inner dimension in a word.
    const DEPTH: usize;

    /// The words of `DEPTH * LANES` numbers that follow each other along the inner dimension.
    fn along(x: &[f32]) -> [f32; LANES];

    /// The words of `LANES` lines side by side: `x` has `DEPTH` parts, one for each place in the words.
    fn across<'a>(x: impl Fn(usize) -> &'a [f32; LANES]) -> [f32; LANES];
}

/// The numbers themselves.
pub(crate) struct Exact;

impl Words for Exact {
    const DEPTH: usize = 1;

    #[inline(always)]
    fn along(x: &[f32]) -> [f32; LANES] {
        *x.first_chunk().expect("LANES numbers")
    }
    #[inline(always)]
    fn across<'a>(x: impl Fn(usize) -> &'a [f32; LANES]) -> [f32; LANES] {
        *x(0)
    }
}

/// Numbers rounded to bf16, as `f32`.
pub(crate) struct Rounded;

impl Words for Rounded {
    const DEPTH: usize = 1;

    #[inline(always)]
    fn along(x: &[f32]) -> [f32; LANES] {
        Exact::along(x).map(|x| from_bf16(bf16(x)))
    }
    #[inline(always)]
    fn across<'a>(x: impl Fn(usize) -> &'a [f32; LANES]) -> [f32; LANES] {
        x(0).map(|x| from_bf16(bf16(x)))
    }
}

/// Words `word..word + LANES` of a line of a factor that lies along the depth, zeros beyond its end.
#[inline(always)]
fn along<W: Words>(a: Matrix, line: usize, word: usize) -> [f32; LANES] {
    let line = &a.data[line * a.columns..][..a.columns];
    let first = word * W::DEPTH;
    if let Some(x) = line.get(first..first + LANES * W::DEPTH) {
        return W::along(x);
    }
    let mut edge = [0.0; 2 * LANES];
    let rest = line.get(first..).unwrap_or_default();
    edge[..rest.len()].copy_from_slice(rest);
    W::along(&edge[..LANES * W::DEPTH])
}

/// A word of the lines `line..line + LANES` of a factor that lies across the depth, zeros beyond its edges.
#[inline(always)]
fn across<W: Words>(a: Matrix, line: usize, word: usize) -> [f32; LANES] {
    let (lines, depth) = (a.rows, a.columns);
    let first = word * W::DEPTH;
    if line + LANES <= lines && first + W::DEPTH <= depth {
        return W::across(|place| a.data[(first + place) * lines + line..].first_chunk().expect("LANES numbers"));
    }
    let mut edge = [[0.0; LANES]; 2];
    let width = LANES.min(lines - line);
    for (place, edge) in edge.iter_mut().enumerate().take(W::DEPTH.min(depth.saturating_sub(first))) {
        edge[..width].copy_from_slice(&a.data[(first + place) * lines + line..][..width]);
    }
    W::across(|place| &edge[place])
}

/// Asks for what [`across`] will read [`LANES`] words later, from places too far apart for the processor to guess them.
#[inline(always)]
fn prefetch_across<W: Words>(a: Matrix, line: usize, word: usize) {
    for place in 0..W::DEPTH {
        prefetch(a.data.as_ptr().wrapping_add(((word + LANES) * W::DEPTH + place) * a.rows + line));
    }
}

/// Packs some words of the `lines` of the left factor, `[lines][STRIDE]`; words up to a multiple of [`LANES`], and lines
/// up to one, are zeros or what was there.
#[inline(always)]
pub(crate) fn pack_left<S: Simd, W: Words>(a: Matrix, lines: Range<usize>, words: Range<usize>, left: &mut [f32]) {
    assert!(left.len() >= lines.len().next_multiple_of(LANES) * STRIDE && words.len() <= BLOCK, "room for the lines");
    if !a.transposed {
        for (line, left) in lines.zip(left.chunks_exact_mut(STRIDE)) {
            let left = left.as_chunks_mut::<LANES>().0;
            for (word, left) in words.clone().step_by(LANES).zip(left) {
                *left = along::<W>(a, line, word);
            }
        }
        return;
    }
    let mut square = [[0.0; LANES]; LANES];
    for word in words.clone().step_by(LANES) {
        for line in lines.clone().step_by(LANES) {
            for (i, row) in square.iter_mut().enumerate().take(words.end - word) {
                prefetch_across::<W>(a, line, word + i);
                *row = across::<W>(a, line, word + i);
            }
            square[LANES.min(words.end - word)..].fill([0.0; LANES]);
            let to = &mut left[(line - lines.start) * STRIDE + word - words.start..][..(LANES - 1) * STRIDE + LANES];
            // SAFETY: both squares are inside their slices; kernels are instantiated for a set by `dispatch`, where the
            // processor has it.
            unsafe { S::transpose(square.as_flattened().as_ptr(), LANES, to.as_mut_ptr(), STRIDE) }
        }
    }
}

/// Packs some words of all lines of a left factor that is row-major, `[lines][words]` with words up to a multiple of
/// [`LANES`].
#[inline(always)]
pub(crate) fn pack_lines<W: Words>(a: Matrix, words: Range<usize>, left: &mut [f32]) {
    let width = words.len().next_multiple_of(LANES);
    for (line, left) in left[..a.rows * width].chunks_exact_mut(width.max(1)).enumerate() {
        for (word, left) in words.clone().step_by(LANES).zip(left.as_chunks_mut::<LANES>().0) {
            *left = along::<W>(a, line, word);
        }
    }
}

/// Packs some words of the `lines` of the right factor, given transposed, into panels, filled up with zeros.
#[inline(always)]
pub(crate) fn pack_right<S: Simd, W: Words>(b: Matrix, lines: Range<usize>, words: Range<usize>, panels: &mut [f32]) {
    let panels = panels.as_chunks_mut::<LANES>().0;
    let depth = words.len();
    if b.transposed {
        for (i, word) in words.enumerate() {
            for (panel, line) in lines.clone().step_by(LANES).enumerate() {
                prefetch_across::<W>(b, line, word);
                panels[panel * depth + i] = across::<W>(b, line, word);
            }
        }
        return;
    }
    for (panel, line) in panels.chunks_exact_mut(depth.max(1)).zip(lines.step_by(LANES)) {
        let mut square = [[0.0; LANES]; LANES];
        for (word, panel) in words.clone().step_by(LANES).zip(panel.chunks_mut(LANES)) {
            for (i, row) in square.iter_mut().enumerate().take(b.rows - line) {
                *row = along::<W>(b, line + i, word);
            }
            let mut edge = [[0.0; LANES]; LANES];
            let whole = panel.len() == LANES;
            let to = if whole { panel.as_flattened_mut() } else { edge.as_flattened_mut() };
            // SAFETY: as above.
            unsafe { S::transpose(square.as_flattened().as_ptr(), LANES, to.as_mut_ptr(), LANES) }
            if !whole {
                panel.copy_from_slice(&edge[..panel.len()]);
            }
        }
    }
}
