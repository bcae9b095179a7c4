//! The weights of a dense layer packed once, for inference.
//!
//! [`PackedLinear::forward`] gives the same bits as [`linear`](crate::linear::linear) for any number of rows: reading a
//! prompt of many tokens, writing one token and anything else in the batch agree. What differs is the way there. Many
//! rows share each panel of weights that has come into the cache. A few rows are limited by the rate at which memory
//! gives the weights, so these are read once and in order, several panels side by side, straight into the registers.

use std::ops::Range;

use rayon::prelude::*;

use crate::chunks::{Shared, for_each_chunk};
use crate::packing::{Matrix, Rounded, Words, pack_lines};
use crate::panels::{for_height, padded};
use crate::precision::{Precision, bf16};
use crate::product::{Arithmetic, Job, LEFT, Line, Output, Right, Terms, multiply, parts, with_buffer};
use crate::simd::{LANES, Simd, dispatch};
use crate::team::Ahead;
use crate::{packing::Exact, product::multiply_here};

/// Panels that are read side by side at most.
const MOST: usize = 6;

/// Rows up to which the weights are read straight into the registers.
const FEW: usize = 4;

/// Weights `[output, input]` of a dense layer, packed for the active instruction set: 4 bytes each, or 2 in bf16.
#[derive(Clone)]
pub struct PackedLinear {
    storage: Storage,
    arithmetic: Arithmetic,
    precision: Precision,
    input: usize,
    output: usize,
}

/// Panels, `[output / LANES][words][LANES]`.
#[derive(Clone)]
enum Storage {
    Words(Vec<Line>),
    /// Single bf16 numbers, for sets that multiply `f32`.
    Halves(Vec<Line>),
}

impl PackedLinear {
    /// Output columns of a panel.
    pub const PANEL: usize = LANES;

    /// Packs `w [output, input]`.
    pub fn new(w: &[f32], output: usize, input: usize, precision: Precision) -> Self {
        let w = Matrix::row_major(w, output, input);
        let arithmetic = Arithmetic::of(precision);
        let words = arithmetic.words(input);
        let storage = if arithmetic == Arithmetic::Rounded {
            let mut lines = vec![Line::ZERO; (words * padded(output)).div_ceil(2 * LANES)];
            // A few panels at a time: as `f32` they take twice the memory.
            let panels = Line::halves_mut(&mut lines);
            for_each_chunk(&mut panels[..words * padded(output)], 4 * LANES * words, |start, panels| {
                let first = start / words;
                let mut wide = vec![0.0; panels.len()];
                arithmetic.pack(w, first..output.min(first + panels.len() / words), 0..words, &mut wide);
                panels.iter_mut().zip(wide).for_each(|(half, wide)| *half = bf16(wide));
            });
            Storage::Halves(lines)
        } else {
            let mut lines = vec![Line::ZERO; words * padded(output) / LANES];
            arithmetic.pack(w, 0..output, 0..words, Line::numbers_mut(&mut lines));
            Storage::Words(lines)
        };
        Self { storage, arithmetic, precision, input, output }
    }

    pub fn input(&self) -> usize {
        self.input
    }

    pub fn output(&self) -> usize {
        self.output
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Panels that the output has, the last of which may be partly empty.
    pub fn panels(&self) -> usize {
        self.output.div_ceil(LANES)
    }

    /// The columns of the output that some panels make.
    pub fn columns(&self, panels: Range<usize>) -> Range<usize> {
        self.output.min(panels.start * LANES)..self.output.min(panels.end * LANES)
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> usize {
        let (Storage::Words(lines) | Storage::Halves(lines)) = &self.storage;
        size_of_val(&lines[..])
    }

    /// What a thread reads that makes some columns of the output, of one row.
    pub fn ahead(&self, columns: Range<usize>) -> Ahead {
        let words = self.arithmetic.words(self.input);
        let panels = columns.start / LANES..columns.end.div_ceil(LANES).min(self.panels());
        let here = panels.start * words * LANES..panels.end * words * LANES;
        let apart = panels.len().div_ceil(MOST) * words * LANES;
        match &self.storage {
            Storage::Words(lines) => Ahead::of(&Line::numbers(lines)[here], apart),
            Storage::Halves(lines) => Ahead::of(&Line::halves(lines)[here], apart),
        }
    }

    /// `y = x wᵀ + bias + residual`: `x [n, input]`, `bias [output]`, `residual` and `y [n, output]`.
    pub fn forward(&self, x: &[f32], n: usize, bias: Option<&[f32]>, residual: Option<&[f32]>, y: &mut [f32]) {
        assert_eq!(y.len(), n * self.output, "y of {n} rows and {} columns", self.output);
        let (panels, threads) = (self.panels(), rayon::current_num_threads());
        let output = Output { c: &Shared::new(y), stride: self.output, first: 0 };
        let job = self.job(x, n, 0..panels, Terms { bias, residual }, output);
        if !self.is_streamed(n) {
            return multiply(&job);
        }
        // Below this many weights waking other threads costs more than it saves.
        let tasks = if self.input * self.output < 1 << 15 { 1 } else { (2 * threads).min(panels) };
        let task = |task: usize| self.stream(&job, task * panels / tasks..(task + 1) * panels / tasks);
        match tasks {
            0 => (),
            1 => task(0),
            _ => (0..tasks).into_par_iter().with_max_len(1).for_each(task),
        }
    }

    /// The columns of [`PackedLinear::forward`] that some `panels` make, on the calling thread: for callers with threads
    /// of their own. `bias` and `residual` are those of all columns; `y [n, columns(panels).len()]`.
    pub fn forward_panels(
        &self,
        x: &[f32],
        n: usize,
        panels: Range<usize>,
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        y: &mut [f32],
    ) {
        assert!(panels.start <= panels.end && panels.end <= self.panels(), "panels {panels:?} of {}", self.panels());
        let columns = self.columns(panels.clone());
        assert_eq!(y.len(), n * columns.len(), "y of {n} rows and {} columns", columns.len());
        let output = Output { c: &Shared::new(y), stride: columns.len(), first: columns.start };
        let job = self.job(x, n, panels.clone(), Terms { bias, residual }, output);
        if self.is_streamed(n) { self.stream(&job, 0..panels.len()) } else { multiply_here(&job) }
    }

    fn job<'a>(
        &'a self,
        x: &'a [f32],
        n: usize,
        panels: Range<usize>,
        terms: Terms<'a>,
        output: Output<'a>,
    ) -> Job<'a> {
        terms.check(n, self.output);
        let words = self.arithmetic.words(self.input);
        let here = panels.start * words * LANES..panels.end * words * LANES;
        let right = match &self.storage {
            Storage::Words(lines) => Right::Words(&Line::numbers(lines)[here]),
            Storage::Halves(lines) => Right::Halves(&Line::halves(lines)[here]),
        };
        Job {
            arithmetic: self.arithmetic,
            a: Matrix::row_major(x, n, self.input),
            right,
            words: 0..words,
            columns: self.columns(panels),
            width: self.output,
            block: self.arithmetic.block(words),
            terms,
            output,
        }
    }

    fn is_streamed(&self, n: usize) -> bool {
        n <= FEW && self.arithmetic.has_vectors()
    }

    /// Some panels of a job of a few rows.
    fn stream(&self, job: &Job, panels: Range<usize>) {
        let stride = padded(job.words.len());
        with_buffer(&LEFT, job.a.rows * stride, |x| match self.arithmetic {
            Arithmetic::Exact => stream_exact(job, panels, x),
            Arithmetic::Rounded => stream_rounded(job, panels, x),
            // SAFETY: the processor has the active set.
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Pairs => unsafe { crate::bf16::stream(job, panels, x) },
            #[cfg(target_arch = "x86_64")]
            Arithmetic::Tiles => unreachable!("tiles are not streamed"),
        });
    }
}

dispatch!(stream_exact = stream_exact_body(job: &Job, panels: Range<usize>, x: &mut [f32]));
dispatch!(stream_rounded = stream_rounded_body(job: &Job, panels: Range<usize>, x: &mut [f32]));

#[inline(always)]
fn stream_exact_body<S: Simd>(job: &Job, panels: Range<usize>, x: &mut [f32]) {
    let Right::Words(right) = job.right else { unreachable!("words of f32") };
    stream::<S, Exact, _>(job, right.as_chunks().0, panels, x);
}

#[inline(always)]
fn stream_rounded_body<S: Simd>(job: &Job, panels: Range<usize>, x: &mut [f32]) {
    let Right::Halves(right) = job.right else { unreachable!("halves of words") };
    stream::<S, Rounded, _>(job, right.as_chunks().0, panels, x);
}

/// `LANES` words as they are stored.
pub(crate) trait Stored {
    /// # Safety
    /// As of [`Simd`].
    unsafe fn load<S: Simd>(&self) -> S::Lanes;
}

impl Stored for [f32; LANES] {
    #[inline(always)]
    unsafe fn load<S: Simd>(&self) -> S::Lanes {
        unsafe { S::load(self) }
    }
}

impl Stored for [u16; LANES] {
    #[inline(always)]
    unsafe fn load<S: Simd>(&self) -> S::Lanes {
        unsafe { S::widen(self) }
    }
}

/// Some panels of `right`, all rows, of which there are at most [`FEW`]; `x` is room for their words.
#[inline(always)]
pub(crate) fn stream<S: Simd, W: Words, T: Stored>(job: &Job, right: &[T], panels: Range<usize>, x: &mut [f32]) {
    pack_lines::<W>(job.a, job.words.clone(), x);
    // As many panels as fill 8 to 12 registers with sums, so that none has to wait for itself. Many are also better than
    // few at keeping the memory busy: the processor reads ahead in each, and asking for lines here makes it slower.
    match job.a.rows {
        0 => (),
        1 => in_groups::<S, T, 1, MOST>(job, right, panels, x),
        2 => in_groups::<S, T, 2, 3>(job, right, panels, x),
        3 => in_groups::<S, T, 3, 2>(job, right, panels, x),
        FEW => in_groups::<S, T, FEW, 1>(job, right, panels, x),
        other => unreachable!("{other} rows are not few"),
    }
}

/// At most `PANELS` at a time, so chosen that each place goes on where it was: a panel, then the one behind it.
#[inline(always)]
fn in_groups<S: Simd, T: Stored, const HEIGHT: usize, const PANELS: usize>(
    job: &Job,
    right: &[T],
    panels: Range<usize>,
    x: &[f32],
) {
    let stride = panels.len().div_ceil(PANELS);
    for panel in panels.start..panels.start + stride {
        for_height!((panels.end - panel).div_ceil(stride), PANELS, COUNT => {
            side_by_side::<S, T, HEIGHT, COUNT>(job, right, panel, stride, x);
        });
    }
}

/// `PANELS` panels, each `apart` behind the last, read at the same pace.
#[inline(always)]
fn side_by_side<S: Simd, T: Stored, const HEIGHT: usize, const PANELS: usize>(
    job: &Job,
    right: &[T],
    panel: usize,
    apart: usize,
    x: &[f32],
) {
    let depth = job.words.len();
    let stride = padded(depth);
    assert!(x.len() >= HEIGHT * stride, "the words of the rows");
    for block in parts(0..depth, job.block) {
        let b: [&[T]; PANELS] = std::array::from_fn(|i| &right[(panel + i * apart) * depth..][block.clone()]);
        // SAFETY: kernels are instantiated for a set by `dispatch`, where the processor has it.
        let mut sums = [[unsafe { S::splat(0.0) }; HEIGHT]; PANELS];
        for k in 0..block.len() {
            for (b, sums) in b.iter().zip(&mut sums) {
                // SAFETY: k is less than the length of each part.
                let b = unsafe { b.get_unchecked(k).load::<S>() };
                for (row, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: row < HEIGHT and block.start + k < depth <= stride, so the assertion bounds the index.
                    let a = unsafe { *x.get_unchecked(row * stride + block.start + k) };
                    *sum = unsafe { S::mul_add(S::splat(a), b, *sum) };
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            let mut tile = [[0.0; LANES]; HEIGHT];
            // SAFETY: as above.
            sums.into_iter().zip(&mut tile).for_each(|(sum, row)| unsafe { S::store(sum, row) });
            job.finish(&tile, 0, panel + i * apart, block.start == 0);
        }
    }
}
