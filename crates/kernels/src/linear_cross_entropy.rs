//! The loss of a language model's head, `cross_entropy(x wᵀ)`, and its gradients, without the logits of all rows: these
//! are as much larger than `x` as the vocabulary is larger than the width.
//!
//! Rows go by in tiles. A tile's logits become their gradient in place and are multiplied back into `dx` and `dw`
//! before the next tile. They lie in blocks of columns, `[blocks][rows][columns]`, so that the factors of each product
//! are whole matrices and what is added to a sum is still in the cache.

use std::ops::Range;

use rayon::prelude::*;

use crate::chunks::{ELEMENTS, for_each_chunk, rows_per_chunk};
use crate::cross_entropy::{CrossEntropyError, IGNORED, check};
use crate::math::{exp, max, mul_add, soft_cap, sum_of_exponentials};
use crate::packing::Matrix;
use crate::precision::Precision;
use crate::product::{Terms, product};
use crate::rng::Stream;
use crate::simd::{LANES, Simd, dispatch};

/// What the matrices do not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearCrossEntropy {
    /// Elements of a row of `x` and of `w`.
    pub width: usize,
    /// What the sum over the rows is divided by.
    pub normalizer: f32,
    /// Logits `l` become `cap * tanh(l / cap)` (Gemma 2, 2408.00118).
    pub soft_cap: Option<f32>,
    /// Of the three products.
    pub precision: Precision,
}

/// Logits of a tile, 32 MiB, at most,
const TILE: usize = 8 << 20;

/// but these rows at least, or packing `w` would take as long as multiplying, and no more than these, which gain
/// nothing.
const ROWS: Range<usize> = 64..512;

/// Numbers of `w` that belong to a block of columns.
const BLOCK: usize = 1 << 20;

/// Where the tokens that a loss draws come from: draws belong to seed, step and row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawKey {
    pub seed: u64,
    pub step: u64,
}

/// `Σ_rows -log softmax(x wᵀ)[target] / normalizer`, in nats, summed in `f64` in the order of the rows; with
/// `gradients`, `dx` and `dw`, also these.
///
/// `x` and `dx` `[n, width]`, `w` and `dw` `[vocabulary, width]`, `targets [n]`. Rows whose target is [`IGNORED`] count
/// nothing, cost nothing and get a gradient of 0.
///
/// # Errors
/// As [`check`]; nothing has been written then.
pub fn linear_cross_entropy(
    settings: &LinearCrossEntropy,
    x: &[f32],
    w: &[f32],
    targets: &[i64],
    gradients: Option<(&mut [f32], &mut [f32])>,
) -> Result<f64, CrossEntropyError> {
    all_tiles(settings, x, w, targets, gradients, None)
}

/// As [`linear_cross_entropy`], and for each row that counts one token `[n]` drawn from `softmax(x wᵀ)`: what the loss of
/// unrolled denoising goes on from. A row that does not count keeps the token it has.
///
/// # Errors
/// As [`check`]; nothing has been written then.
pub fn linear_cross_entropy_drawing(
    settings: &LinearCrossEntropy,
    x: &[f32],
    w: &[f32],
    targets: &[i64],
    gradients: Option<(&mut [f32], &mut [f32])>,
    key: DrawKey,
    tokens: &mut [u32],
) -> Result<f64, CrossEntropyError> {
    assert_eq!(tokens.len(), targets.len(), "a token for each row");
    all_tiles(settings, x, w, targets, gradients, Some((key, tokens)))
}

fn all_tiles(
    settings: &LinearCrossEntropy,
    x: &[f32],
    w: &[f32],
    targets: &[i64],
    mut gradients: Option<(&mut [f32], &mut [f32])>,
    mut drawn: Option<(DrawKey, &mut [u32])>,
) -> Result<f64, CrossEntropyError> {
    let width = settings.width;
    assert!(width > 0 && x.len().is_multiple_of(width) && w.len().is_multiple_of(width), "rows of {width}");
    let vocabulary = w.len() / width;
    check(targets, x.len() / width, vocabulary)?;
    if let Some((dx, dw)) = &mut gradients {
        assert!(dx.len() == x.len() && dw.len() == w.len(), "a gradient per element");
        dx.fill(0.0);
        dw.fill(0.0);
    }
    let counted: Vec<usize> = (0..targets.len()).filter(|&row| targets[row] != IGNORED).collect();
    let tile_rows = (TILE / vocabulary.max(1)).clamp(ROWS.start, ROWS.end).min(counted.len());
    let columns = (BLOCK / width).next_multiple_of(LANES).clamp(LANES, vocabulary.max(LANES));
    let mut buffers = Buffers::new(tile_rows, width, vocabulary, columns, gradients.is_some());
    let mut total = 0.0;
    for rows in counted.chunks(tile_rows.max(1)) {
        let Buffers { x: tile_x, logits, dx: tile_dx, part } = &mut buffers;
        let (n, tile_x) = (rows.len(), &mut tile_x[..rows.len() * width]);
        for (&row, tile_x) in rows.iter().zip(tile_x.chunks_exact_mut(width)) {
            tile_x.copy_from_slice(&x[row * width..][..width]);
        }
        let tile_x = Matrix::row_major(tile_x, n, width);
        let key = drawn.as_ref().map(|(key, _)| *key);
        let mut rows_of_tile: Vec<Row> = rows.iter().map(|&row| Row::new(targets[row] as usize, key, row)).collect();

        let blocks = || w.chunks(columns * width).enumerate();
        for (block, w) in blocks() {
            let (first, here) = (block * columns, w.len() / width);
            let logits = &mut logits[n * first..][..n * here];
            let w = Matrix::row_major(w, here, width).transposed();
            product(tile_x, w, Terms::default(), settings.precision, logits);
            for_each_row(logits, here, &mut rows_of_tile, |logits, row| {
                see(logits, first, settings.soft_cap, row);
            });
        }
        total = rows_of_tile.iter().fold(total, |total, row| total + row.loss());
        if let Some((_, tokens)) = &mut drawn {
            rows.iter().zip(&rows_of_tile).for_each(|(&row, seen)| tokens[row] = seen.token);
        }

        let Some((dx, dw)) = &mut gradients else { continue };
        let tile_dx = &mut tile_dx[..n * width];
        tile_dx.fill(0.0);
        for ((block, w), dw) in blocks().zip(dw.chunks_mut(columns * width)) {
            let (first, here) = (block * columns, w.len() / width);
            let logits = &mut logits[n * first..][..n * here];
            for_each_row(logits, here, &mut rows_of_tile, |logits, row| {
                to_gradient(logits, first, settings, row);
            });
            let dlogits = Matrix::row_major(logits, n, here);
            add_product(dlogits, Matrix::row_major(w, here, width), settings.precision, part, tile_dx);
            add_product(dlogits.transposed(), tile_x, settings.precision, part, dw);
        }
        for (&row, tile_dx) in rows.iter().zip(tile_dx.chunks_exact(width)) {
            dx[row * width..][..width].copy_from_slice(tile_dx);
        }
    }
    Ok(total / f64::from(settings.normalizer))
}

/// What a tile needs.
struct Buffers {
    x: Vec<f32>,
    logits: Vec<f32>,
    dx: Vec<f32>,
    /// A product before it is added to a sum.
    part: Vec<f32>,
}

impl Buffers {
    fn new(rows: usize, width: usize, vocabulary: usize, columns: usize, gradients: bool) -> Self {
        let zeros = |n: usize| vec![0.0; n];
        let (dx, part) = if gradients { (rows * width, rows.max(columns) * width) } else { (0, 0) };
        Self { x: zeros(rows * width), logits: zeros(rows * vocabulary), dx: zeros(dx), part: zeros(part) }
    }
}

/// `c += a b`. The sum over tiles or blocks has the order of the calls.
fn add_product(a: Matrix, b: Matrix, precision: Precision, part: &mut [f32], c: &mut [f32]) {
    let part = &mut part[..c.len()];
    product(a, b, Terms::default(), precision, part);
    for_each_chunk(c, ELEMENTS, |start, c| {
        c.iter_mut().zip(&part[start..]).for_each(|(c, part)| *c += part);
    });
}

/// The softmax of a row as far as its blocks have been seen.
struct Row {
    target: usize,
    target_logit: f32,
    largest: f32,
    /// Of the exponentials of the logits less the largest.
    sum: f64,
    /// What draws.
    stream: Option<Stream>,
    /// Drawn from what has been seen.
    token: u32,
}

impl Row {
    fn new(target: usize, key: Option<DrawKey>, row: usize) -> Self {
        let stream = key.map(|key| Stream::at_place(key.seed, key.step, row as u64));
        Self { target, target_logit: 0.0, largest: f32::NEG_INFINITY, sum: 0.0, stream, token: 0 }
    }

    fn loss(&self) -> f64 {
        self.sum.ln() + f64::from(self.largest) - f64::from(self.target_logit)
    }
}

/// Calls `f` for each row of a block of logits, in parallel.
fn for_each_row(logits: &mut [f32], columns: usize, rows: &mut [Row], f: impl Fn(&mut [f32], &mut Row) + Sync) {
    let at_a_time = rows_per_chunk(columns);
    let tasks = logits.par_chunks_mut(at_a_time * columns).zip(rows.par_chunks_mut(at_a_time));
    tasks
        .for_each(|(logits, rows)| logits.chunks_exact_mut(columns).zip(rows).for_each(|(logits, row)| f(logits, row)));
}

dispatch!(see = see_body(logits: &mut [f32], first: usize, cap: Option<f32>, row: &mut Row));

/// Caps a row's logits from column `first` on and counts them.
#[inline(always)]
fn see_body<S: Simd>(logits: &mut [f32], first: usize, cap: Option<f32>, row: &mut Row) {
    if let Some(cap) = cap {
        soft_cap::<S>(logits, cap);
    }
    if let Some(logit) = row.target.checked_sub(first).and_then(|column| logits.get(column)) {
        row.target_logit = *logit;
    }
    let largest = row.largest.max(max(logits));
    // Logits of minus infinity only count nothing so far.
    let shift = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
    row.sum *= f64::from(row.largest - shift).exp();
    let sum = f64::from(sum_of_exponentials::<S>(logits, shift));
    row.sum += sum;
    row.largest = largest;
    if let Some(stream) = &mut row.stream {
        // A block takes the draw from those before it as often as is its share of all so far (Chao, 1982).
        let [block, column] = [(); 2].map(|()| f64::from(stream.uniform()));
        if block * row.sum < sum {
            row.token = (first + pick::<S>(logits, shift, column * sum)) as u32;
        }
    }
}

/// The first column up to which the exponentials sum to more than `wanted`, else the last that has one.
#[inline(always)]
fn pick<S: Simd>(logits: &[f32], shift: f32, wanted: f64) -> usize {
    let (mut sum, mut last) = (0.0, 0);
    for (column, logit) in logits.iter().enumerate() {
        let share = f64::from(exp::<S>(logit - shift));
        if share > 0.0 {
            (sum, last) = (sum + share, column);
            if sum > wanted {
                break;
            }
        }
    }
    last
}

dispatch!(to_gradient = to_gradient_body(logits: &mut [f32], first: usize, settings: &LinearCrossEntropy, row: &Row));

/// Turns a row's logits from column `first` on into the gradient of the loss, `(softmax - onehot) / normalizer`, times
/// the derivative of the cap, `1 - (l / cap)²`.
#[inline(always)]
fn to_gradient_body<S: Simd>(logits: &mut [f32], first: usize, settings: &LinearCrossEntropy, row: &Row) {
    let inverse_normalizer = 1.0 / settings.normalizer;
    let factor = (f64::from(inverse_normalizer) / row.sum) as f32;
    let inverse_cap = settings.soft_cap.map_or(0.0, |cap| 1.0 / cap);
    let slope = |logit: f32| {
        let ratio = logit * inverse_cap;
        mul_add::<S>(-ratio, ratio, 1.0)
    };
    match settings.soft_cap {
        Some(_) => logits.iter_mut().for_each(|l| *l = slope(*l) * factor * exp::<S>(*l - row.largest)),
        None => logits.iter_mut().for_each(|l| *l = factor * exp::<S>(*l - row.largest)),
    }
    if let Some(gradient) = row.target.checked_sub(first).and_then(|column| logits.get_mut(column)) {
        *gradient -= inverse_normalizer * slope(row.target_logit);
    }
}
