//! Slices for kernels, from the CPU's tensors and back.

use std::ops::Deref;

use burn::tensor::Shape;

use super::pool::Buffer;
use super::*;

/// An `f32` tensor with its elements row after row.
pub(crate) struct Floats(FlexTensor);

/// The tensors as a kernel reads them; `None` if one is of another type, for which there is no kernel.
pub(crate) fn floats<const N: usize>(tensors: [&FlexTensor; N]) -> Option<[Floats; N]> {
    let all = tensors.iter().all(|x| x.dtype() == burn::tensor::DType::F32);
    all.then(|| tensors.map(|x| Floats(x.to_contiguous())))
}

impl Floats {
    /// Rows and columns of a matrix.
    pub(crate) fn dims(&self) -> [usize; 2] {
        self.shape().dims()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.0.shape()
    }

    /// The elements, or nothing where an optional tensor is absent.
    pub(crate) fn optional(&self) -> Option<&[f32]> {
        (!self.is_empty()).then_some(self)
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("contiguous and f32 by construction")
    }
}

/// A tensor whose elements a kernel writes, all of them.
pub(crate) fn output(shape: impl Into<Shape>, write: impl FnOnce(&mut [f32])) -> FlexTensor {
    let [y] = outputs([shape.into()], |[y]| write(y));
    y
}

/// Tensors whose elements a kernel writes, all of them: until then they hold whatever the memory held before.
pub(crate) fn outputs<const N: usize>(shapes: [Shape; N], write: impl FnOnce([&mut [f32]; N])) -> [FlexTensor; N] {
    let mut tensors = shapes.map(|shape| (Buffer::new(shape.num_elements()), shape));
    write(tensors.each_mut().map(|(buffer, _)| &mut **buffer));
    tensors.map(|(buffer, shape)| buffer.into_tensor(shape))
}

/// A tensor to be written in place: it has to be all of its storage, and that of a view is larger than the view.
pub(crate) fn owned(x: FlexTensor) -> FlexTensor {
    match x.is_contiguous() && x.storage::<f32>().len() == x.layout().num_elements() {
        true => x,
        false => output(x.shape(), |copy| copy.copy_from_slice(x.to_contiguous().as_slice().expect("f32"))),
    }
}
