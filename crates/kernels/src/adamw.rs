//! AdamW in one pass over memory (Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2).

use rayon::prelude::*;

use crate::chunks::ELEMENTS;
use crate::math::mul_add;
use crate::simd::{Simd, dispatch};

/// The settings of one update. They are `f64` so that `1 - beta2` and the powers of the betas are exact enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled: each step multiplies the parameter by `1 - lr * weight_decay`.
    pub weight_decay: f64,
    /// Of this update, counted from 1: it corrects the bias of the moments.
    pub step: u64,
    /// What the gradient is multiplied by before all else: clipping, averaging.
    pub grad_scale: f64,
}

/// One update of `param` and its moments `m` and `v` in place, with PyTorch's order of operations.
pub fn adamw_update(settings: &AdamW, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let n = param.len();
    assert!(grad.len() == n && m.len() == n && v.len() == n, "a gradient and two moments per parameter");
    let factors = Factors::new(settings);
    if n <= ELEMENTS {
        return update(factors, param, grad, m, v);
    }
    let moments = m.par_chunks_mut(ELEMENTS).zip(v.par_chunks_mut(ELEMENTS));
    let values = param.par_chunks_mut(ELEMENTS).zip(grad.par_chunks(ELEMENTS));
    values.zip(moments).for_each(|((param, grad), (m, v))| update(factors, param, grad, m, v));
}

/// The settings as the loop wants them.
#[derive(Clone, Copy)]
struct Factors {
    decay: f32,
    grad_scale: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    /// `lr / (1 - beta1^step)`.
    step_size: f32,
    /// `1 / sqrt(1 - beta2^step)`.
    root_correction: f32,
    eps: f32,
}

impl Factors {
    fn new(settings: &AdamW) -> Self {
        let AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale } = *settings;
        let step = step.max(1) as f64;
        Self {
            decay: (1.0 - lr * weight_decay) as f32,
            grad_scale: grad_scale as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (lr / (1.0 - beta1.powf(step))) as f32,
            root_correction: (1.0 / (1.0 - beta2.powf(step)).sqrt()) as f32,
            eps: eps as f32,
        }
    }
}

dispatch!(update = update_body(factors: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]));

#[inline(always)]
fn update_body<S: Simd>(factors: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
    let f = factors;
    for ((param, grad), (m, v)) in param.iter_mut().zip(grad).zip(m.iter_mut().zip(v)) {
        let grad = grad * f.grad_scale;
        *m = mul_add::<S>(grad - *m, f.one_minus_beta1, *m);
        *v = mul_add::<S>(grad * f.one_minus_beta2, grad, *v * f.beta2);
        let denominator = mul_add::<S>(v.sqrt(), f.root_correction, f.eps);
        *param = *param * f.decay - f.step_size * (*m / denominator);
    }
}
