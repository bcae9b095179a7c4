use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor};
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_ops::{CrossEntropyError, cross_entropy};
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same, constant, differentiate, tensors, tensors_of};

/// The loss as a matrix of one element.
fn loss(logits: Tensor<2>, targets: &[i64], normalizer: f32) -> Tensor<2> {
    cross_entropy(logits, targets, normalizer).expect("targets that fit").reshape([1, 1])
}

fn twin(logits: Tensor<2>, targets: &[i64], normalizer: f32) -> Tensor<2> {
    let [rows, vocabulary] = logits.dims();
    let chosen = targets.iter().flat_map(|&target| (0..vocabulary).map(move |id| f32::from(target == id as i64)));
    let chosen = constant(&chosen.collect::<Vec<_>>(), [rows, vocabulary], &logits);
    (log_softmax(logits, 1) * chosen).sum().mul_scalar(-1.0 / f64::from(normalizer)).reshape([1, 1])
}

#[test]
fn agrees_with_pytorch() {
    for name in ["cross_entropy.plain", "cross_entropy.ignored", "cross_entropy.normalized", "cross_entropy.extreme"] {
        let case = Case(name);
        let targets: Vec<i64> = case.numbers("targets").into_iter().map(|target| target as i64).collect();
        let normalizer = case.numbers("normalizer")[0] as f32;
        for dtype in [DType::F32, DType::F64] {
            let logits = tensors_of(&[case.input("logits")], &Device::flex(), dtype);
            let actual = differentiate(logits, &[1.0], |[logits]| loss(logits, &targets, normalizer));
            case.assert_close(&actual.output, "loss");
            case.assert_close(&actual.gradients[0], "dlogits");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(n in 1usize..12, vocabulary in 1usize..60, normalizer in 0.5f32..20.0, every in 1usize..5) {
        let target = |i: usize| if i % every == 1 { IGNORED } else { (i * 7 % vocabulary) as i64 };
        let targets: Vec<i64> = (0..n).map(target).collect();
        assert_same(
            [Input::random("logits", n, vocabulary)],
            TOLERANCE,
            |[logits]| loss(logits, &targets, normalizer),
            |[logits]| twin(logits, &targets, normalizer),
        );
    }
}

#[test]
fn targets_that_do_not_fit_are_errors() {
    let [logits] = tensors(&[Input::random("logits", 2, 3)], &Device::flex().autodiff());
    let error = |targets: &[i64]| cross_entropy(logits.clone(), targets, 1.0).expect_err("does not fit");
    assert_eq!(error(&[0, 3]), CrossEntropyError::TargetOutOfRange { row: 1, target: 3, vocab: 3 });
    assert_eq!(error(&[0]), CrossEntropyError::TargetCount { targets: 1, rows: 2 });
}
