//! AdamW on whole tensors, and the other things an optimizer asks of them.

use burn::tensor::{DType, Device, Tensor};
use lapidary_kernels::adamw::AdamW;
use lapidary_ops::{AdamWState, adamw, sum_of_squares};
use proptest::prelude::*;

use super::{IN_F64, Input, TOLERANCE, tensors_of, values};
use crate::support::assert_close;

/// PyTorch's AdamW in its order of operations, one tensor operation after the other.
fn twin(parameter: Tensor<2>, gradient: Tensor<2>, state: AdamWState<2>, s: &AdamW) -> (Tensor<2>, AdamWState<2>) {
    let gradient = gradient.mul_scalar(s.grad_scale);
    let first = state.first.mul_scalar(s.beta1) + gradient.clone().mul_scalar(1.0 - s.beta1);
    let second = state.second.mul_scalar(s.beta2) + gradient.square().mul_scalar(1.0 - s.beta2);
    let (correction1, correction2) = (1.0 - s.beta1.powi(s.step as i32), 1.0 - s.beta2.powi(s.step as i32));
    let denominator = second.clone().sqrt().div_scalar(correction2.sqrt()).add_scalar(s.eps);
    let change = first.clone().div(denominator).mul_scalar(s.lr / correction1);
    (parameter.mul_scalar(1.0 - s.lr * s.weight_decay) - change, AdamWState { first, second })
}

fn settings(step: u64) -> AdamW {
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step, grad_scale: 0.5 }
}

/// A parameter, its gradient, and moments of zero.
fn sample(rows: usize, columns: usize, dtype: DType) -> (Tensor<2>, Tensor<2>, AdamWState<2>) {
    let inputs = [Input::random("parameter", rows, columns), Input::random("gradient", rows, columns)];
    let [parameter, gradient] = tensors_of(&inputs, &Device::flex(), dtype);
    let zeros = || parameter.zeros_like();
    let state = AdamWState { first: zeros(), second: zeros() };
    (parameter, gradient, state)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(
        (rows, columns) in (1usize..40, 1usize..40),
        (lr, weight_decay, grad_scale) in (1e-5f64..1e-1, 0f64..0.5, 0.1f64..2.0),
    ) {
        for (dtype, tolerance) in [(DType::F32, TOLERANCE), (DType::F64, TOLERANCE * IN_F64)] {
            let (parameter, gradient, state) = sample(rows, columns, dtype);
            let (mut actual, mut expected) = ((parameter.clone(), state.clone()), (parameter, state));
            for step in 1..=3 {
                let settings = AdamW { lr, weight_decay, grad_scale, ..settings(step) };
                // Another gradient in every step.
                let gradient = gradient.clone().add_scalar(step as f32);
                actual = adamw(actual.0, gradient.clone(), actual.1, settings);
                expected = twin(expected.0, gradient, expected.1, &settings);
            }
            let compare = |actual, expected, what| assert_close(&values(actual), &values(expected), tolerance, what);
            compare(actual.0, expected.0, "the parameter");
            compare(actual.1.first, expected.1.first, "the first moment");
            compare(actual.1.second, expected.1.second, "the second moment");
        }
    }
}

#[test]
fn a_tensor_that_has_another_owner_is_left_alone() {
    let (parameter, gradient, state) = sample(3, 5, DType::F32);
    let before = (values(parameter.clone()), values(state.first.clone()));
    let (updated, _) = adamw(parameter.clone(), gradient, state.clone(), settings(1));
    assert_ne!(values(updated), before.0);
    assert_eq!((values(parameter), values(state.first)), before);
}

#[test]
fn a_part_of_a_larger_tensor_is_updated_by_itself() {
    let (parameter, gradient, state) = sample(7, 5, DType::F32);
    let part = |x: &Tensor<2>| x.clone().slice([2..4, 0..5]);
    let state_part = AdamWState { first: part(&state.first), second: part(&state.second) };
    let (updated, _) = adamw(part(&parameter), part(&gradient), state_part, settings(1));
    let (whole, _) = adamw(parameter, gradient, state, settings(1));
    assert_eq!(values(updated), values(part(&whole)));
}

#[test]
fn questions_to_whole_tensors() {
    let input = Input::random("x", 9, 7);
    let expected: f64 = input.data.iter().map(|&x| f64::from(x).powi(2)).sum();
    for device in [Device::flex(), Device::flex().autodiff()] {
        for dtype in [DType::F32, DType::F64] {
            let [x] = tensors_of(std::array::from_ref(&input), &device, dtype);
            assert!((sum_of_squares(&x) - expected).abs() < 1e-12 * expected);
            assert!((sum_of_squares(&x.transpose()) - expected).abs() < 1e-12 * expected);
        }
    }
}
