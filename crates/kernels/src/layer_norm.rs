//! Layer normalisation of a sum, `LN(x + residual)` (Ba, Kiros and Hinton, 2016), and its backward pass.
//!
//! A block that normalises after the residual wants the normalised sum only, one that normalises before it the sum as
//! well, for the next residual: [`add_layer_norm`].

use rayon::prelude::*;

use crate::chunks::{for_each_chunk, map_chunks, rows_per_chunk};
use crate::math::{dot, mul_add, sum, sum_of_squared_deviations};
use crate::simd::{Simd, dispatch};

/// `y = (s - mean) / sqrt(variance + eps) * gamma + beta` for each row of `s = x + residual`.
///
/// `x`, `residual` and `y` `[n, width]`, `gamma` and `beta` `[width]`; the variance is the biased one.
pub fn layer_norm(x: &[f32], residual: Option<&[f32]>, gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let width = gamma.len();
    check(width, &[x, residual.unwrap_or(x), y]);
    assert_eq!(beta.len(), width, "a beta per gamma");
    for_each_chunk(y, rows_per_chunk(width) * width, |start, y| {
        let here = start..start + y.len();
        forward(&x[here.clone()], residual.map(|r| &r[here]), gamma, beta, eps, y);
    });
}

/// [`layer_norm`] that gives the sum too: `sum = x + residual`, `y = LN(sum)`.
pub fn add_layer_norm(
    x: &[f32],
    residual: &[f32],
    gamma: &[f32],
    beta: &[f32],
    eps: f32,
    sum: &mut [f32],
    y: &mut [f32],
) {
    let width = gamma.len();
    check(width, &[x, residual, sum, y]);
    assert_eq!(beta.len(), width, "a beta per gamma");
    let size = rows_per_chunk(width) * width;
    let inputs = x.par_chunks(size).zip(residual.par_chunks(size));
    inputs.zip(sum.par_chunks_mut(size).zip(y.par_chunks_mut(size))).for_each(|((x, residual), (sum, y))| {
        add(x, residual, sum);
        forward(sum, None, gamma, beta, eps, y);
    });
}

/// The gradients of [`layer_norm`]: `dx` (which is also the residual's) `[n, width]`, `dgamma` and `dbeta` `[width]`.
pub fn layer_norm_backward(
    x: &[f32],
    residual: Option<&[f32]>,
    gamma: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let width = gamma.len();
    check(width, &[x, residual.unwrap_or(x), dy, dx]);
    gradients(width, dx, dgamma, dbeta, |start, dx, dgamma, dbeta| {
        let here = start..start + dx.len();
        backward(&x[here.clone()], residual.map(|r| &r[here.clone()]), gamma, eps, &dy[here], dx, dgamma, dbeta);
    });
}

/// The gradients of [`add_layer_norm`] given its `sum` and the gradients of both outputs, `dsum` and `dy`: `dx` is also
/// the residual's.
pub fn add_layer_norm_backward(
    sum: &[f32],
    gamma: &[f32],
    eps: f32,
    dsum: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let width = gamma.len();
    check(width, &[sum, dsum, dy, dx]);
    gradients(width, dx, dgamma, dbeta, |start, dx, dgamma, dbeta| {
        let here = start..start + dx.len();
        backward(&sum[here.clone()], None, gamma, eps, &dy[here.clone()], dx, dgamma, dbeta);
        dx.iter_mut().zip(&dsum[here]).for_each(|(dx, dsum)| *dx += dsum);
    });
}

/// Calls `f(start, dx, dgamma, dbeta)` for each chunk of `dx`; what it adds to the latter two is summed in order.
fn gradients(
    width: usize,
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    f: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    assert!(dgamma.len() == width && dbeta.len() == width, "gradients as wide as gamma");
    let partials = map_chunks(dx, rows_per_chunk(width) * width, |start, dx| {
        let mut partial = vec![0.0; 2 * width];
        let (dgamma, dbeta) = partial.split_at_mut(width);
        f(start, dx, dgamma, dbeta);
        partial
    });
    dgamma.fill(0.0);
    dbeta.fill(0.0);
    for partial in &partials {
        for (total, partial) in dgamma.iter_mut().chain(dbeta.iter_mut()).zip(partial) {
            *total += partial;
        }
    }
}

pub(crate) fn check(width: usize, matrices: &[&[f32]]) {
    assert!(width > 0, "a width of 0 has no mean");
    assert!(
        matrices.iter().all(|m| m.len() == matrices[0].len() && m.len().is_multiple_of(width)),
        "matrices of equal size, {width} wide"
    );
}

#[inline(always)]
pub(crate) fn add(x: &[f32], residual: &[f32], sum: &mut [f32]) {
    for (sum, (x, residual)) in sum.iter_mut().zip(x.iter().zip(residual)) {
        *sum = x + residual;
    }
}

/// Writes `x + residual` into `out` and returns its mean and `1 / sqrt(variance + eps)`.
#[inline(always)]
fn statistics<S: Simd>(x: &[f32], residual: Option<&[f32]>, eps: f32, out: &mut [f32]) -> (f32, f32) {
    match residual {
        Some(residual) => add(x, residual, out),
        None => out.copy_from_slice(x),
    }
    let width = out.len() as f32;
    let mean = sum(out) / width;
    let variance = sum_of_squared_deviations::<S>(out, mean) / width;
    (mean, 1.0 / (variance + eps).sqrt())
}

dispatch!(
    forward = forward_body(
        x: &[f32],
        residual: Option<&[f32]>,
        gamma: &[f32],
        beta: &[f32],
        eps: f32,
        y: &mut [f32],
    )
);

#[inline(always)]
fn forward_body<S: Simd>(x: &[f32], residual: Option<&[f32]>, gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let width = gamma.len();
    for (row, y) in y.chunks_exact_mut(width).enumerate() {
        let here = row * width..(row + 1) * width;
        let (mean, inverse) = statistics::<S>(&x[here.clone()], residual.map(|r| &r[here]), eps, y);
        for (y, (gamma, beta)) in y.iter_mut().zip(gamma.iter().zip(beta)) {
            *y = mul_add::<S>((*y - mean) * inverse, *gamma, *beta);
        }
    }
}

dispatch!(
    backward = backward_body(
        x: &[f32],
        residual: Option<&[f32]>,
        gamma: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        dgamma: &mut [f32],
        dbeta: &mut [f32],
    )
);

/// With `n = (s - mean) inverse` and `g = dy gamma`, both per row:
/// `dx = inverse (g - mean(g) - n mean(g n))`, `dgamma = Σ dy n`, `dbeta = Σ dy`.
#[inline(always)]
fn backward_body<S: Simd>(
    x: &[f32],
    residual: Option<&[f32]>,
    gamma: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    let width = gamma.len();
    let mut g = vec![0.0; width];
    for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
        let here = row * width..(row + 1) * width;
        let (mean, inverse) = statistics::<S>(&x[here.clone()], residual.map(|r| &r[here.clone()]), eps, dx);
        // dx holds n from here on.
        for (i, dy) in dy[here].iter().enumerate() {
            dx[i] = (dx[i] - mean) * inverse;
            g[i] = dy * gamma[i];
            dgamma[i] = mul_add::<S>(*dy, dx[i], dgamma[i]);
            dbeta[i] += dy;
        }
        let mean_g = sum(&g) / width as f32;
        let mean_gn = dot::<S>(&g, dx) / width as f32;
        for (dx, g) in dx.iter_mut().zip(&g) {
            *dx = inverse * (g - mean_g - *dx * mean_gn);
        }
    }
}
