use burn::tensor::Device;
use lapidary_kernels::precision::Precision;
use lapidary_ops::linear;
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same, tensors, values, vector};

const F32: Precision = Precision::F32;

#[test]
fn agrees_with_pytorch() {
    Case("linear.plain").check(["x", "w"], "y", |[x, w]| linear(x, w, None, None, F32));
    for case in [Case("linear.bias"), Case("linear.single")] {
        case.check(["x", "w", "b"], "y", |[x, w, b]| linear(x, w, Some(vector(b)), None, F32));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(n in 1usize..20, input in 1usize..40, output in 1usize..40) {
        let (x, w) = (|| Input::random("x", n, input), || Input::random("w", output, input));
        assert_same([x(), w()], TOLERANCE, |[x, w]| linear(x, w, None, None, F32), |[x, w]| x.matmul(w.transpose()));
        assert_same(
            [x(), w(), Input::random("bias", 1, output)],
            TOLERANCE,
            |[x, w, bias]| linear(x, w, Some(vector(bias)), None, F32),
            |[x, w, bias]| x.matmul(w.transpose()) + bias,
        );
        assert_same(
            [x(), w(), Input::random("residual", n, output)],
            TOLERANCE,
            |[x, w, residual]| linear(x, w, None, Some(residual), F32),
            |[x, w, residual]| x.matmul(w.transpose()) + residual,
        );
    }
}

#[test]
fn an_input_that_is_not_trained_gets_no_gradient() {
    let inputs = [Input::random("x", 5, 3), Input::random("w", 2, 3)];
    let [x, w] = tensors(&inputs, &Device::flex().autodiff());
    let w = w.require_grad();
    let gradients = linear(x.clone(), w.clone(), None, None, F32).sum().backward();
    assert!(x.grad(&gradients).is_none());
    let dw = values(w.grad(&gradients).expect("is trained"));
    assert_eq!(dw[..3], dw[3..]);
}
