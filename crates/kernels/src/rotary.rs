//! Rotary position embedding (Su et al., 2104.09864, eq. 15): each head's vector is made of planes, and each plane is
//! turned by an angle proportional to the token's position, so that products of queries and keys depend on distances.
//!
//! Plane `i` holds the elements `i` and `i + head_width / 2`, as in Llama, Gemma and Hugging Face, not neighbours.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use crate::chunks::{for_each_chunk, rows_per_chunk};
use crate::math::mul_add;
use crate::simd::{Simd, dispatch};

/// How queries and keys are turned inside [`attention`](crate::attention::attention).
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Radians between a token and the next for each plane: `head_width / 2` of them, 0 for a plane that is not turned.
    pub frequencies: Arc<[f64]>,
    /// The position of each row's first token. `None`: 0.
    pub offsets: Option<Arc<[usize]>>,
}

impl Rotary {
    /// `base^(-2 i / head_width)` for plane `i`.
    pub fn new(base: f64, head_width: usize) -> Self {
        let frequency = |i| base.powf(-2.0 * i as f64 / head_width as f64);
        Self { frequencies: (0..head_width / 2).map(frequency).collect(), offsets: None }
    }

    /// All positions divided by `factor`: a context as many times as long (Chen et al., 2306.15595).
    pub fn scaled(self, factor: f64) -> Self {
        Self { frequencies: self.frequencies.iter().map(|frequency| frequency / factor).collect(), ..self }
    }

    /// The first token of each row is at `offsets[row]`.
    pub fn with_offsets(self, offsets: impl Into<Arc<[usize]>>) -> Self {
        Self { offsets: Some(offsets.into()), ..self }
    }
}

/// `y = x`, each head of token `t` turned as its position `positions[t]` says.
///
/// `x` and `y` `[tokens, heads * head_width]` with `head_width = 2 * frequencies.len()`.
pub fn rotate(x: &[f32], frequencies: &[f64], positions: &[usize], y: &mut [f32]) {
    apply(x, frequencies, positions, false, y);
}

/// The gradient of [`rotate`] with respect to `x` given that of `y`, which is `dy` turned back.
pub fn rotate_backward(dy: &[f32], frequencies: &[f64], positions: &[usize], dx: &mut [f32]) {
    apply(dy, frequencies, positions, true, dx);
}

fn apply(x: &[f32], frequencies: &[f64], positions: &[usize], back: bool, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "an output per input");
    if x.is_empty() {
        return;
    }
    let (tokens, head_width) = (positions.len(), 2 * frequencies.len());
    assert!(tokens > 0 && x.len().is_multiple_of(tokens), "a row per position");
    let width = x.len() / tokens;
    assert!(head_width > 0 && width.is_multiple_of(head_width), "whole heads of {head_width}");
    for_each_chunk(y, rows_per_chunk(width) * width, |start, y| {
        let mut angles = vec![0.0; head_width];
        let first = start / width;
        for (i, y) in y.chunks_exact_mut(width).enumerate() {
            angles_at(frequencies, positions[first + i], &mut angles);
            let x = &x[(first + i) * width..][..width];
            for (x, y) in x.chunks_exact(head_width).zip(y.chunks_exact_mut(head_width)) {
                turn_head(x, &angles, back, y);
            }
        }
    });
}

/// The angles of tokens at neighbouring positions, for rows that are turned where they lie, as cached keys and their
/// queries are. The same bits as [`rotate`]'s, however many tokens come together.
#[derive(Clone, Debug)]
pub struct Turns {
    /// `[tokens, 2, planes]`.
    table: Vec<f32>,
    head_width: usize,
}

impl Turns {
    /// Of the tokens at `positions`.
    pub fn new(frequencies: &[f64], positions: &[u32]) -> Self {
        let head_width = 2 * frequencies.len();
        let mut table = vec![0.0; positions.len() * head_width];
        for (position, angles) in positions.iter().zip(table.chunks_exact_mut(head_width.max(1))) {
            angles_at(frequencies, *position as usize, angles);
        }
        Self { table, head_width }
    }

    /// Turns these columns of each row of `rows [tokens, stride]`, which are whole heads.
    pub fn apply(&self, rows: &mut [f32], stride: usize, columns: Range<usize>) {
        if self.table.is_empty() {
            return;
        }
        let tokens = self.table.len() / self.head_width;
        assert_eq!(rows.len(), tokens * stride, "a row for each token");
        let is_whole = columns.end <= stride && columns.len().is_multiple_of(self.head_width);
        assert!(is_whole, "whole heads of {}", self.head_width);
        for_each_chunk(rows, rows_per_chunk(stride) * stride, |start, rows| {
            let angles = self.table[start / stride * self.head_width..].chunks_exact(self.head_width);
            for (row, angles) in rows.chunks_exact_mut(stride).zip(angles) {
                turn_heads(&mut row[columns.clone()], angles);
            }
        });
    }
}

/// The cosines of all planes, then their sines.
fn angles_at(frequencies: &[f64], position: usize, angles: &mut [f32]) {
    let (cosines, sines) = angles.split_at_mut(frequencies.len());
    for ((frequency, cosine), sine) in frequencies.iter().zip(cosines).zip(sines) {
        let (s, c) = (position as f64 * frequency).sin_cos();
        (*sine, *cosine) = (s as f32, c as f32);
    }
}

dispatch!(turn_heads = turn_heads_body(heads: &mut [f32], angles: &[f32]));

#[inline(always)]
fn turn_heads_body<S: Simd>(heads: &mut [f32], angles: &[f32]) {
    let (cosines, sines) = angles.split_at(angles.len() / 2);
    for head in heads.chunks_exact_mut(angles.len()) {
        let (low, high) = head.split_at_mut(cosines.len());
        for ((x, y), (cosine, sine)) in low.iter_mut().zip(high).zip(cosines.iter().zip(sines)) {
            (*x, *y) = (mul_add::<S>(-*y, *sine, *x * cosine), mul_add::<S>(*x, *sine, *y * cosine));
        }
    }
}

dispatch!(turn_head = turn(head: &[f32], angles: &[f32], back: bool, out: &mut [f32]));

/// Turns a head by `angles`, the cosines of all planes and then their sines, or back.
#[inline(always)]
pub(crate) fn turn<S: Simd>(head: &[f32], angles: &[f32], back: bool, out: &mut [f32]) {
    let planes = head.len() / 2;
    let (cosines, sines) = angles.split_at(planes);
    let (low, high) = head.split_at(planes);
    let (out_low, out_high) = out.split_at_mut(planes);
    let sign = if back { -1.0 } else { 1.0 };
    // Two loops with one output each: the compiler vectorises either.
    for ((out, (x, y)), (cosine, sine)) in out_low.iter_mut().zip(low.iter().zip(high)).zip(cosines.iter().zip(sines)) {
        *out = mul_add::<S>(-sign * y, *sine, x * cosine);
    }
    for ((out, (x, y)), (cosine, sine)) in out_high.iter_mut().zip(low.iter().zip(high)).zip(cosines.iter().zip(sines))
    {
        *out = mul_add::<S>(sign * x, *sine, y * cosine);
    }
}

/// The cosines and sines of every token of a call.
pub(crate) struct Angles {
    /// `[length, 2, planes]`, for each row if these begin at different positions.
    table: Vec<f32>,
    per_row: bool,
    length: usize,
    head_width: usize,
}

impl Angles {
    pub(crate) fn new(rotary: &Rotary, rows: usize, length: usize) -> Self {
        /// Tokens of a task: their angles follow from the first's by turning on, in `f64`.
        const TOKENS: usize = 64;
        let head_width = 2 * rotary.frequencies.len();
        let offset = |row: usize| rotary.offsets.as_ref().map_or(0, |offsets| offsets[row]);
        let per_row = (1..rows).any(|row| offset(row) != offset(0));
        let tables = if per_row { rows } else { rows.min(1) };
        let mut table = vec![0.0; tables * length * head_width];
        for table in table.chunks_exact_mut((length * head_width).max(1)).enumerate() {
            let (row, table) = table;
            table.par_chunks_mut(TOKENS * head_width).enumerate().for_each(|(task, table)| {
                fill(&rotary.frequencies, offset(row) + task * TOKENS, table);
            });
        }
        Self { table, per_row, length, head_width }
    }

    /// For [`turn`].
    #[inline(always)]
    pub(crate) fn of(&self, row: usize, token: usize) -> &[f32] {
        let row = if self.per_row { row } else { 0 };
        &self.table[(row * self.length + token) * self.head_width..][..self.head_width]
    }
}

dispatch!(fill = fill_body(frequencies: &[f64], position: usize, table: &mut [f32]));

/// The angles of tokens from `position` on.
#[inline(always)]
fn fill_body<S: Simd>(frequencies: &[f64], position: usize, table: &mut [f32]) {
    let planes = frequencies.len();
    let turns: Vec<(f64, f64)> = frequencies.iter().map(|frequency| frequency.sin_cos()).collect();
    let mut now: Vec<(f64, f64)> =
        frequencies.iter().map(|frequency| (position as f64 * frequency).sin_cos()).collect();
    for angles in table.chunks_exact_mut(2 * planes) {
        let (cosines, sines) = angles.split_at_mut(planes);
        for i in 0..planes {
            let ((sine, cosine), (sine_step, cosine_step)) = (now[i], turns[i]);
            (sines[i], cosines[i]) = (sine as f32, cosine as f32);
            now[i] = (sine * cosine_step + cosine * sine_step, cosine * cosine_step - sine * sine_step);
        }
    }
}
