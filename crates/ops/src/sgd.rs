//! One step of gradient descent with momentum over a whole tensor, in place where the tensor has one owner.

use kernels::sgd::Sgd;

use crate::operator::*;

/// One step of `torch.optim.SGD`, without dampening. The velocity is absent before the first step.
///
/// All tensors are without gradients; returns the new parameter and velocity.
pub fn sgd<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    velocity: Option<Tensor<D>>,
    settings: Sgd,
) -> (Tensor<D>, Tensor<D>) {
    let velocity = velocity.unwrap_or_else(|| Tensor::zeros_like(&parameter));
    let [p, g, v] = [parameter, gradient, velocity].map(Tensor::into_dispatch);
    let (p, v) = <Dispatch as SgdStep>::step(p, g, v, settings);
    (Tensor::from_dispatch(p), Tensor::from_dispatch(v))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"))]
pub trait SgdStep: Backend {
    /// `(parameter, velocity)` after the step.
    fn step(
        parameter: Float<Self>,
        gradient: Float<Self>,
        velocity: Float<Self>,
        settings: Sgd,
    ) -> (Float<Self>, Float<Self>) {
        plain::<Self>([parameter, gradient, velocity], settings).into()
    }
}

/// [`SgdStep::step`] by ordinary operations.
pub fn plain<B: Backend>(inputs: [Float<B>; 3], settings: Sgd) -> [Float<B>; 2] {
    let Sgd { lr, momentum, nesterov, weight_decay, grad_scale } = settings;
    let [parameter, gradient, velocity] = inputs.map(Array::<B>);
    let gradient = gradient * grad_scale + parameter.clone() * weight_decay;
    let velocity = velocity * momentum + gradient.clone();
    let direction = if nesterov { gradient + velocity.clone() * momentum } else { velocity.clone() };
    [parameter - direction * lr, velocity].map(|x| x.0)
}

impl SgdStep for Flex {
    fn step(
        parameter: FlexTensor,
        gradient: FlexTensor,
        velocity: FlexTensor,
        settings: Sgd,
    ) -> (FlexTensor, FlexTensor) {
        let Some([gradient]) = floats([&gradient]) else {
            return plain::<Self>([parameter, gradient, velocity], settings).into();
        };
        let [mut parameter, mut velocity] = [parameter, velocity].map(owned);
        if settings.momentum == 0.0 {
            kernels::sgd::sgd_update(&settings, parameter.storage_mut(), &gradient, &mut []);
        } else {
            kernels::sgd::sgd_update(&settings, parameter.storage_mut(), &gradient, velocity.storage_mut());
        }
        (parameter, velocity)
    }
}

#[cfg(feature = "vulkan")]
impl SgdStep for Cube {}
