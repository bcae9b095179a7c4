//! Gradients in the middle of a graph, kept from the backward pass.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Device, Slice};

use crate::operator::*;

/// Where a gradient is put.
#[derive(Clone, Default)]
pub struct Keeper(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Keeper {
    /// What was kept, on the device that it was computed on; nothing if no backward pass has come by.
    pub fn take<const D: usize>(&self, device: &Device) -> Option<Tensor<D>> {
        let is_there = self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        is_there.then(|| {
            let place = Tensor::<D>::empty([0; D], &device.clone().without_autodiff());
            Tensor::from_dispatch(<Dispatch as Kept>::release(place.into_dispatch(), self.clone()))
        })
    }

    fn put(&self, gradient: impl Any + Send) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(gradient));
    }

    fn get<T: Any>(&self) -> Option<T> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        kept.downcast().ok().map(|kept| *kept)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Keeper")
    }
}

/// `x` itself. The backward pass leaves the first `rows` along the first dimension of its gradient with the keeper,
/// without a second tensor of the size of `x`. Nothing is kept where `x` depends on no tracked tensor.
pub fn kept<const D: usize>(x: Tensor<D>, rows: usize, keeper: &Keeper) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as Kept>::keep(x.into_dispatch(), rows, keeper.clone()))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Kept: Backend {
    /// `x`.
    fn keep(x: Float<Self>, _rows: usize, _keeper: Keeper) -> Float<Self> {
        x
    }

    /// The first rows of a gradient.
    fn first(gradient: Float<Self>, rows: usize) -> Float<Self> {
        Self::float_slice(gradient, &[Slice::from(0..rows)])
    }

    /// What was kept; `place` if that was on another backend than its own.
    fn release(place: Float<Self>, keeper: Keeper) -> Float<Self> {
        keeper.get().unwrap_or(place)
    }
}

impl Kept for Flex {
    fn first(gradient: FlexTensor, rows: usize) -> FlexTensor {
        // A slice is a view, for whose sake all of the gradient would stay.
        let mut shape = gradient.shape();
        let width = shape.num_elements() / shape[0].max(1);
        shape[0] = rows;
        match floats([&gradient]) {
            Some([numbers]) => output(shape, |first| first.copy_from_slice(&numbers[..rows * width])),
            None => Self::float_slice(gradient, &[Slice::from(0..rows)]),
        }
    }
}

#[cfg(feature = "vulkan")]
impl Kept for Cube {}

impl<B: Kept, C: CheckpointStrategy> Kept for Autodiff<B, C> {
    fn keep(x: Float<Self>, rows: usize, keeper: Keeper) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        record::<B, C, 1>(nodes, x, move |gradient, [_]| {
            let all = gradient.shape()[0];
            keeper.put(match rows < all {
                true => B::first(gradient.clone(), rows),
                false => gradient.clone(),
            });
            [Some(gradient)]
        })
    }
}
