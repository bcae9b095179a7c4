//! Each slice kernel against a twin in `f64` made of obvious loops, on random shapes; each backward pass against
//! central differences of the forward twin.

mod activation;
mod adamw;
mod attention;
mod attention_cached;
mod batch_norm;
mod choice;
mod conv2d;
mod cross_entropy;
mod dropout;
mod embedding;
mod fake_quantize;
mod gelu;
mod layer_norm;
mod linear;
mod linear_cross_entropy;
mod packed;
mod patches;
mod pool;
mod reduce;
mod rms_norm;
mod rotary;
mod sgd;
mod threads;

use lapidary_kernels::precision::Precision;

use crate::support::{assert_close, random};

/// `x` rounded to bf16, the nearest or of two the even one.
fn round_to_bf16(x: f32) -> f32 {
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits((x.to_bits() & 0xffff_0000) + 0x1_0000);
    let (to_below, to_above) = ((x - below).abs(), (above - x).abs());
    let below_is_even = below.to_bits() & 0x1_0000 == 0;
    if to_below < to_above || to_below == to_above && below_is_even { below } else { above }
}

/// What a product multiplies of `x`.
fn as_read(x: &[f32], precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 => to_f64(x),
        Precision::Bf16 => x.iter().map(|&x| f64::from(round_to_bf16(x))).collect(),
    }
}

fn to_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// The gradient at `x` of `Σ dy f(x)` by central differences in `f64`.
fn difference(x: &[f32], dy: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = to_f64(x);
    let objective = |x: &[f64]| -> f64 { f(x).iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum() };
    let mut gradient = Vec::with_capacity(x.len());
    for i in 0..x.len() {
        let at = x[i];
        x[i] = at + STEP;
        let above = objective(&x);
        x[i] = at - STEP;
        let below = objective(&x);
        x[i] = at;
        gradient.push((above - below) / (2.0 * STEP));
    }
    gradient
}
