//! A gradient in the middle of a graph.

use burn::tensor::{DType, Device, Tensor};
use lapidary_ops::{Keeper, kept};

use super::{Input, tensors, tensors_of, values};

/// Beside what Burn says of zeros that are added in the same place, in both types of numbers.
#[test]
fn the_first_rows_of_a_gradient_are_kept_and_nothing_else_changes() {
    let device = Device::flex().autodiff();
    for dtype in [DType::F32, DType::F64] {
        let inputs = [Input::random("x", 4, 3), Input::random("a", 3, 5), Input::random("b", 5, 3)];
        let [x, a, b] = tensors_of(&inputs, &device, dtype);
        let a = a.require_grad();
        let zeros = Tensor::<2>::zeros([4, 5], (&device, dtype)).require_grad();
        // What is kept is read twice, and so its gradient is a sum.
        let rest = |y: Tensor<2>| (y.clone().tanh().matmul(b.clone()).sum() + (y.clone() * y).sum()).backward();
        let plain = rest(x.clone().matmul(a.clone()) + zeros.clone());
        let (expected, of_a) = (values(zeros.grad(&plain).unwrap()), values(a.grad(&plain).unwrap()));
        for rows in [0, 1, 3, 4] {
            let keeper = Keeper::default();
            let y = kept(x.clone().matmul(a.clone()), rows, &keeper);
            assert!(keeper.take::<2>(&device).is_none(), "before the backward pass");
            let gradients = rest(y);
            let found = keeper.take::<2>(&device).unwrap();
            assert_eq!((found.dims(), found.dtype()), ([rows, 5], dtype));
            assert_eq!(values(found), expected[..rows * 5]);
            assert_eq!(values(a.grad(&gradients).unwrap()), of_a);
            assert!(keeper.take::<2>(&device).is_none(), "taken once");
        }
    }
}

#[test]
fn nothing_is_kept_of_what_is_not_tracked() {
    let device = Device::flex().autodiff();
    let [x, a] = tensors(&[Input::random("x", 4, 3), Input::random("a", 4, 3)], &device);
    let keeper = Keeper::default();
    let y: Tensor<2> = kept(x, 4, &keeper);
    (y * a.require_grad()).sum().backward();
    assert!(keeper.take::<2>(&device).is_none());
}
