use lapidary_kernels::cross_entropy::{CrossEntropyError, IGNORED};
use lapidary_kernels::linear_cross_entropy::{
    DrawKey, LinearCrossEntropy, linear_cross_entropy, linear_cross_entropy_drawing,
};
use lapidary_kernels::precision::Precision;
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// Loss and gradients.
fn twin(settings: &LinearCrossEntropy, x: &[f64], w: &[f64], targets: &[i64]) -> (f64, Vec<f64>, Vec<f64>) {
    let (width, normalizer) = (settings.width, f64::from(settings.normalizer));
    let (mut loss, mut dx, mut dw) = (0.0, vec![0.0; x.len()], vec![0.0; w.len()]);
    for (row, &target) in targets.iter().enumerate().filter(|(_, target)| **target != IGNORED) {
        let x = &x[row * width..][..width];
        let (logits, slopes): (Vec<f64>, Vec<f64>) = w
            .chunks(width)
            .map(|w| {
                let logit: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
                let Some(cap) = settings.soft_cap.map(f64::from) else { return (logit, 1.0) };
                (cap * (logit / cap).tanh(), 1.0 - (logit / cap).tanh().powi(2))
            })
            .unzip();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + logits.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
        loss += (log_sum - logits[target as usize]) / normalizer;
        for (class, (logit, slope)) in logits.iter().zip(&slopes).enumerate() {
            let onehot = if class as i64 == target { 1.0 } else { 0.0 };
            let gradient = ((logit - log_sum).exp() - onehot) * slope / normalizer;
            for i in 0..width {
                dx[row * width + i] += gradient * w[class * width + i];
                dw[class * width + i] += gradient * x[i];
            }
        }
    }
    (loss, dx, dw)
}

fn check(n: usize, vocabulary: usize, settings: &LinearCrossEntropy, every: usize) {
    let width = settings.width;
    let (x, w) = (random(n * width, 1), random(vocabulary * width, 2));
    let target = |i: usize| if i % every == 1 { IGNORED } else { (i * 7919 % vocabulary) as i64 };
    let targets: Vec<i64> = (0..n).map(target).collect();
    let (mut dx, mut dw) = (vec![f32::NAN; x.len()], vec![f32::NAN; w.len()]);
    let loss = linear_cross_entropy(settings, &x, &w, &targets, Some((&mut dx, &mut dw))).unwrap();
    let alone = linear_cross_entropy(settings, &x, &w, &targets, None).unwrap();
    assert_eq!(loss, alone);
    let (expected, expected_dx, expected_dw) = twin(settings, &to_f64(&x), &to_f64(&w), &targets);
    assert!((loss - expected).abs() <= 2e-6 * expected.abs().max(1.0), "{loss}, not {expected}");
    assert_close(&dx, &expected_dx, 1e-5, "dx");
    assert_close(&dw, &expected_dw, 1e-5, "dw");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_f64(
        n in 0usize..40,
        vocabulary in 1usize..90,
        width in 1usize..40,
        normalizer in 0.5f32..20.0,
        soft_cap in prop::option::of(0.5f32..30.0),
        every in 1usize..5,
    ) {
        check(n, vocabulary, &LinearCrossEntropy { width, normalizer, soft_cap, precision: Precision::F32 }, every);
    }
}

#[test]
fn several_tiles_of_several_blocks() {
    // 512 rows a tile,
    check(
        1100,
        20,
        &LinearCrossEntropy { width: 3, normalizer: 1100.0, soft_cap: Some(3.0), precision: Precision::F32 },
        80,
    );
    // 48 columns a block.
    check(
        5,
        100,
        &LinearCrossEntropy { width: 21_846, normalizer: 5.0, soft_cap: Some(500.0), precision: Precision::F32 },
        4,
    );
}

#[test]
fn logits_far_apart_and_infinite() {
    let settings = LinearCrossEntropy { width: 1, normalizer: 1.0, soft_cap: None, precision: Precision::F32 };
    let loss = |w: &[f32]| {
        let (mut dx, mut dw) = ([0.0; 1], [0.0; 2]);
        let loss = linear_cross_entropy(&settings, &[1.0], w, &[0], Some((&mut dx, &mut dw))).unwrap();
        (loss, dw)
    };
    assert_eq!(loss(&[-2e4, 2e4]), (4e4, [-1.0, 1.0]));
    assert_eq!(loss(&[3.0, f32::NEG_INFINITY]).0, 0.0);
    assert!(loss(&[3.0, f32::NAN]).0.is_nan() && loss(&[3.0, f32::INFINITY]).0.is_nan());
}

#[test]
fn errors_come_before_anything_is_written() {
    let settings = LinearCrossEntropy { width: 2, normalizer: 1.0, soft_cap: None, precision: Precision::F32 };
    let (mut dx, mut dw) = ([7.0; 4], [7.0; 6]);
    let mut run = |targets: &[i64]| {
        linear_cross_entropy(&settings, &[0.0; 4], &[0.0; 6], targets, Some((&mut dx, &mut dw))).unwrap_err()
    };
    assert_eq!(run(&[0, 3]), CrossEntropyError::TargetOutOfRange { row: 1, target: 3, vocab: 3 });
    assert_eq!(run(&[0]), CrossEntropyError::TargetCount { targets: 1, rows: 2 });
    assert_eq!((dx, dw), ([7.0; 4], [7.0; 6]));
}

/// Draws of equal rows fall as their softmax says, over several blocks of columns; rows that do not count draw nothing.
#[test]
fn drawn_tokens_have_the_softmax_as_their_distribution() {
    for (vocabulary, width) in [(7, 1), (100, 21_846)] {
        let n = if width == 1 { 20_000 } else { 600 };
        let logits: Vec<f32> = (0..vocabulary).map(|i| (i % 5) as f32 * 0.7).collect();
        let mut w = vec![0.0; vocabulary * width];
        w.chunks_mut(width).zip(&logits).for_each(|(w, logit)| w[0] = *logit);
        let mut x = vec![0.0; n * width];
        x.chunks_mut(width).for_each(|x| x[0] = 1.0);
        let targets: Vec<i64> = (0..n).map(|i| if i % 4 == 0 { IGNORED } else { 1 }).collect();
        let settings = LinearCrossEntropy { width, normalizer: 1.0, soft_cap: None, precision: Precision::F32 };
        let draw = |step| {
            let mut tokens = vec![u32::MAX; n];
            let key = DrawKey { seed: 3, step };
            let loss = linear_cross_entropy_drawing(&settings, &x, &w, &targets, None, key, &mut tokens).unwrap();
            assert_eq!(loss, linear_cross_entropy(&settings, &x, &w, &targets, None).unwrap());
            tokens
        };
        let tokens = draw(1);
        assert!(tokens == draw(1) && tokens != draw(2));
        let mut counts = vec![0.0; vocabulary];
        for (token, target) in tokens.iter().zip(&targets) {
            match target {
                1 => counts[*token as usize] += 1.0,
                _ => assert_eq!(*token, u32::MAX),
            }
        }
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let total = counts.iter().sum::<f64>();
        let mut squares = 0.0;
        for (count, logit) in counts.iter().zip(&logits) {
            let expected = total * f64::from(*logit).exp() / sum;
            squares += (count - expected).powi(2) / expected;
        }
        // Chi-squared with that many degrees of freedom, its mean and six standard deviations.
        let freedom = (vocabulary - 1) as f64;
        assert!(squares < freedom + 6.0 * (2.0 * freedom).sqrt(), "{squares} of {freedom}");
    }
}

#[test]
fn what_cannot_be_drawn_never_is() {
    let logits = [f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY, -90.0, f32::NEG_INFINITY];
    let settings = LinearCrossEntropy { width: 1, normalizer: 1.0, soft_cap: None, precision: Precision::F32 };
    let mut tokens = vec![9; 500];
    let key = DrawKey { seed: 0, step: 0 };
    linear_cross_entropy_drawing(&settings, &[1.0; 500], &logits, &[1; 500], None, key, &mut tokens).unwrap();
    assert!(tokens.iter().all(|token| *token == 1));
    // No numbers: the loss says so, and a token of the vocabulary comes all the same.
    let x = [f32::NAN; 3];
    let loss = linear_cross_entropy_drawing(&settings, &x, &logits, &[1; 3], None, key, &mut tokens[..3]).unwrap();
    assert!(loss.is_nan() && tokens[..3].iter().all(|token| *token < 5));
}
