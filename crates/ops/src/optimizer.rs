//! What an optimizer does to whole tensors: one pass over memory each, in place where the tensor has one owner.

use super::*;
use lapidary_kernels as kernels;

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
    let (parameter, first, second) = <Dispatch as Kernels>::adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        state.first.into_dispatch(),
        state.second.into_dispatch(),
        settings,
    );
    (dispatch(parameter), AdamWState { first: dispatch(first), second: dispatch(second) })
}

pub(super) fn adamw_step(
    parameter: FlexTensor,
    gradient: FlexTensor,
    first: FlexTensor,
    second: FlexTensor,
    settings: AdamW,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    // `to_contiguous` clones the handle; the original has to go before the storage counts as unshared. The storage of
    // a view is larger than the view.
    let own = |x: FlexTensor| match x.is_contiguous() && x.storage::<f32>().len() == x.layout().num_elements() {
        true => x,
        false => {
            let mut copy = Buffer::new(x.layout().num_elements());
            copy.copy_from_slice(floats(&x.to_contiguous()));
            like(copy, &x)
        }
    };
    let gradient = gradient.to_contiguous();
    let (mut parameter, mut first, mut second) = (own(parameter), own(first), own(second));
    kernels::adamw::adamw_update(
        &settings,
        parameter.storage_mut::<f32>(),
        floats(&gradient),
        first.storage_mut::<f32>(),
        second.storage_mut::<f32>(),
    );
    (parameter, first, second)
}

/// `Σ x²` in `f64`, in one fixed order whatever the number of threads.
pub fn sum_of_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    let x = if x.is_autodiff() { x.clone().inner() } else { x.clone() };
    match x.clone().try_into_primitive::<Flex>() {
        Ok(x) => kernels::reduce::sum_of_squares(floats(&x.to_contiguous())),
        // Another device: the data crosses once.
        Err(_) => kernels::reduce::sum_of_squares(&x.into_data().iter::<f32>().collect::<Vec<_>>()),
    }
}
