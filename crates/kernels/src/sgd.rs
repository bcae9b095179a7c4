//! Stochastic gradient descent with momentum in one pass over memory (Sutskever et al., 2013), as PyTorch has it.

use rayon::prelude::*;

use crate::chunks::ELEMENTS;
use crate::math::mul_add;
use crate::simd::{Simd, dispatch};

/// The settings of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    pub lr: f64,
    /// 0 for none: then there is no velocity.
    pub momentum: f64,
    /// Whether the step looks ahead along the velocity.
    pub nesterov: bool,
    /// Coupled: the gradient of `weight_decay / 2 |param|²` is added to that of the loss.
    pub weight_decay: f64,
    /// What the gradient is multiplied by before all else: clipping, averaging.
    pub grad_scale: f64,
}

/// One update of `param` and its velocity in place, with PyTorch's order of operations and no dampening:
///
/// `g = grad + weight_decay param`, `velocity = momentum velocity + g`, and `param -= lr velocity` or, with Nesterov's
/// momentum, `param -= lr (g + momentum velocity)`.
///
/// The velocity is 0 before the first update, and an empty slice without momentum.
pub fn sgd_update(settings: &Sgd, param: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
    let n = param.len();
    let has_velocity = settings.momentum != 0.0;
    assert_eq!(grad.len(), n, "a gradient per parameter");
    assert_eq!(velocity.len(), if has_velocity { n } else { 0 }, "a velocity per parameter if there is momentum");
    let values = param.par_chunks_mut(ELEMENTS).zip(grad.par_chunks(ELEMENTS));
    if has_velocity {
        values.zip(velocity.par_chunks_mut(ELEMENTS)).for_each(|((param, grad), velocity)| {
            update(settings, param, grad, velocity);
        });
    } else {
        values.for_each(|(param, grad)| update_plain(settings, param, grad));
    }
}

dispatch!(update = update_body(settings: &Sgd, param: &mut [f32], grad: &[f32], velocity: &mut [f32]));

#[inline(always)]
fn update_body<S: Simd>(settings: &Sgd, param: &mut [f32], grad: &[f32], velocity: &mut [f32]) {
    let (lr, momentum) = (settings.lr as f32, settings.momentum as f32);
    let (decay, scale) = (settings.weight_decay as f32, settings.grad_scale as f32);
    let nesterov = settings.nesterov;
    for ((param, grad), velocity) in param.iter_mut().zip(grad).zip(velocity) {
        let grad = mul_add::<S>(*param, decay, grad * scale);
        *velocity = *velocity * momentum + grad;
        let step = if nesterov { mul_add::<S>(*velocity, momentum, grad) } else { *velocity };
        *param = mul_add::<S>(-lr, step, *param);
    }
}

dispatch!(update_plain = update_plain_body(settings: &Sgd, param: &mut [f32], grad: &[f32]));

#[inline(always)]
fn update_plain_body<S: Simd>(settings: &Sgd, param: &mut [f32], grad: &[f32]) {
    let (lr, decay, scale) = (settings.lr as f32, settings.weight_decay as f32, settings.grad_scale as f32);
    for (param, grad) in param.iter_mut().zip(grad) {
        let grad = mul_add::<S>(*param, decay, grad * scale);
        *param = mul_add::<S>(-lr, grad, *param);
    }
}
