//! Training in bf16 follows training in f32.

use burn::tensor::Device;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};
use lapidary_models::{Pass, parameters};
use lapidary_train::{AdamWOptimizer, AdamWOptions};

const CONFIG: DecoderConfig = DecoderConfig {
    vocabulary: 64,
    positions: 24,
    position_encoding: PositionEncoding::Learned,
    width: 32,
    heads: 4,
    feed_forward: 96,
    blocks: 2,
    shifted_heads: 0,
    self_conditioning: false,
    shifted_canvas: false,
};
const ROWS: usize = 8;
const STEPS: usize = 500;

/// Texts of a language with something to learn: each token follows from the two before it, but one in eight that does
/// not.
fn text(stream: &mut Stream, tokens: usize) -> Vec<u32> {
    let mut text = vec![stream.below(64) as u32, stream.below(64) as u32];
    while text.len() < tokens {
        let [a, b] = text[text.len() - 2..] else { unreachable!("two tokens") };
        text.push(if stream.below(8) == 0 { stream.below(64) as u32 } else { (3 * (a % 4) + 5 * (b % 8)) % 64 });
    }
    text
}

/// The loss of each step, in nats a token.
fn losses(precision: Precision) -> Vec<f64> {
    let mut model = Decoder::new(&CONFIG, 3, &Device::flex().autodiff());
    let mut optimizer = AdamWOptimizer::new(AdamWOptions::default());
    let mut stream = Stream::new(5, 0);
    let pass = Pass::evaluation().with_precision(precision);
    let step = |_| {
        let rows: Vec<Vec<u32>> = (0..ROWS).map(|_| text(&mut stream, CONFIG.positions + 1)).collect();
        let ids: Vec<u32> = rows.iter().flat_map(|row| &row[..CONFIG.positions]).copied().collect();
        let targets: Vec<i64> = rows.iter().flat_map(|row| &row[1..]).map(|&id| i64::from(id)).collect();
        let loss = model
            .loss(&ids, &targets, ROWS, &Mask::causal(), targets.len() as f32, &pass)
            .expect("targets in the vocabulary");
        let value = loss.clone().into_scalar::<f32>();
        let gradients = parameters::gradients(&model, loss.backward());
        model = optimizer.step(model.clone(), gradients, 3e-3, 1.0);
        f64::from(value)
    };
    (0..STEPS).map(step).collect()
}

/// Step by step two runs drift apart, whatever the reason; what has to agree is the curve, here in means of 25 steps.
#[test]
fn the_curve_of_bf16_is_that_of_f32() {
    const WINDOW: usize = 25;
    let means = |losses: Vec<f64>| -> Vec<f64> {
        losses.chunks(WINDOW).map(|window| window.iter().sum::<f64>() / window.len() as f64).collect()
    };
    let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| means(losses(precision)));
    assert!(f32[f32.len() - 1] < 0.6 * f32[0], "nothing was learned: {f32:?}");
    assert_ne!(f32, bf16, "the precision makes no difference");
    for (window, (f32, bf16)) in f32.iter().zip(&bf16).enumerate() {
        assert!((bf16 / f32 - 1.0).abs() < 0.01, "window {window}: {bf16} nats in bf16, {f32} in f32");
    }
}
