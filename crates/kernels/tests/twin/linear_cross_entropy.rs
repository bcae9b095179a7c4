use lapidary_kernels::cross_entropy::{CrossEntropyError, IGNORED};
use lapidary_kernels::linear_cross_entropy::{LinearCrossEntropy, linear_cross_entropy};
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
