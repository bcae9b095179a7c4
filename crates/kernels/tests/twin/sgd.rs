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

/// The largest magnitude that each value has come through, 1 at least.
struct Reach(Vec<f64>);

impl Reach {
    fn new(n: usize) -> Self {
        Self(vec![1.0; n])
    }

    fn see(&mut self, values: &[f64]) {
        self.0.iter_mut().zip(values).for_each(|(reach, value)| *reach = reach.max(value.abs()));
    }

    /// Relative to that, three steps leave eight roundings or so.
    fn assert_close(&self, actual: &[f32], expected: &[f64], what: &str) {
        let scaled = |value: f64, reach: &f64| value / reach;
        let actual: Vec<f32> = actual.iter().zip(&self.0).map(|(&x, reach)| scaled(x.into(), reach) as f32).collect();
        let expected: Vec<f64> = expected.iter().zip(&self.0).map(|(&x, reach)| scaled(x, reach)).collect();
        assert_close(&actual, &expected, 1e-6, what);
    }
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
        // Long steps there and back leave the rounding of where a value has been, not of where it is.
        let (mut of_param, mut of_velocity) = (Reach::new(n), Reach::new(velocity.len()));
        for step in 2..5 {
            let grad = random(n, step);
            sgd_update(&settings, &mut param, &grad, &mut velocity);
            let before = param64.clone();
            twin(&settings, &mut param64, &to_f64(&grad), &mut velocity64);
            let steps: Vec<f64> = before.iter().zip(&param64).map(|(before, after)| before - after).collect();
            [&before, &param64, &steps].into_iter().for_each(|values| of_param.see(values));
            velocity64.iter().for_each(|velocity| of_velocity.see(velocity));
        }
        of_param.assert_close(&param, &param64, "param");
        of_velocity.assert_close(&velocity, &velocity64.unwrap_or_default(), "velocity");
    }
}
