//! The gradient of a convolution's weights: a sum over all places of all images.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::Conv2dShape;
use super::buffer::{copy_window, with_buffer};
use crate::chunks::Shared;
use crate::panels::{for_height, store};
use crate::simd::{LANES, Simd, dispatch};

/// Parts of the batch that are summed by themselves, at most, and the numbers that their sums may take.
const CHUNKS: usize = 16;
const SUMS: usize = 1 << 22;

/// Numbers of images that a task copies at a time: they stay in the second-level cache.
const COPIED: usize = 32 * 1024;

/// Places whose products are summed in registers, with one panel; with more of them fewer, so that what they read stays
/// in the first-level cache.
const PLACES: usize = 256;

/// Panels that meet a tile of the images before the next.
const PANELS: usize = 4;

thread_local! {
    /// The sums of all chunks, in the thread that asks for the gradient.
    static PARTIALS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The padded rows of an image, and the packed rows of its output's gradient.
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The gradient of [`conv2d`](super::conv2d) with respect to `w`, given that of `y`.
///
/// `dw[o, a, b, c] = Σ dy[n, i, j, o] x[n, stride i + a - padding, stride j + b - padding, c]` over `n`, `i` and `j`.
pub fn conv2d_backward_weight(dy: &[f32], x: &[f32], shape: Conv2dShape, dw: &mut [f32]) {
    shape.check(x, dw, dy);
    if dw.is_empty() {
        return;
    }
    if dy.is_empty() {
        return dw.fill(0.0);
    }
    let depth = shape.depth();
    let panels = shape.output.div_ceil(LANES);
    let len = panels * depth * LANES;
    let chunks = (SUMS / len).clamp(1, CHUNKS).min(shape.batch);
    let groups = (2 * rayon::current_num_threads()).div_ceil(chunks).min(panels);
    with_buffer(&PARTIALS, chunks * len, |partials| {
        let shared = Shared::new(partials);
        (0..chunks * groups).into_par_iter().for_each(|task| {
            let (chunk, group) = (task / groups, task % groups);
            let images = chunk * shape.batch / chunks..(chunk + 1) * shape.batch / chunks;
            let panels = group * panels / groups..(group + 1) * panels / groups;
            // SAFETY: no two tasks have a chunk and a panel in common.
            let sums =
                unsafe { shared.slice(chunk * len + panels.start * depth * LANES, panels.len() * depth * LANES) };
            sums.fill(0.0);
            let band = Band::new(shape);
            let window = band.images * band.window_len();
            with_buffer(&ROWS, window + panels.len() * band.starts.len() * band.columns * LANES, |rows| {
                let (window, packed) = rows.split_at_mut(window);
                for first in images.clone().step_by(band.images) {
                    let images = first..images.end.min(first + band.images);
                    for row in (0..band.height).step_by(band.rows) {
                        add_band(&band, images.clone(), row, panels.clone(), dy, x, window, packed, sums);
                    }
                }
            });
        });
        let partials = &*partials;
        let add = |(panel, dw): (usize, &mut [f32])| {
            for k in 0..depth {
                let mut sums = [0.0; LANES];
                for partial in partials.chunks_exact(len) {
                    let partial = &partial[(panel * depth + k) * LANES..][..LANES];
                    sums.iter_mut().zip(partial).for_each(|(sum, partial)| *sum += partial);
                }
                dw[k..].iter_mut().step_by(depth).zip(sums).for_each(|(dw, sum)| *dw = sum);
            }
        };
        dw.par_chunks_mut(LANES * depth).enumerate().for_each(add);
    });
}

/// Places of some images whose inputs are copied at a time: some rows of one image, or all of several.
struct Band {
    shape: Conv2dShape,
    /// Rows and columns of places in an image.
    height: usize,
    columns: usize,
    images: usize,
    rows: usize,
    /// Pixels in a copied row.
    width: usize,
    /// Where each row of places begins in the copied rows of all images.
    starts: Vec<usize>,
}

fn pitch(width: usize, channels: usize) -> usize {
    let lines = (width * channels).div_ceil(LANES);
    (lines + usize::from(lines.is_multiple_of(2))) * LANES * usize::from(channels > 0)
}

impl Band {
    fn new(shape: Conv2dShape) -> Self {
        let [height, columns] = shape.output_size();
        let width = (columns - 1) * shape.stride[1] + shape.kernel[1];
        let pitch = pitch(width, shape.channels);
        let room = (COPIED / pitch.max(1)).saturating_sub(shape.kernel[0]) / shape.stride[0] + 1;
        let rows = room.min(height);
        let images = if rows < height {
            1
        } else {
            (PLACES / shape.output.div_ceil(LANES).clamp(1, PANELS) / (height * columns)).clamp(1, room / height)
        };
        let mut band = Self { shape, height, columns, images, rows, width, starts: Vec::new() };
        let row = |row| (row / rows * band.window_rows(rows) + row % rows * shape.stride[0]) * pitch;
        band.starts = (0..images * rows).map(row).collect();
        band
    }

    /// Rows of an image that `rows` rows of places read.
    fn window_rows(&self, rows: usize) -> usize {
        (rows - 1) * self.shape.stride[0] + self.shape.kernel[0]
    }

    fn pitch(&self) -> usize {
        pitch(self.width, self.shape.channels)
    }

    /// Numbers that are copied of an image.
    fn window_len(&self) -> usize {
        self.window_rows(self.rows) * self.pitch()
    }
}

dispatch!(
    add_band = add_band_body(
        band: &Band,
        images: Range<usize>,
        row: usize,
        panels: Range<usize>,
        dy: &[f32],
        x: &[f32],
        window: &mut [f32],
        packed: &mut [f32],
        sums: &mut [f32],
    )
);

#[inline(always)]
fn add_band_body<S: Simd>(
    band: &Band,
    images: Range<usize>,
    row: usize,
    panels: Range<usize>,
    dy: &[f32],
    x: &[f32],
    window: &mut [f32],
    packed: &mut [f32],
    sums: &mut [f32],
) {
    let Conv2dShape { height, width, channels, output, kernel, stride, padding, .. } = band.shape;
    let rows = band.rows.min(band.height - row);
    let places = rows * band.columns;
    let all_places = images.len() * places;
    for (index, image) in images.clone().enumerate() {
        let x = &x[image * height * width * channels..][..height * width * channels];
        let origin = [(row * stride[0]) as isize - padding[0] as isize, -(padding[1] as isize)];
        let window = &mut window[index * band.window_len()..][..band.window_rows(rows) * band.pitch()];
        copy_window(x, [height, width, channels], origin, band.pitch(), window);
        let dy = &dy[(image * band.height + row) * band.columns * output..][..places * output];
        for (panel, packed) in panels.clone().zip(packed.chunks_exact_mut(all_places * LANES)) {
            let width = LANES.min(output - panel * LANES);
            let packed = packed[index * places * LANES..][..places * LANES].as_chunks_mut::<LANES>().0;
            for (packed, dy) in packed.iter_mut().zip(dy.chunks_exact(output)) {
                let dy = &dy[panel * LANES..][..width];
                match dy.try_into() {
                    Ok(dy) => *packed = dy,
                    Err(_) => {
                        *packed = [0.0; LANES];
                        packed[..width].copy_from_slice(dy);
                    }
                }
            }
        }
    }
    let starts = &band.starts[..images.len() * rows];
    let run = kernel[1] * channels;
    let depth = kernel[0] * run;
    let tiles = run.div_ceil(S::TILE);
    let (low, taller) = (run / tiles, run % tiles);
    let at_a_time = (PLACES / panels.len().min(PANELS) / band.columns).max(1);
    let packed = packed.as_chunks::<LANES>().0;
    let sums = sums.as_chunks_mut::<LANES>().0;
    for (first, starts) in (0..).step_by(at_a_time).zip(starts.chunks(at_a_time)) {
        for group in (0..panels.len()).step_by(PANELS) {
            let group = group..panels.len().min(group + PANELS);
            for a in 0..kernel[0] {
                for (first_tile, count, height) in [(0, taller, low + 1), (taller, tiles - taller, low)] {
                    if count == 0 {
                        continue;
                    }
                    for_height!(height, S::TILE, HEIGHT => {
                        for tile in 0..count {
                            // The tall tiles come first.
                            let k = a * run + tile * HEIGHT + first_tile * (low + 1);
                            let window = &window[a * band.pitch() + k - a * run..];
                            for panel in group.clone() {
                                let dy = &packed[panel * all_places + first * band.columns..];
                                let products = tile_sums::<S, HEIGHT>(window, starts, stride[1] * channels, dy, band.columns);
                                let sums = &mut sums[panel * depth + k..][..HEIGHT];
                                for (sum, sums) in products.into_iter().zip(sums) {
                                    let before = *sums;
                                    store::<S>(sum, 1.0, &before, sums);
                                }
                            }
                        }
                    });
                }
            }
        }
    }
}

/// The sums over the places, `columns` from each of `starts`, of `HEIGHT` numbers of `x` times the lanes of `dy`.
#[inline(always)]
fn tile_sums<S: Simd, const HEIGHT: usize>(
    x: &[f32],
    starts: &[usize],
    step: usize,
    dy: &[[f32; LANES]],
    columns: usize,
) -> [S::Lanes; HEIGHT] {
    let last = starts.last().expect("a row");
    assert!(dy.len() >= starts.len() * columns && x.len() >= last + (columns - 1) * step + HEIGHT, "places of a tile");
    // SAFETY, here and below: kernels are instantiated for a set by `dispatch`, where the processor has it.
    let mut sums = [unsafe { S::splat(0.0) }; HEIGHT];
    let mut dy = dy.as_ptr();
    for &start in starts {
        unsafe {
            let mut x = x.as_ptr().add(start);
            for _ in 0..columns {
                let b = S::load(&*dy);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::mul_add(S::splat(*x.add(i)), b, *sum);
                }
                dy = dy.add(1);
                x = x.wrapping_add(step);
            }
        }
    }
    sums
}
