use lapidary_kernels::adamw::{AdamW, adamw_update};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// PyTorch's single-tensor AdamW, in its order of operations.
fn twin(s: &AdamW, param: &mut [f64], grad: &[f64], m: &mut [f64], v: &mut [f64]) {
    let (correction1, correction2) = (1.0 - s.beta1.powi(s.step as i32), 1.0 - s.beta2.powi(s.step as i32));
    for i in 0..param.len() {
        let grad = grad[i] * s.grad_scale;
        param[i] *= 1.0 - s.lr * s.weight_decay;
        m[i] = s.beta1 * m[i] + (1.0 - s.beta1) * grad;
        v[i] = s.beta2 * v[i] + (1.0 - s.beta2) * grad * grad;
        param[i] -= s.lr / correction1 * m[i] / (v[i].sqrt() / correction2.sqrt() + s.eps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn agrees_with_f64(
        n in 1usize..20_000, lr in 1e-5f64..1e-1, weight_decay in 0f64..0.5, grad_scale in 0.01f64..2.0, first in 1u64..50,
    ) {
        let (mut param, mut m, mut v) = (random(n, 1), vec![0.0; n], vec![0.0; n]);
        let (mut param64, mut m64, mut v64) = (to_f64(&param), vec![0.0; n], vec![0.0; n]);
        for step in first..first + 3 {
            let grad = random(n, step);
            let settings = AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, step, grad_scale };
            adamw_update(&settings, &mut param, &grad, &mut m, &mut v);
            twin(&settings, &mut param64, &to_f64(&grad), &mut m64, &mut v64);
        }
        assert_close(&param, &param64, 1e-6, "param");
        assert_close(&m, &m64, 1e-6, "m");
        assert_close(&v, &v64, 1e-6, "v");
    }
}
