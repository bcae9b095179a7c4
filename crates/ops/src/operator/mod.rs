//! What every operator is made of: arithmetic on any backend, slices for kernels, a place in the graph of gradients.

mod array;
mod flex;
mod graph;
mod pool;

pub(crate) use array::{Array, integers, reaches};
pub(crate) use flex::{floats, output, outputs, owned};
pub(crate) use graph::{parts, record};

#[cfg(feature = "vulkan")]
pub(crate) use burn::backend::Cube;
pub(crate) use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
pub(crate) use burn::backend::flex::FlexTensor;
pub(crate) use burn::backend::tensor::FloatTensor as Float;
pub(crate) use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
pub(crate) use burn::tensor::Tensor;
pub(crate) use lapidary_kernels as kernels;

/// A tensor without elements: how an absent one crosses the dispatch, which carries no options.
pub(crate) fn absent<const D: usize>(like: &Tensor<2>) -> Tensor<D> {
    let empty = Tensor::<D>::empty([0; D], (&like.device(), like.dtype()));
    if like.is_autodiff() { Tensor::from_inner(empty.inner()) } else { empty }
}

/// Whether an optional tensor is there.
pub(crate) fn present(x: &impl TensorMetadata) -> bool {
    x.shape().num_elements() > 0
}
