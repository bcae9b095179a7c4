//! Root mean square normalisation of a sum (Zhang and Sennrich, 1910.07467, eq. 4), and its backward pass: the
//! functions of [`layer_norm`](crate::layer_norm) without mean and bias.

use rayon::prelude::*;

use crate::chunks::{for_each_chunk, map_chunks, rows_per_chunk};
use crate::layer_norm::{add, check};
use crate::math::{dot, mul_add};
use crate::simd::{Simd, dispatch};

/// `y = s / sqrt(mean(s²) + eps) * weight` for each row of `s = x + residual`.
///
/// `x`, `residual` and `y` `[n, width]`, `weight` `[width]`.
pub fn rms_norm(x: &[f32], residual: Option<&[f32]>, weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    check(width, &[x, residual.unwrap_or(x), y]);
    for_each_chunk(y, rows_per_chunk(width) * width, |start, y| {
        let here = start..start + y.len();
        forward(&x[here.clone()], residual.map(|r| &r[here]), weight, eps, y);
    });
}

/// [`rms_norm`] that gives the sum too, which a block that normalises before the residual hands on: `sum = x +
/// residual`, `y = rms_norm(sum)`.
pub fn add_rms_norm(x: &[f32], residual: &[f32], weight: &[f32], eps: f32, sum: &mut [f32], y: &mut [f32]) {
    let width = weight.len();
    check(width, &[x, residual, sum, y]);
    let size = rows_per_chunk(width) * width;
    let inputs = x.par_chunks(size).zip(residual.par_chunks(size));
    inputs.zip(sum.par_chunks_mut(size).zip(y.par_chunks_mut(size))).for_each(|((x, residual), (sum, y))| {
        add(x, residual, sum);
        forward(sum, None, weight, eps, y);
    });
}

/// The gradients of [`rms_norm`]: `dx` (which is also the residual's) `[n, width]`, `dweight` `[width]`.
pub fn rms_norm_backward(
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    check(weight.len(), &[x, residual.unwrap_or(x), dy, dx]);
    assert_eq!(dweight.len(), weight.len(), "a gradient as wide as the weight");
    gradients(dx, dweight, |start, dx, dweight| {
        let here = start..start + dx.len();
        backward(&x[here.clone()], residual.map(|r| &r[here.clone()]), weight, eps, &dy[here], dx, dweight);
    });
}

/// The gradients of [`add_rms_norm`] given its `sum` and the gradients of both outputs, `dsum` and `dy`: `dx` is also
/// the residual's.
pub fn add_rms_norm_backward(
    sum: &[f32],
    weight: &[f32],
    eps: f32,
    dsum: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    check(weight.len(), &[sum, dsum, dy, dx]);
    assert_eq!(dweight.len(), weight.len(), "a gradient as wide as the weight");
    gradients(dx, dweight, |start, dx, dweight| {
        let here = start..start + dx.len();
        backward(&sum[here.clone()], None, weight, eps, &dy[here.clone()], dx, dweight);
        dx.iter_mut().zip(&dsum[here]).for_each(|(dx, dsum)| *dx += dsum);
    });
}

/// Calls `f(start, dx, dweight)` for each chunk of `dx`; what it adds to the latter is summed in order.
fn gradients(dx: &mut [f32], dweight: &mut [f32], f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync) {
    let width = dweight.len();
    let partials = map_chunks(dx, rows_per_chunk(width) * width, |start, dx| {
        let mut partial = vec![0.0; width];
        f(start, dx, &mut partial);
        partial
    });
    dweight.fill(0.0);
    for partial in &partials {
        dweight.iter_mut().zip(partial).for_each(|(total, partial)| *total += partial);
    }
}

/// Writes `x + residual` into `out` and returns `1 / sqrt(mean square + eps)`.
#[inline(always)]
fn inverse_root<S: Simd>(x: &[f32], residual: Option<&[f32]>, eps: f32, out: &mut [f32]) -> f32 {
    match residual {
        Some(residual) => add(x, residual, out),
        None => out.copy_from_slice(x),
    }
    1.0 / (dot::<S>(out, out) / out.len() as f32 + eps).sqrt()
}

dispatch!(
    forward = forward_body(x: &[f32], residual: Option<&[f32]>, weight: &[f32], eps: f32, y: &mut [f32])
);

#[inline(always)]
fn forward_body<S: Simd>(x: &[f32], residual: Option<&[f32]>, weight: &[f32], eps: f32, y: &mut [f32]) {
    let width = weight.len();
    for (row, y) in y.chunks_exact_mut(width).enumerate() {
        let here = row * width..(row + 1) * width;
        let inverse = inverse_root::<S>(&x[here.clone()], residual.map(|r| &r[here]), eps, y);
        for (y, weight) in y.iter_mut().zip(weight) {
            *y = *y * inverse * weight;
        }
    }
}

dispatch!(
    backward = backward_body(
        x: &[f32],
        residual: Option<&[f32]>,
        weight: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
    )
);

/// With `n = s inverse` and `g = dy weight`, both per row: `dx = inverse (g - n mean(g n))`, `dweight = Σ dy n`.
#[inline(always)]
fn backward_body<S: Simd>(
    x: &[f32],
    residual: Option<&[f32]>,
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    let mut g = vec![0.0; width];
    for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
        let here = row * width..(row + 1) * width;
        let inverse = inverse_root::<S>(&x[here.clone()], residual.map(|r| &r[here.clone()]), eps, dx);
        // dx holds n from here on.
        for (i, dy) in dy[here].iter().enumerate() {
            dx[i] *= inverse;
            g[i] = dy * weight[i];
            dweight[i] = mul_add::<S>(*dy, dx[i], dweight[i]);
        }
        let mean = dot::<S>(&g, dx) / width as f32;
        for (dx, g) in dx.iter_mut().zip(&g) {
            *dx = inverse * mul_add::<S>(-*dx, mean, *g);
        }
    }
}
