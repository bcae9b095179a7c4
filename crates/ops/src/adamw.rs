//! One AdamW step over a whole tensor, in place where the tensor has one owner.

use kernels::adamw::AdamW;

use crate::operator::*;

/// First and second moments of one parameter, each of the parameter's shape.
#[derive(Clone, Debug)]
pub struct AdamWState<const D: usize> {
    /// Running mean of the gradient.
    pub first: Tensor<D>,
    /// Running mean of the squared gradient.
    pub second: Tensor<D>,
}

/// One AdamW step (1711.05101, algorithm 2, with the learning rate inside the decay as PyTorch has it).
///
/// All tensors are without gradients; returns the new parameter and state.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    state: AdamWState<D>,
    settings: AdamW,
) -> (Tensor<D>, AdamWState<D>) {
    let [p, g, m, v] = [parameter, gradient, state.first, state.second].map(Tensor::into_dispatch);
    let (p, m, v) = Dispatch::step(p, g, m, v, settings);
    let [parameter, first, second] = [p, m, v].map(Tensor::from_dispatch);
    (parameter, AdamWState { first, second })
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"))]
pub trait AdamWStep: Backend {
    /// `(parameter, first moment, second moment)` after the step.
    fn step(
        parameter: Float<Self>,
        gradient: Float<Self>,
        first: Float<Self>,
        second: Float<Self>,
        settings: AdamW,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        plain::<Self>([parameter, gradient, first, second], settings).into()
    }
}

/// [`AdamWStep::step`] by ordinary operations.
pub fn plain<B: Backend>(inputs: [Float<B>; 4], settings: AdamW) -> [Float<B>; 3] {
    let AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale } = settings;
    let [parameter, gradient, first, second] = inputs.map(Array::<B>);
    let corrections = [beta1, beta2].map(|beta| 1.0 - beta.powf(step.max(1) as f64));
    let gradient = gradient * grad_scale;
    let first = first.clone() + (gradient.clone() - first) * (1.0 - beta1);
    let second = second * beta2 + gradient.square() * (1.0 - beta2);
    let denominator = second.clone().sqrt() / corrections[1].sqrt() + eps;
    let change = first.clone() / denominator * (lr / corrections[0]);
    [parameter * (1.0 - lr * weight_decay) - change, first, second].map(|x| x.0)
}

impl AdamWStep for Flex {
    fn step(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        settings: AdamW,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let Some([gradient]) = floats([&gradient]) else {
            return plain::<Self>([parameter, gradient, first, second], settings).into();
        };
        let [mut parameter, mut first, mut second] = [parameter, first, second].map(owned);
        kernels::adamw::adamw_update(
            &settings,
            parameter.storage_mut(),
            &gradient,
            first.storage_mut(),
            second.storage_mut(),
        );
        (parameter, first, second)
    }
}

#[cfg(feature = "vulkan")]
impl AdamWStep for Cube {}
