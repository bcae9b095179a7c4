//! A gradient that is seen as it comes.

use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor};
use lapidary_ops::{Rung, Watcher, watched};

use super::{Input, tensors, values};

/// What watchers have seen, in order.
type Seen = Arc<Mutex<Vec<(&'static str, Vec<f64>)>>>;

fn watcher(seen: &Seen, name: &'static str) -> Watcher {
    let seen = seen.clone();
    Watcher::new(move |gradient| {
        seen.lock().unwrap().push((name, gradient.iter().map(|g| f64::from(*g)).collect()));
    })
}

#[test]
fn each_is_seen_once_and_whole_from_the_highest_rung_to_the_lowest() {
    let inputs = [Input::random("x", 4, 3), Input::random("a", 3, 5), Input::random("b", 5, 3)];
    let device = Device::flex().autodiff();
    let [x, a, b] = tensors(&inputs, &device);
    let [a, b] = [a, b].map(Tensor::require_grad);
    let loss = |a: Tensor<2>, b: Tensor<2>| {
        // `a` is read twice.
        let first = x.clone().matmul(a.clone()).tanh().matmul(b);
        first.matmul(a).tanh().sum()
    };
    let plain = loss(a.clone(), b.clone()).backward();
    let seen = Seen::default();
    let low = Rung::bottom(&Device::flex()).up(1);
    let high = low.clone().up(9);
    let [seen_a, seen_b] =
        [watched(a.clone(), &low, watcher(&seen, "a")), watched(b.clone(), &high, watcher(&seen, "b"))];
    let watched = loss(seen_a, seen_b).backward();
    let of = |x: &Tensor<2>, gradients| values(x.grad(gradients).unwrap());
    assert_eq!(*seen.lock().unwrap(), [("b", of(&b, &plain)), ("a", of(&a, &plain))]);
    assert_eq!([of(&a, &watched), of(&b, &watched)], [of(&a, &plain), of(&b, &plain)]);
}

#[test]
fn without_a_backward_pass_nobody_is_told() {
    let rung = Rung::bottom(&Device::flex());
    let [x] = tensors(&[Input::random("x", 2, 3)], &Device::flex().autodiff());
    let seen = Seen::default();
    assert_eq!(values(watched(x.clone(), &rung, watcher(&seen, "x"))), values(x));
    assert!(seen.lock().unwrap().is_empty());
}
