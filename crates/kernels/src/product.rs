//! Matrix products over all cores, for training: packed panels and a register tile (Goto and van de Geijn, "Anatomy
//! of high-performance matrix multiplication", 2008).
//!
//! Each element is a sum over the inner dimension in blocks of [`block_depth`], in order, whatever the other dimensions
//! and the number of threads: a row of the product does not depend on what else is in the batch.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use crate::chunks::Shared;
use crate::panels::{Left, for_height, pack, pack_transposed, padded, store, tile_sums};
use crate::precision::{Precision, rounded};
use crate::simd::{LANES, Simd, dispatch};

/// A matrix in a slice, row-major or the transpose of one.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
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

/// Numbers of the right factor that are packed at a time: they stay in the last-level cache.
const PACKED: usize = 1 << 20;

/// Rows of the left factor in a task: with a block of the depth they stay in the second-level cache.
const TASK_ROWS: usize = 96;

/// A task of fewer rows than this is not split further: it would be less than a tile.
const LEAST_ROWS: usize = 12;

/// How much of the inner dimension is summed in registers at a time: equal parts of at most 320, so that a panel of the
/// right factor stays in the first-level cache.
fn block_depth(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(320).max(1)).max(1)
}

thread_local! {
    /// The memory of the packed right factor, kept from one product to the next: fresh pages cost as much as packing.
    static RIGHT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The same for a task's part of the left factor.
    static LEFT: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Gives `f` a buffer of `len` numbers that the thread keeps.
fn with_buffer<R>(
    buffer: &'static std::thread::LocalKey<Cell<Vec<f32>>>,
    len: usize,
    f: impl FnOnce(&mut [f32]) -> R,
) -> R {
    // Taken, not borrowed: while `f` waits for other threads this one may start on another product.
    let mut memory = buffer.take();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let result = f(&mut memory[..len]);
    buffer.set(memory);
    result
}

/// What is added to a product of `columns`: a number per column, a matrix like the product.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    pub bias: Option<&'a [f32]>,
    pub residual: Option<&'a [f32]>,
}

/// `c = a b + bias + residual`; `c` is row-major.
pub(crate) fn product(a: Matrix, b: Matrix, terms: Terms, precision: Precision, c: &mut [f32]) {
    let (rows, depth, columns) = (a.rows, a.columns, b.columns);
    assert_eq!(depth, b.rows, "the inner dimensions of a product");
    assert_eq!(c.len(), rows * columns, "the output of a product");
    assert!(terms.bias.is_none_or(|bias| bias.len() == columns), "a bias per column");
    assert!(terms.residual.is_none_or(|residual| residual.len() == c.len()), "a residual per element");
    if c.is_empty() {
        return;
    }
    if depth == 0 {
        match terms.residual {
            Some(residual) => c.copy_from_slice(residual),
            None => c.fill(0.0),
        }
        if let Some(bias) = terms.bias {
            c.chunks_exact_mut(columns).for_each(|row| row.iter_mut().zip(bias).for_each(|(c, bias)| *c += bias));
        }
        return;
    }
    let c = Shared::new(c);
    let at_a_time = (PACKED / depth / LANES).max(1) * LANES;
    for start in (0..columns).step_by(at_a_time) {
        let part = start..columns.min(start + at_a_time);
        with_buffer(&RIGHT, depth * padded(part.len()), |right| {
            pack_right(b, part.clone(), precision, right);
            multiply_all(a, right, part, terms, precision, &c, columns);
        });
    }
}

/// Packs the `columns` of `b` into panels, `[columns / LANES][depth][LANES]`.
fn pack_right(b: Matrix, columns: Range<usize>, precision: Precision, right: &mut [f32]) {
    /// Panels of a task.
    const PANELS: usize = 4;
    crate::chunks::for_each_chunk(right, PANELS * b.rows * LANES, |start, panels| {
        let first = columns.start + start / b.rows;
        pack_panels(b, first..columns.end.min(first + PANELS * LANES), precision, panels);
    });
}

dispatch!(pack_panels = pack_panels_body(b: Matrix, columns: Range<usize>, precision: Precision, panels: &mut [f32]));

#[inline(always)]
fn pack_panels_body<S: Simd>(b: Matrix, columns: Range<usize>, precision: Precision, panels: &mut [f32]) {
    if b.transposed {
        pack_transposed(&b.data[columns.start * b.rows..], b.rows, b.rows, columns.len(), panels);
    } else {
        pack(&b.data[columns.start..], b.columns, b.rows, columns.len(), panels);
    }
    if precision == Precision::Bf16 {
        panels.iter_mut().for_each(|x| *x = rounded(*x));
    }
}

/// All rows of some columns of the product, in tasks of some rows, and of some panels where the rows are few.
fn multiply_all(
    a: Matrix,
    right: &[f32],
    columns: Range<usize>,
    terms: Terms,
    precision: Precision,
    c: &Shared,
    stride: usize,
) {
    let threads = rayon::current_num_threads();
    let panels = columns.len().div_ceil(LANES);
    let row_tasks = a.rows.div_ceil(TASK_ROWS).next_multiple_of(2 * threads).min(a.rows.div_ceil(LEAST_ROWS));
    let panel_tasks = (2 * threads).div_ceil(row_tasks).min(panels);
    let task = |task: usize| {
        let (row, panel) = (task / panel_tasks, task % panel_tasks);
        let rows = row * a.rows / row_tasks..(row + 1) * a.rows / row_tasks;
        let panels = panel * panels / panel_tasks..(panel + 1) * panels / panel_tasks;
        with_buffer(&LEFT, rows.len() * block_depth(a.columns), |left| {
            multiply_task(a, rows, left, right, panels, columns.clone(), terms, precision, c, stride);
        });
    };
    // Below this many multiplications waking other threads costs more than it saves.
    if a.rows * a.columns * columns.len() < 1 << 16 {
        (0..row_tasks * panel_tasks).for_each(task);
    } else {
        (0..row_tasks * panel_tasks).into_par_iter().for_each(task);
    }
}

dispatch!(
    multiply_task = multiply_task_body(
        a: Matrix,
        rows: Range<usize>,
        left: &mut [f32],
        right: &[f32],
        panels: Range<usize>,
        columns: Range<usize>,
        terms: Terms,
        precision: Precision,
        c: &Shared,
        stride: usize,
    )
);

#[inline(always)]
fn multiply_task_body<S: Simd>(
    a: Matrix,
    rows: Range<usize>,
    left: &mut [f32],
    right: &[f32],
    panels: Range<usize>,
    columns: Range<usize>,
    terms: Terms,
    precision: Precision,
    c: &Shared,
    stride: usize,
) {
    let depth = a.columns;
    let tiles = rows.len().div_ceil(S::TILE);
    let tile_rows = |tile: usize| tile * rows.len() / tiles..(tile + 1) * rows.len() / tiles;
    let step = block_depth(depth);
    for first in (0..depth).step_by(step) {
        let block = first..depth.min(first + step);
        for tile in 0..tiles {
            let here = tile_rows(tile);
            let packed = &mut left[here.start * block.len()..here.end * block.len()];
            pack_left::<S>(a, rows.start + here.start..rows.start + here.end, block.clone(), packed);
            if precision == Precision::Bf16 {
                packed.iter_mut().for_each(|x| *x = rounded(*x));
            }
        }
        for panel in panels.clone() {
            let column = columns.start + panel * LANES;
            let width = LANES.min(columns.end - column);
            let mut start = [0.0; LANES];
            if let Some(bias) = terms.bias {
                start[..width].copy_from_slice(&bias[column..column + width]);
            }
            let right =
                &right[panel * depth * LANES..(panel + 1) * depth * LANES].as_chunks::<LANES>().0[block.clone()];
            for tile in 0..tiles {
                let here = tile_rows(tile);
                let left = &left[here.start * block.len()..here.end * block.len()];
                for_height!(here.len(), S::TILE, HEIGHT => {
                    let sums = tile_sums::<S, HEIGHT>(Left { data: left, row: 1, depth: HEIGHT }, right);
                    for (row, sum) in sums.into_iter().enumerate() {
                        let at = (rows.start + here.start + row) * stride + column;
                        // SAFETY: no two tasks have a row and a panel in common.
                        let c = unsafe { c.slice(at, width) };
                        accumulate::<S>(sum, (first == 0).then_some(&start), c);
                        if let (0, Some(residual)) = (first, terms.residual) {
                            c.iter_mut().zip(&residual[at..]).for_each(|(c, residual)| *c += residual);
                        }
                    }
                });
            }
        }
    }
}

/// `c = start + sum`, or without a start `c += sum`.
#[inline(always)]
fn accumulate<S: Simd>(sum: S::Lanes, start: Option<&[f32; LANES]>, c: &mut [f32]) {
    let width = c.len();
    if let Ok(c) = <&mut [f32; LANES]>::try_from(&mut *c) {
        let before = *start.unwrap_or(c);
        return store::<S>(sum, 1.0, &before, c);
    }
    let mut lanes = [0.0; LANES];
    lanes[..width].copy_from_slice(&start.map_or(&*c, |start| start)[..width]);
    let before = lanes;
    store::<S>(sum, 1.0, &before, &mut lanes);
    c.copy_from_slice(&lanes[..width]);
}

/// Packs a tile of the left factor, `[block, rows]`.
#[inline(always)]
fn pack_left<S: Simd>(a: Matrix, rows: Range<usize>, block: Range<usize>, packed: &mut [f32]) {
    let height = rows.len();
    for_height!(height, S::TILE, HEIGHT => {
        let packed = packed.as_chunks_mut::<HEIGHT>().0;
        if a.transposed {
            for (k, packed) in block.zip(packed) {
                packed.copy_from_slice(&a.data[k * a.rows + rows.start..][..HEIGHT]);
            }
        } else {
            for (row, i) in rows.enumerate() {
                for (packed, a) in packed.iter_mut().zip(&a.data[i * a.columns..][block.clone()]) {
                    packed[row] = *a;
                }
            }
        }
    });
}
