//! Arithmetic on any backend. Burn's `Tensor` hides its backend, and a plain body is generic over it: here its primitives
//! get the notation that they have there. All operations broadcast.

use std::ops::{Add, Div, Mul, Neg, Range, Sub};

use burn::backend::tensor::{BoolTensor, Device, IndexingUpdateOp, IntTensor};
use burn::backend::{BoolDType, Scalar, get_or_init_device_settings};
use burn::tensor::{Shape, Slice, TensorData};

use super::*;

/// A float tensor of a backend.
#[derive(Clone)]
pub(crate) struct Array<B: Backend>(pub Float<B>);

macro_rules! arithmetic {
    ($($trait:ident $method:ident: $tensor:ident, $scalar:ident;)*) => {$(
        impl<B: Backend> $trait for Array<B> {
            type Output = Self;

            fn $method(self, other: Self) -> Self {
                Self(B::$tensor(self.0, other.0))
            }
        }

        impl<B: Backend> $trait<f64> for Array<B> {
            type Output = Self;

            fn $method(self, other: f64) -> Self {
                Self(B::$scalar(self.0, Scalar::Float(other)))
            }
        }
    )*};
}

arithmetic! {
    Add add: float_add, float_add_scalar;
    Sub sub: float_sub, float_sub_scalar;
    Mul mul: float_mul, float_mul_scalar;
    Div div: float_div, float_div_scalar;
}

impl<B: Backend> Neg for Array<B> {
    type Output = Self;

    fn neg(self) -> Self {
        Self(B::float_neg(self.0))
    }
}

/// Functions of one tensor, and reductions that leave their dimension with one element.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) = $operation:ident;)*) => {
        impl<B: Backend> Array<B> {$(
            pub(crate) fn $name(self, $($argument: $type),*) -> Self {
                Self(B::$operation(self.0, $($argument),*))
            }
        )*}
    };
}

functions! {
    exp() = float_exp;
    ln() = float_log;
    sqrt() = float_sqrt;
    erf() = float_erf;
    tanh() = float_tanh;
    round() = float_round;
    sum(dim: usize) = float_sum_dim;
    mean(dim: usize) = float_mean_dim;
    max(dim: usize) = float_max_dim;
    min(dim: usize) = float_min_dim;
    transpose() = float_transpose;
    swap(dim1: usize, dim2: usize) = float_swap_dims;
}

impl<B: Backend> Array<B> {
    /// Numbers of the host, as a tensor of this one's type and device.
    pub(crate) fn host(&self, numbers: Vec<f32>, shape: impl Into<Shape>) -> Self {
        let data = TensorData::new(numbers, shape.into()).convert_dtype(self.0.dtype());
        Self(B::float_from_data(data, &self.0.device()))
    }

    /// The same number everywhere, with this tensor's type and device.
    pub(crate) fn full(&self, number: f64, shape: impl Into<Shape>) -> Self {
        let number = Scalar::Float(number);
        Self(B::float_full(shape.into(), number, &self.0.device(), self.0.dtype().into()))
    }

    pub(crate) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.shape().dims()
    }

    pub(crate) fn reshape(self, shape: impl Into<Shape>) -> Self {
        Self(B::float_reshape(self.0, shape.into()))
    }

    pub(crate) fn matmul(self, other: Self) -> Self {
        Self(B::float_matmul(self.0, other.0))
    }

    /// A range of one dimension.
    pub(crate) fn narrow(self, dim: usize, range: Range<usize>) -> Self {
        let ranges: Vec<Slice> = (0..self.0.shape().num_dims())
            .map(|d| if d == dim { range.clone().into() } else { Slice::full() })
            .collect();
        Self(B::float_slice(self.0, &ranges))
    }

    /// Tensors one after the other along a dimension.
    pub(crate) fn join<const N: usize>(parts: [Self; N], dim: usize) -> Self {
        Self(B::float_cat(parts.map(|part| part.0).into(), dim))
    }

    pub(crate) fn square(self) -> Self {
        self.clone() * self
    }

    pub(crate) fn clamp(self, least: f64, greatest: f64) -> Self {
        Self(B::float_clamp(self.0, Scalar::Float(least), Scalar::Float(greatest)))
    }

    pub(crate) fn is(self, number: f64) -> BoolTensor<B> {
        let dtype = bool_dtype::<B>(&self.0.device());
        B::float_equal_elem(self.0, Scalar::Float(number), dtype)
    }

    /// 1 where both are equal, else 0.
    pub(crate) fn equals(self, other: Self) -> Self {
        let (dtype, equal) = (self.0.dtype(), bool_dtype::<B>(&self.0.device()));
        Self(B::bool_into_float(B::float_equal(self.0, other.0, equal), dtype.into()))
    }

    pub(crate) fn fill_where(self, mask: BoolTensor<B>, number: f64) -> Self {
        Self(B::float_mask_fill(self.0, mask, Scalar::Float(number)))
    }

    /// Rows by number.
    pub(crate) fn rows(self, numbers: IntTensor<B>) -> Self {
        Self(B::float_select(self.0, 0, numbers))
    }

    /// Adds each row of `values` to the row with its number, in order.
    pub(crate) fn add_rows(self, numbers: IntTensor<B>, values: Self) -> Self {
        Self(B::float_select_assign(self.0, 0, numbers, values.0, IndexingUpdateOp::Add))
    }

    /// One element of each row of a matrix, `columns [N, 1]` → `[N, 1]`.
    pub(crate) fn pick(self, columns: IntTensor<B>) -> Self {
        Self(B::float_gather(1, self.0, columns))
    }

    /// Adds `values [N, 1]` to one element of each row of a matrix.
    pub(crate) fn add_at(self, columns: IntTensor<B>, values: Self) -> Self {
        Self(B::float_scatter(1, self.0, columns, values.0, IndexingUpdateOp::Add))
    }
}

fn bool_dtype<B: Backend>(device: &Device<B>) -> BoolDType {
    get_or_init_device_settings::<B>(device).bool_dtype
}

/// Where `a >= b`.
pub(crate) fn reaches<B: Backend>(a: IntTensor<B>, b: IntTensor<B>) -> BoolTensor<B> {
    let dtype = bool_dtype::<B>(&a.device());
    B::int_greater_equal(a, b, dtype)
}

/// Integers of the host.
pub(crate) fn integers<B: Backend>(
    numbers: impl Iterator<Item = i64>,
    shape: impl Into<Shape>,
    device: &Device<B>,
) -> IntTensor<B> {
    let dtype = get_or_init_device_settings::<B>(device).int_dtype;
    B::int_from_data(TensorData::new(numbers.collect(), shape.into()).convert_dtype(dtype.into()), device)
}
