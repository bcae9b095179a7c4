//! Pooling of channels-last images.

use crate::chunks::{for_each_chunk, rows_per_chunk};
use crate::simd::{LANES, Simd, dispatch};

/// The mean over the pixels: `x [n, pixels, channels]`, `y [n, channels]`; NaN where there are no pixels.
pub fn global_average_pool(x: &[f32], pixels: usize, channels: usize, y: &mut [f32]) {
    check(x, pixels, channels, y);
    let images = rows_per_chunk(pixels * channels);
    for_each_chunk(y, images * channels, |start, y| {
        means(&x[start * pixels..][..y.len() * pixels], pixels, channels, y)
    });
}

/// The gradient of [`global_average_pool`]: `dy [n, channels]`, `dx [n, pixels, channels]`.
pub fn global_average_pool_backward(dy: &[f32], pixels: usize, channels: usize, dx: &mut [f32]) {
    check(dx, pixels, channels, dy);
    let share = 1.0 / pixels as f32;
    let images = rows_per_chunk(pixels * channels);
    for_each_chunk(dx, images * pixels * channels, |start, dx| {
        let dy = dy[start / pixels..].chunks_exact(channels);
        for (dx, dy) in dx.chunks_exact_mut(pixels * channels).zip(dy) {
            for dx in dx.chunks_exact_mut(channels) {
                dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = share * dy);
            }
        }
    });
}

fn check(x: &[f32], pixels: usize, channels: usize, y: &[f32]) {
    assert!(channels > 0 && y.len().is_multiple_of(channels), "rows of {channels} channels");
    assert_eq!(x.len(), y.len() * pixels, "{pixels} pixels for each row of the means");
}

dispatch!(means = means_body(x: &[f32], pixels: usize, channels: usize, y: &mut [f32]));

#[inline(always)]
fn means_body<S: Simd>(x: &[f32], pixels: usize, channels: usize, y: &mut [f32]) {
    /// Pixels after which their sum is added to the total, which keeps the rounding error of long sums small.
    const PIXELS: usize = 64;
    let share = 1.0 / pixels as f32;
    for (image, y) in y.chunks_exact_mut(channels).enumerate() {
        let x = &x[image * pixels * channels..][..pixels * channels];
        for (start, y) in (0..channels).step_by(LANES).zip(y.chunks_mut(LANES)) {
            let mut total = [0.0; LANES];
            for x in x.chunks(PIXELS * channels) {
                let mut sum = [0.0; LANES];
                for x in x.chunks_exact(channels) {
                    let x = &x[start..start + y.len()];
                    match <&[f32; LANES]>::try_from(x) {
                        Ok(x) => (0..LANES).for_each(|i| sum[i] += x[i]),
                        Err(_) => sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x),
                    }
                }
                (0..LANES).for_each(|i| total[i] += sum[i]);
            }
            y.iter_mut().zip(total).for_each(|(y, total)| *y = total * share);
        }
    }
}
