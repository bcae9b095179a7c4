use burn::tensor::Device;
use lapidary_ops::linear;
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same, tensors, values, vector};

#[test]
fn agrees_with_pytorch() {
    Case("linear.plain").check(["x", "w"], "y", |[x, w]| linear(x, w, None));
    for case in [Case("linear.bias"), Case("linear.single")] {
        case.check(["x", "w", "b"], "y", |[x, w, b]| linear(x, w, Some(vector(b))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(n in 1usize..20, input in 1usize..40, output in 1usize..40) {
        let (x, w) = (|| Input::random("x", n, input), || Input::random("w", output, input));
        assert_same([x(), w()], TOLERANCE, |[x, w]| linear(x, w, None), |[x, w]| x.matmul(w.transpose()));
        assert_same(
            [x(), w(), Input::random("bias", 1, output)],
            TOLERANCE,
            |[x, w, bias]| linear(x, w, Some(vector(bias))),
            |[x, w, bias]| x.matmul(w.transpose()) + bias,
        );
    }
}

#[test]
fn an_input_that_is_not_trained_gets_no_gradient() {
    let inputs = [Input::random("x", 5, 3), Input::random("w", 2, 3)];
    let [x, w] = tensors(&inputs, &Device::flex().autodiff());
    let w = w.require_grad();
    let gradients = linear(x.clone(), w.clone(), None).sum().backward();
    assert!(x.grad(&gradients).is_none());
    let dw = values(w.grad(&gradients).expect("is trained"));
    assert_eq!(dw[..3], dw[3..]);
}
