//! A window that slides over images, and the products of what it shows with packed weights: the forward pass, and the
//! gradient of the input.
//!
//! A row of the window is a run of contiguous numbers, in the image or in a copy of it with its padding. A tile is a few
//! places of the window and one panel of output channels, summed in registers over all runs, each place read through a
//! pointer of its own: it does not matter whether the places are neighbours or in which row they are.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::Conv2dShape;
use super::buffer::{copy_window, with_buffer};
use crate::chunks::Shared;
use crate::panels::{for_height, pack_transposed, padded, store};
use crate::simd::{LANES, Simd, dispatch};

/// Numbers of an image that a task copies: with the output they stay in the second-level cache.
const COPIED: usize = 32 * 1024;

/// How much of the depth is summed in registers at a time, at most: a panel of it stays in the first-level cache. Each
/// output element is a sum of these sums in order, whatever the batch, the bands and the tiles.
const BLOCK: usize = 320;

/// Places in a tile at most: each has a pointer, for which there are as many registers.
const POINTERS: usize = 10;

thread_local! {
    static WINDOW: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A window that slides in equal steps, and the output pixels that it makes.
#[derive(Clone, Copy)]
struct Geometry {
    /// Height, width and channels of an image that is read, and of one that is written.
    input: [usize; 3],
    output: [usize; 3],
    window: [usize; 2],
    /// Where in the input the first window begins, and by how much each next one is moved.
    origin: [isize; 2],
    stride: [usize; 2],
    /// The first output pixel, the distance to the next, and how many there are.
    first: [usize; 2],
    step: [usize; 2],
    count: [usize; 2],
}

impl Geometry {
    fn forward(shape: Conv2dShape) -> Self {
        let count = shape.output_size();
        Self {
            input: [shape.height, shape.width, shape.channels],
            output: [count[0], count[1], shape.output],
            window: shape.kernel,
            origin: shape.padding.map(|padding| -(padding as isize)),
            stride: shape.stride,
            first: [0, 0],
            step: [1, 1],
            count,
        }
    }

    /// The input pixels whose place, plus the padding, leaves the remainders `least` when divided by the stride.
    fn backward(shape: Conv2dShape, phase: [usize; 2], least: [usize; 2]) -> Self {
        let Conv2dShape { kernel, stride, padding, .. } = shape;
        let image = [shape.height, shape.width];
        let [height, width] = shape.output_size();
        let window = [0, 1].map(|i| kernel[i].saturating_sub(least[i]).div_ceil(stride[i]));
        let last = |i: usize| ((phase[i] + padding[i]) / stride[i]) as isize;
        Self {
            input: [height, width, shape.output],
            output: [shape.height, shape.width, shape.channels],
            window,
            origin: [0, 1].map(|i| last(i) + 1 - window[i] as isize),
            stride: [1, 1],
            first: phase,
            step: stride,
            count: [0, 1].map(|i| image[i].saturating_sub(phase[i]).div_ceil(stride[i])),
        }
    }

    /// Rows or columns of the input that `count` windows cover.
    fn span(&self, axis: usize, count: usize) -> usize {
        (count - 1) * self.stride[axis] + self.window[axis]
    }

    /// Whether no window shows anything beyond the image.
    fn is_inside(&self) -> bool {
        let end = |i: usize| self.origin[i] + self.span(i, self.count[i]) as isize;
        (0..2).all(|i| self.origin[i] >= 0 && end(i) <= self.input[i] as isize)
    }
}

/// Where a window and an output pixel begin.
#[derive(Clone, Copy)]
struct Place {
    window: usize,
    pixel: usize,
}

/// A part of the depth: runs of `len` numbers in `rows` rows of the window, the first `at` numbers behind the beginning
/// of the window and `k` deep in the panels.
#[derive(Clone, Copy)]
struct Block {
    at: usize,
    k: usize,
    rows: usize,
    len: usize,
}

/// A window's products with weights.
pub(super) struct Correlation {
    geometry: Geometry,
    /// `[output channels / LANES][depth][LANES]`, the depth `[window height][window width][input channels]`.
    panels: Vec<f32>,
    depth: usize,
    blocks: Vec<Block>,
    /// Whether images are read where they are.
    in_place: bool,
    /// Numbers in a row of pixels, of the image or of its copy.
    pitch: usize,
    /// Rows of places that a task takes, and their places relative to the first.
    rows: usize,
    places: Vec<Place>,
}

impl Correlation {
    pub(super) fn forward(shape: Conv2dShape, w: &[f32]) -> Self {
        let depth = shape.depth();
        let mut panels = vec![0.0; depth * padded(shape.output)];
        if depth > 0 {
            pack_transposed(w, depth, depth, shape.output, &mut panels);
        }
        Self::new(Geometry::forward(shape), panels, shape.batch)
    }

    /// The gradient of the input, from that of the output.
    ///
    /// `dx[i] = Σ dy[(i + padding - a) / stride] w[a]` over the `a` that leave no remainder: with a stride, each phase
    /// of `i` meets other weights, every `stride`-th in reverse order, and `dy` without gaps.
    pub(super) fn backward(shape: Conv2dShape, w: &[f32]) -> Vec<Self> {
        let Conv2dShape { channels, output, kernel, stride, padding, .. } = shape;
        let phases = (0..stride[0]).flat_map(|row| (0..stride[1]).map(move |column| [row, column]));
        let correlation = |phase: [usize; 2]| {
            let least = [0, 1].map(|i| (phase[i] + padding[i]) % stride[i]);
            let geometry = Geometry::backward(shape, phase, least);
            let [height, width] = geometry.window;
            let mut panels = vec![0.0; height * width * output * padded(channels)];
            let mut lanes = panels.as_chunks_mut::<LANES>().0.iter_mut();
            for column in (0..channels).step_by(LANES) {
                let len = LANES.min(channels - column);
                for (a, b) in (0..height).rev().flat_map(|a| (0..width).rev().map(move |b| (a, b))) {
                    let (a, b) = (least[0] + stride[0] * a, least[1] + stride[1] * b);
                    for (o, lanes) in lanes.by_ref().take(output).enumerate() {
                        let w = &w[((o * kernel[0] + a) * kernel[1] + b) * channels + column..];
                        lanes[..len].copy_from_slice(&w[..len]);
                    }
                }
            }
            Self::new(geometry, panels, shape.batch)
        };
        phases.map(correlation).filter(|correlation| !correlation.places.is_empty()).collect()
    }

    fn new(geometry: Geometry, panels: Vec<f32>, batch: usize) -> Self {
        let Geometry { input, output, window, stride, step, count, .. } = geometry;
        let mut this = Self {
            geometry,
            panels,
            depth: window[0] * window[1] * input[2],
            blocks: Vec::new(),
            in_place: true,
            pitch: 0,
            rows: 0,
            places: Vec::new(),
        };
        if count[0] == 0 || count[1] == 0 {
            return this;
        }
        this.in_place = geometry.is_inside();
        this.pitch = input[2] * if this.in_place { input[1] } else { geometry.span(1, count[1]) };
        if this.depth > 0 {
            this.blocks = blocks(window[0], window[1] * input[2], this.pitch);
        }
        let room = (COPIED / this.pitch.max(1)).saturating_sub(window[0]) / stride[0] + 1;
        // A small batch is split by rows as well.
        let bands = (2 * rayon::current_num_threads()).div_ceil(batch.max(1));
        this.rows = count[0].div_ceil(bands).min(room);
        let place = |i: usize, j: usize| Place {
            window: i * stride[0] * this.pitch + j * stride[1] * input[2],
            pixel: (i * step[0] * output[1] + j * step[1]) * output[2],
        };
        this.places = (0..this.rows).flat_map(|i| (0..count[1]).map(move |j| place(i, j))).collect();
        this
    }

    /// How often the window moves down by [`Self::rows`] places.
    fn bands(&self) -> usize {
        self.geometry.count[0].div_ceil(self.rows)
    }

    fn band(&self, band: usize) -> Range<usize> {
        (band * self.rows).min(self.geometry.count[0])..((band + 1) * self.rows).min(self.geometry.count[0])
    }

    /// Numbers that are copied for `rows` rows of places.
    fn copied(&self, rows: usize) -> usize {
        if self.in_place || self.depth == 0 { 0 } else { self.geometry.span(0, rows) * self.pitch }
    }
}

/// The blocks of a window of `rows` runs of `run` numbers, `pitch` apart: several runs, or equal parts of one.
fn blocks(rows: usize, run: usize, pitch: usize) -> Vec<Block> {
    if run <= BLOCK {
        let at_a_time = BLOCK / run;
        let block = |row| Block { at: row * pitch, k: row * run, rows: at_a_time.min(rows - row), len: run };
        return (0..rows).step_by(at_a_time).map(block).collect();
    }
    let part = run.div_ceil(run.div_ceil(BLOCK));
    let starts = (0..rows).flat_map(|row| (0..run).step_by(part).map(move |start| (row, start)));
    starts
        .map(|(row, start)| Block {
            at: row * pitch + start,
            k: row * run + start,
            rows: 1,
            len: part.min(run - start),
        })
        .collect()
}

/// Writes to `y` what the `correlations`, which together make each of its pixels once, make of `x` and the bias.
pub(super) fn correlate(correlations: &[Correlation], x: &[f32], bias: Option<&[f32]>, batch: usize, y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let (image_len, out_len) = (x.len() / batch, y.len() / batch);
    let y = Shared::new(y);
    let bands = correlations.iter().map(Correlation::bands).max().unwrap_or(0);
    (0..batch * bands).into_par_iter().for_each(|task| {
        let (image, band) = (task / bands, task % bands);
        let next = if band + 1 == bands {
            &x[((image + 1) * image_len).min(x.len())..((image + 2) * image_len).min(x.len())]
        } else {
            &[]
        };
        let x = &x[image * image_len..(image + 1) * image_len];
        for correlation in correlations {
            let rows = correlation.band(band);
            if !rows.is_empty() {
                with_buffer(&WINDOW, correlation.copied(rows.len()), |window| {
                    correlate_rows(correlation, rows, x, next, window, bias, image * out_len, &y);
                });
            }
        }
    });
}

dispatch!(
    correlate_rows = correlate_rows_body(
        this: &Correlation,
        rows: Range<usize>,
        x: &[f32],
        next: &[f32],
        window: &mut [f32],
        bias: Option<&[f32]>,
        image: usize,
        y: &Shared,
    )
);

/// Some rows of places of one image, which begins at `image` in `y`; `window` is room for a copy of its pixels.
#[inline(always)]
fn correlate_rows_body<S: Simd>(
    this: &Correlation,
    rows: Range<usize>,
    x: &[f32],
    next: &[f32],
    window: &mut [f32],
    bias: Option<&[f32]>,
    image: usize,
    y: &Shared,
) {
    let Geometry { input, output: [_, width, channels], origin, stride, first, step, count, .. } = this.geometry;
    let places = &this.places[..rows.len() * count[1]];
    let start = image + ((first[0] + rows.start * step[0]) * width + first[1]) * channels;
    if this.depth == 0 {
        for place in places {
            // SAFETY: as in `add_block`.
            let y = unsafe { y.slice(start + place.pixel, channels) };
            match bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(0.0),
            }
        }
        return;
    }
    let origin = [origin[0] + (rows.start * stride[0]) as isize, origin[1]];
    let x = if this.in_place {
        &x[(origin[0] as usize * input[1] + origin[1] as usize) * input[2]..]
    } else {
        copy_window(x, input, origin, this.pitch, window);
        window
    };
    let tiles = this.blocks.len() * channels.div_ceil(LANES) * places.len().div_ceil(S::TILE.min(POINTERS));
    let lines = next.len().div_ceil(16);
    let mut ahead = Ahead { next, per_tile: lines.div_ceil(tiles) };
    for (index, block) in this.blocks.iter().enumerate() {
        // The block's first sums begin with the bias, its later ones with what is there.
        let bias = (index == 0).then_some(bias);
        let mut column = 0;
        while column < channels {
            // Where registers are as many as AVX-512's a number of the image is read for two panels at once.
            if S::TILE > POINTERS && column + 2 * LANES <= channels {
                add_block::<S, 2>(this, *block, x, places, column, bias, start, y, &mut ahead);
                column += 2 * LANES;
            } else {
                add_block::<S, 1>(this, *block, x, places, column, bias, start, y, &mut ahead);
                column += LANES;
            }
        }
    }
}

/// Adds a block's products to `PANELS` panels of channels, from `column`, of the pixels at all places.
#[inline(always)]
fn add_block<S: Simd, const PANELS: usize>(
    this: &Correlation,
    block: Block,
    x: &[f32],
    places: &[Place],
    column: usize,
    bias: Option<Option<&[f32]>>,
    start: usize,
    y: &Shared,
    ahead: &mut Ahead,
) {
    let Some(last) = places.last() else { return };
    let x = &x[block.at..];
    assert!(x.len() >= last.window + (block.rows - 1) * this.pitch + block.len, "windows within the image");
    let panels: [&[[f32; LANES]]; PANELS] = std::array::from_fn(|panel| {
        let panel = &this.panels[(column + panel * LANES) * this.depth..][..this.depth * LANES];
        &panel.as_chunks().0[block.k..block.k + block.rows * block.len]
    });
    let channels = this.geometry.output[2];
    let width: [usize; PANELS] = std::array::from_fn(|panel| LANES.min(channels - column - panel * LANES));
    let mut before = [[0.0; LANES]; PANELS];
    if let Some(Some(bias)) = bias {
        for (panel, before) in before.iter_mut().enumerate() {
            before[..width[panel]].copy_from_slice(&bias[column + panel * LANES..][..width[panel]]);
        }
    }
    // As many tiles as need be, of nearly equal height, the tall ones first.
    let most = S::TILE.min(POINTERS);
    let tiles = places.len().div_ceil(most);
    let (height, taller) = (places.len() / tiles, places.len() % tiles);
    let (tall, low) = places.split_at(taller * (height + 1));
    for (places, height) in [(tall, height + 1), (low, height)] {
        if places.is_empty() {
            continue;
        }
        for_height!(height, POINTERS, HEIGHT => {
            for places in places.as_chunks::<HEIGHT>().0 {
                ahead.go();
                // SAFETY: windows ascend from place to place, and the assertion above holds for the last.
                let sums = unsafe { tile_sums::<S, HEIGHT, PANELS>(x, places, block, this.pitch, panels) };
                for (place, sums) in places.iter().zip(sums) {
                    for (panel, sum) in sums.into_iter().enumerate() {
                        // SAFETY: a pixel belongs to one image, one correlation and one of its bands: to one task.
                        let y = unsafe { y.slice(start + place.pixel + column + panel * LANES, width[panel]) };
                        add::<S>(sum, bias.is_some().then_some(&before[panel]), y);
                    }
                }
            }
        });
    }
}

/// The sums of a block's products for `HEIGHT` places and `PANELS` panels.
///
/// # Safety
/// The block's rows of each place lie within `x`, and each panel holds as many lanes as the block is deep.
#[inline(always)]
unsafe fn tile_sums<S: Simd, const HEIGHT: usize, const PANELS: usize>(
    x: &[f32],
    places: &[Place; HEIGHT],
    block: Block,
    pitch: usize,
    panels: [&[[f32; LANES]]; PANELS],
) -> [[S::Lanes; PANELS]; HEIGHT] {
    // SAFETY: kernels are instantiated for a set by `dispatch`, where the processor has it. The pointers are read within
    // the block, by the contract; beyond its last row they are moved but not read.
    unsafe {
        let mut sums = [[S::splat(0.0); PANELS]; HEIGHT];
        let mut at = [x.as_ptr(); HEIGHT];
        for (at, place) in at.iter_mut().zip(places) {
            *at = at.add(place.window);
        }
        let mut k = 0;
        for _ in 0..block.rows {
            for i in 0..block.len {
                let mut weights = [S::splat(0.0); PANELS];
                for (weights, panel) in weights.iter_mut().zip(panels) {
                    *weights = S::load(panel.get_unchecked(k));
                }
                for (sums, at) in sums.iter_mut().zip(at) {
                    let x = S::splat(*at.add(i));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = S::mul_add(x, weights, *sum);
                    }
                }
                k += 1;
            }
            for at in &mut at {
                *at = at.wrapping_add(pitch);
            }
        }
        sums
    }
}

/// `y = before + sum`, or without a before `y += sum`.
#[inline(always)]
fn add<S: Simd>(sum: S::Lanes, before: Option<&[f32; LANES]>, y: &mut [f32]) {
    let width = y.len();
    if let Ok(y) = <&mut [f32; LANES]>::try_from(&mut *y) {
        let before = *before.unwrap_or(y);
        return store::<S>(sum, 1.0, &before, y);
    }
    let mut lanes = [0.0; LANES];
    lanes[..width].copy_from_slice(&before.map_or(&*y, |before| before)[..width]);
    let before = lanes;
    store::<S>(sum, 1.0, &before, &mut lanes);
    y.copy_from_slice(&lanes[..width]);
}

struct Ahead<'a> {
    next: &'a [f32],
    per_tile: usize,
}
impl Ahead<'_> {
    #[inline(always)]
    fn go(&mut self) {
        for _ in 0..self.per_tile {
            if self.next.len() < 16 {
                return;
            }
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(self.next.as_ptr().cast()) };
            self.next = &self.next[16..];
        }
    }
}
