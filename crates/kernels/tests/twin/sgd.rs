use lapidary_kernels::sgd::{Sgd, sgd_update};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// PyTorch's single-tensor SGD, in its order of operations; `velocity` is `None` before the first update.
fn twin(s: &Sgd, param: &mut [f64], grad: &[f64], velocity: &mut Option<Vec<f64>>) {
    let mut grad: Vec<f64> = grad.iter().map(|grad| grad * s.grad_scale).collect();
    if s.weight_decay != 0.0 {
        grad.iter_mut().zip(&*param).for_each(|(grad, param)| *grad += s.weight_decay * param);
    }
    if s.momentum != 0.0 {
        let velocity = match velocity {
            None => velocity.insert(grad.clone()),
            Some(velocity) => {
                velocity.iter_mut().zip(&grad).for_each(|(velocity, grad)| *velocity = s.momentum * *velocity + grad);
                velocity
            }
        };
        if s.nesterov {
            grad.iter_mut().zip(velocity).for_each(|(grad, velocity)| *grad += s.momentum * *velocity);
        } else {
            grad.clone_from(velocity);
        }
    }
    param.iter_mut().zip(grad).for_each(|(param, grad)| *param -= s.lr * grad);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn agrees_with_f64(
        n in 0usize..40_000,
        lr in 1e-4f64..1.0,
        momentum in prop_oneof![Just(0.0), 0.1f64..0.99],
        nesterov: bool,
        weight_decay in prop_oneof![Just(0.0), 0f64..0.1],
        grad_scale in 0.01f64..2.0,
    ) {
        let settings = Sgd { lr, momentum, nesterov, weight_decay, grad_scale };
        let mut param = random(n, 1);
        let mut velocity = vec![0.0; if momentum == 0.0 { 0 } else { n }];
        let (mut param64, mut velocity64) = (to_f64(&param), None);
        for step in 2..5 {
            let grad = random(n, step);
            sgd_update(&settings, &mut param, &grad, &mut velocity);
            twin(&settings, &mut param64, &to_f64(&grad), &mut velocity64);
        }
        assert_close(&param, &param64, 2e-6, "param");
        assert_close(&velocity, &velocity64.unwrap_or_default(), 2e-6, "velocity");
    }
}
