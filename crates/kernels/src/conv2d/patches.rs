//! What the patches that a convolution reads have in common: the input's Kronecker factor of its curvature.
//!
//! Patches overlap, so that nearly all entries of `Σ p pᵀ` are the same number: the product of two of a patch's places
//! depends, but for the images' edges, on how far these are apart. A kernel of 3x3 has 81 pairs of places and 25
//! distances, 13 up to transposition. Sums over whole images of each distance are what the gradient of a convolution's
//! weights is when the images stand for the output's gradient, and the edges are lines and corners.

use rayon::prelude::*;

use super::{Conv2dShape, conv2d_backward_weight};
use crate::linear::linear_backward_weight;
use crate::precision::Precision;

/// Numbers of patches that are written out at a time, where they have to be.
const WRITTEN: usize = 1 << 22;

/// `out = Σ p pᵀ`, `[depth, depth]`, over the patches `p` that the output's places of all images read; their numbers in the
/// order of a weight's, zeros outside of the images. The shape's `output` does not matter.
pub fn patch_products(x: &[f32], shape: Conv2dShape, out: &mut [f32]) {
    let depth = shape.depth();
    assert_eq!(x.len(), shape.input_len(), "the images of {shape:?}");
    assert_eq!(out.len(), depth * depth, "the products of {shape:?}");
    let places: usize = shape.output_size().iter().product();
    if shape.batch * places * depth == 0 {
        return out.fill(0.0);
    }
    match (shape.kernel, shape.stride, shape.padding) {
        ([1, 1], [1, 1], [0, 0]) => {
            let pixels = x.len() / shape.channels;
            linear_backward_weight(x, x, pixels, shape.channels, shape.channels, Precision::F32, out);
        }
        ([3, 3], [1, 1], [1, 1]) => by_distance(x, shape, out),
        _ => written_out(x, shape, out),
    }
}

/// `out = Σ p`, `[depth]`, over the same patches.
pub fn patch_sums(x: &[f32], shape: Conv2dShape, out: &mut [f32]) {
    assert_eq!(x.len(), shape.input_len(), "the images of {shape:?}");
    assert_eq!(out.len(), shape.depth(), "the sums of {shape:?}");
    let channels = shape.channels;
    let [height, width] = shape.output_size();
    out.par_chunks_mut(channels.max(1)).enumerate().for_each(|(tap, out)| {
        let mut sums = vec![0.0f64; channels];
        let (a, b) = (tap / shape.kernel[1], tap % shape.kernel[1]);
        for image in x.chunks_exact((shape.height * shape.width * channels).max(1)) {
            for row in (0..height).filter_map(|i| (i * shape.stride[0] + a).checked_sub(shape.padding[0])) {
                if row >= shape.height {
                    continue;
                }
                for column in (0..width).filter_map(|j| (j * shape.stride[1] + b).checked_sub(shape.padding[1])) {
                    if column < shape.width {
                        let pixel = &image[(row * shape.width + column) * channels..][..channels];
                        sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += f64::from(*x));
                    }
                }
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
    });
}

/// `Σ x(q) x(q + δ)ᵀ` over all places `q` of images `[batch, height, width, channels]` for which both lie inside:
/// `[channels, rows, columns, channels]` with `rows` distances 0, 1, … downwards and `columns`, odd, around 0 sideways.
fn correlations(x: &[f32], [batch, height, width, channels]: [usize; 4], rows: usize, columns: usize) -> Vec<f32> {
    let mut products = vec![0.0; channels * rows * columns * channels];
    // Rows of zeros below: places that look beyond the image find nothing.
    let padded = match rows {
        1 => None,
        _ => {
            let (from, to) = (height * width * channels, (height + rows - 1) * width * channels);
            let mut padded = vec![0.0; batch * to];
            let images = padded.par_chunks_exact_mut(to).zip(x.par_chunks_exact(from));
            images.for_each(|(padded, x)| padded[..from].copy_from_slice(x));
            Some(padded)
        }
    };
    let shape = Conv2dShape {
        batch,
        height: height + rows - 1,
        width,
        channels,
        output: channels,
        kernel: [rows, columns],
        stride: [1, 1],
        padding: [0, columns / 2],
    };
    conv2d_backward_weight(x, padded.as_deref().unwrap_or(x), shape, &mut products);
    products
}

/// For a kernel of 3x3 with a padding of 1 at every place.
fn by_distance(x: &[f32], shape: Conv2dShape, out: &mut [f32]) {
    let Conv2dShape { batch, height, width, channels, .. } = shape;
    // All places: also patches around places just outside of the images, which no output has.
    let all = correlations(x, [batch, height, width, channels], 3, 5);
    // Of those outside, what two places of a patch find inside lies on an edge: both in the same row or column of the
    // patch, that on the other side.
    let pixel = |image: usize, row: usize, column: usize| {
        &x[((image * height + row) * width + column) * channels..][..channels]
    };
    let line = |places: &dyn Fn(usize) -> Vec<(usize, usize)>, length: usize| {
        let of_image = |image| places(image).into_iter().flat_map(move |(row, column)| pixel(image, row, column));
        let line: Vec<f32> = (0..batch).flat_map(of_image).copied().collect();
        correlations(&line, [batch, 1, length, channels], 1, 5)
    };
    let row = |row: usize| line(&|_| (0..width).map(|column| (row, column)).collect(), width);
    let column = |column: usize| line(&|_| (0..height).map(|row| (row, column)).collect(), height);
    // By the row, column of the patch: its last finds the image's first.
    let rows = [row(height - 1), Vec::new(), row(0)];
    let columns = [column(width - 1), Vec::new(), column(0)];
    let corner = |row: usize, column: usize| {
        let corners: Vec<f32> = (0..batch).flat_map(|image| pixel(image, row, column)).copied().collect();
        let mut products = vec![0.0; channels * channels];
        linear_backward_weight(&corners, &corners, batch, channels, channels, Precision::F32, &mut products);
        products
    };
    let corners = [
        [corner(height - 1, width - 1), Vec::new(), corner(height - 1, 0)],
        [Vec::new(), Vec::new(), Vec::new()],
        [corner(0, width - 1), Vec::new(), corner(0, 0)],
    ];

    let depth = 9 * channels;
    out.par_chunks_exact_mut(depth).enumerate().for_each(|(index, out)| {
        let (tap, c) = (index / channels, index % channels);
        let [a, b] = [tap / 3, tap % 3];
        for (other, out) in out.chunks_exact_mut(channels).enumerate() {
            let [a2, b2] = [other / 3, other % 3];
            let (down, right) = (a2 as isize - a as isize, b2 as isize - b as isize);
            for (c2, out) in out.iter_mut().enumerate() {
                // A distance upwards is the same distance downwards seen from the other place.
                let (down, right, c, c2) = if down < 0 { (-down, -right, c2, c) } else { (down, right, c, c2) };
                let sideways = (right + 2) as usize;
                let mut sum = all[((c * 3 + down as usize) * 5 + sideways) * channels + c2];
                if a == a2 && a != 1 {
                    sum -= rows[a][(c * 5 + sideways) * channels + c2];
                }
                if b == b2 && b != 1 {
                    sum -= columns[b][(c * 5 + (down + 2) as usize) * channels + c2];
                    if a == a2 && a != 1 {
                        sum += corners[a][b][c * channels + c2];
                    }
                }
                *out = sum;
            }
        }
    });
}

/// With the patches in memory, some images at a time.
fn written_out(x: &[f32], shape: Conv2dShape, out: &mut [f32]) {
    let depth = shape.depth();
    let places: usize = shape.output_size().iter().product();
    let image = shape.height * shape.width * shape.channels;
    let images = (WRITTEN / (places * depth)).max(1);
    let mut products = vec![0.0; depth * depth];
    out.fill(0.0);
    for x in x.chunks(images * image) {
        let mut patches = vec![0.0; x.len() / image * places * depth];
        patches.par_chunks_exact_mut(places * depth).zip(x.par_chunks_exact(image)).for_each(|(patches, x)| {
            write_patches(x, &shape, patches);
        });
        let rows = patches.len() / depth;
        linear_backward_weight(&patches, &patches, rows, depth, depth, Precision::F32, &mut products);
        out.iter_mut().zip(&products).for_each(|(out, product)| *out += product);
    }
}

/// The patches of an image, `[places, depth]`, over zeros.
fn write_patches(image: &[f32], shape: &Conv2dShape, patches: &mut [f32]) {
    let [_, columns] = shape.output_size();
    for (place, patch) in patches.chunks_exact_mut(shape.depth()).enumerate() {
        let (row, column) = (place / columns * shape.stride[0], place % columns * shape.stride[1]);
        for (tap, pixel) in patch.chunks_exact_mut(shape.channels).enumerate() {
            let (y, x) = (row + tap / shape.kernel[1], column + tap % shape.kernel[1]);
            let (Some(y), Some(x)) = (y.checked_sub(shape.padding[0]), x.checked_sub(shape.padding[1])) else {
                continue;
            };
            if y < shape.height && x < shape.width {
                pixel.copy_from_slice(&image[(y * shape.width + x) * shape.channels..][..shape.channels]);
            }
        }
    }
}
