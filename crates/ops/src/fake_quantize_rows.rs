//! Fake quantization of activations, whose range is found anew for each row.

use crate::fake_quantize::highest;
use crate::operator::*;

/// Activations `x [N, D]` rounded to `bits` bits, each row in its own range `[min(0, x), max(0, x)]`.
///
/// Nothing lies outside a range that is found anew for each row, so backward is the identity.
pub fn fake_quantize_rows(x: Tensor<2>, bits: u32) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::forward(x.into_dispatch(), bits))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait FakeQuantizeRows: Backend {
    /// Each row on the grid of `2^bits` codes over its range.
    fn forward(x: Float<Self>, bits: u32) -> Float<Self> {
        plain::<Self>(x, bits)
    }
}

/// [`FakeQuantizeRows::forward`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>, bits: u32) -> Float<B> {
    let x = Array::<B>(x);
    let least = x.clone().min(1).clamp(f64::NEG_INFINITY, 0.0);
    let greatest = x.clone().max(1).clamp(0.0, f64::INFINITY);
    let scale = (greatest - least.clone()) / highest(bits); // [N, 1]
    // A row of zeros has no range, and every scale leaves it as it is.
    let flat = scale.clone().is(0.0);
    let scale = scale.fill_where(flat, 1.0);
    let zero = (-least / scale.clone()).round();
    let code = ((x / scale.clone()).round() + zero.clone()).clamp(0.0, highest(bits));
    (scale * (code - zero)).0
}

impl FakeQuantizeRows for Flex {
    fn forward(x: FlexTensor, bits: u32) -> FlexTensor {
        let Some([x]) = floats([&x]) else { return plain::<Self>(x, bits) };
        let [_, columns] = x.dims();
        output(x.shape(), |y| kernels::fake_quantize::fake_quantize_rows(&x, columns, bits, y))
    }
}

#[cfg(feature = "vulkan")]
impl FakeQuantizeRows for Cube {}

impl<B: FakeQuantizeRows, C: CheckpointStrategy> FakeQuantizeRows for Autodiff<B, C> {
    fn forward(x: Float<Self>, bits: u32) -> Float<Self> {
        let ([x], nodes) = parts::<B, C, 1>([x]);
        record::<B, C, 1>(nodes, B::forward(x, bits), |dy, _| [Some(dy)])
    }
}
