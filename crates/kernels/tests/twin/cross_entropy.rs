use lapidary_kernels::cross_entropy::{CrossEntropyError, IGNORED, check, cross_entropy};
use proptest::prelude::*;

use super::{assert_close, difference, random, to_f64};

/// The loss as a vector of one element, to be differentiated.
fn twin(logits: &[f64], targets: &[i64], vocab: usize, normalizer: f64) -> Vec<f64> {
    let mut loss = 0.0;
    for (row, &target) in logits.chunks(vocab).zip(targets) {
        if target != IGNORED {
            loss -= (row[target as usize].exp() / row.iter().map(|x| x.exp()).sum::<f64>()).ln() / normalizer;
        }
    }
    vec![loss]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_f64(n in 0usize..12, vocab in 1usize..60, normalizer in 0.5f32..20.0, every in 1usize..5) {
        let logits: Vec<f32> = random(n * vocab, 1).iter().map(|x| 3.0 * x).collect();
        let target = |i: usize| if i % every == 1 { IGNORED } else { (i * 7 % vocab) as i64 };
        let targets: Vec<i64> = (0..n).map(target).collect();
        let mut gradient = vec![f32::NAN; n * vocab];
        let loss = cross_entropy(&logits, &targets, vocab, normalizer, Some(&mut gradient)).unwrap();
        let alone = cross_entropy(&logits, &targets, vocab, normalizer, None).unwrap();
        let twin = |logits: &[f64]| twin(logits, &targets, vocab, f64::from(normalizer));
        assert_close(&[loss as f32, alone as f32], &twin(&to_f64(&logits)).repeat(2), 1e-6, "loss");
        assert_close(&gradient, &difference(&logits, &[1.0], twin), 1e-6, "gradient");
    }
}

#[test]
fn a_large_vocabulary_in_many_chunks() {
    let (n, vocab) = (37, 5003);
    let logits = random(n * vocab, 2);
    let targets: Vec<i64> = (0..n as i64).map(|i| i * 100).collect();
    let mut gradient = vec![0.0; n * vocab];
    let loss = cross_entropy(&logits, &targets, vocab, n as f32, Some(&mut gradient)).unwrap();
    assert_close(&[loss as f32], &twin(&to_f64(&logits), &targets, vocab, n as f64), 1e-6, "loss");
    for row in gradient.chunks(vocab) {
        assert!(row.iter().sum::<f32>().abs() < 1e-6);
    }
}

#[test]
fn logits_far_apart() {
    let mut gradient = [0.0; 2];
    let loss = cross_entropy(&[-2e4, 2e4], &[0], 2, 1.0, Some(&mut gradient)).unwrap();
    assert_eq!(loss, 4e4);
    assert_eq!(gradient, [-1.0, 1.0]);
}

#[test]
fn errors_name_what_is_wrong() {
    let error = |targets: &[i64]| cross_entropy(&[0.0; 6], targets, 3, 1.0, None).unwrap_err();
    assert_eq!(error(&[0, 3]), CrossEntropyError::TargetOutOfRange { row: 1, target: 3, vocab: 3 });
    assert_eq!(error(&[-1, 0]), CrossEntropyError::TargetOutOfRange { row: 0, target: -1, vocab: 3 });
    assert_eq!(error(&[0]), CrossEntropyError::TargetCount { targets: 1, rows: 2 });
    assert!(error(&[0, 3]).to_string().contains("target 3 of row 1"));
    assert_eq!(check(&[IGNORED, 2], 2, 3), Ok(()));
}
