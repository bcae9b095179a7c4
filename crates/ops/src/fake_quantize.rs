//! Fake quantization of weights: rounded to the codes they will be stored as, still held as floats.

use burn::backend::tensor::IntTensor;

use crate::operator::*;

/// Weights `w [O, I]` rounded to `bits`-bit codes in `G` groups of rows; `scales, zeros [G]`.
///
/// Group `g` holds the rows `g·O/G .. (g+1)·O/G`. Backward is Q-BERT's straight-through estimator (1909.05840,
/// section 3): a gradient of 1 inside the range and 0 outside; the scales get LSQ's gradient (1902.08153, eq. 3),
/// unscaled.
pub fn fake_quantize(w: Tensor<2>, scales: Tensor<1>, zeros: Tensor<1>, bits: u32) -> Tensor<2> {
    let [scales, zeros] = [scales, zeros].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::forward(w.into_dispatch(), scales, zeros, bits))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait FakeQuantize: Backend {
    /// `scale (code − zero)` with `code = clamp(round(w / scale) + zero, 0, 2^bits − 1)`.
    fn forward(w: Float<Self>, scales: Float<Self>, zeros: Float<Self>, bits: u32) -> Float<Self> {
        plain::<Self>([w, scales, zeros], bits)
    }

    /// `(dw, dscales)`.
    fn gradient(
        w: Float<Self>,
        scales: Float<Self>,
        zeros: Float<Self>,
        dy: Float<Self>,
        bits: u32,
    ) -> (Float<Self>, Float<Self>) {
        plain_gradient::<Self>([w, scales, zeros, dy], bits).into()
    }
}

/// Each row's group, `[O]`.
fn group_of_row<B: Backend>(w: &Float<B>, groups: usize) -> IntTensor<B> {
    let rows = w.shape()[0];
    integers::<B>((0..rows).map(|row| (((row + 1) * groups - 1) / rows) as i64), [rows], &w.device())
}

/// A number of each group for each row, `[O, 1]`.
fn spread<B: Backend>(of_groups: Float<B>, group_of_row: IntTensor<B>) -> Array<B> {
    let rows = group_of_row.shape()[0];
    Array::<B>(of_groups).rows(group_of_row).reshape([rows, 1])
}

/// The code before and after it is clamped.
fn codes<B: Backend>(ratio: Array<B>, zero: Array<B>, bits: u32) -> (Array<B>, Array<B>) {
    let code = ratio.round() + zero;
    (code.clone(), code.clamp(0.0, highest(bits)))
}

/// The highest code.
pub(crate) fn highest(bits: u32) -> f64 {
    ((1u64 << bits) - 1) as f64
}

/// [`FakeQuantize::forward`] by ordinary operations.
pub fn plain<B: Backend>([w, scales, zeros]: [Float<B>; 3], bits: u32) -> Float<B> {
    let groups = group_of_row::<B>(&w, scales.shape()[0]);
    let (scale, zero) = (spread::<B>(scales, groups.clone()), spread::<B>(zeros, groups));
    let (_, code) = codes(Array(w) / scale.clone(), zero.clone(), bits);
    (scale * (code - zero)).0
}

/// [`FakeQuantize::gradient`] by ordinary operations: `dw = dy` where the clamp changes nothing, and
/// `dscale = Σ dy ((code − zero) − w / scale)` over those, `Σ dy (code − zero)` over the others.
pub fn plain_gradient<B: Backend>([w, scales, zeros, dy]: [Float<B>; 4], bits: u32) -> [Float<B>; 2] {
    let (count, dy) = (scales.shape()[0], Array::<B>(dy));
    let groups = group_of_row::<B>(&w, count);
    let (scale, zero) = (spread::<B>(scales, groups.clone()), spread::<B>(zeros, groups.clone()));
    let ratio = Array(w) / scale;
    let (free, code) = codes(ratio.clone(), zero.clone(), bits);
    let inside = free.equals(code.clone());
    let of_rows = (dy.clone() * (code - zero - inside.clone() * ratio)).sum(1); // [O, 1]
    let dscales = of_rows.full(0.0, [count, 1]).add_rows(groups, of_rows).reshape([count]);
    [(dy * inside).0, dscales.0]
}

impl FakeQuantize for Flex {
    fn forward(w: FlexTensor, scales: FlexTensor, zeros: FlexTensor, bits: u32) -> FlexTensor {
        let Some([w, scales, zeros]) = floats([&w, &scales, &zeros]) else {
            return plain::<Self>([w, scales, zeros], bits);
        };
        let [rows, columns] = w.dims();
        output(w.shape(), |y| kernels::fake_quantize::fake_quantize(&w, rows, columns, &scales, &zeros, bits, y))
    }

    fn gradient(
        w: FlexTensor,
        scales: FlexTensor,
        zeros: FlexTensor,
        dy: FlexTensor,
        bits: u32,
    ) -> (FlexTensor, FlexTensor) {
        let Some([w, scales, zeros, dy]) = floats([&w, &scales, &zeros, &dy]) else {
            return plain_gradient::<Self>([w, scales, zeros, dy], bits).into();
        };
        let [rows, columns] = w.dims();
        let backward = kernels::fake_quantize::fake_quantize_backward;
        outputs([w.shape(), scales.shape()], |[dw, dscales]| {
            backward(&w, rows, columns, &scales, &zeros, bits, &dy, dw, dscales)
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl FakeQuantize for Cube {}

impl<B: FakeQuantize, C: CheckpointStrategy> FakeQuantize for Autodiff<B, C> {
    fn forward(w: Float<Self>, scales: Float<Self>, zeros: Float<Self>, bits: u32) -> Float<Self> {
        let ([w, scales, zeros], nodes) = parts::<B, C, 3>([w, scales, zeros]);
        let y = B::forward(w.clone(), scales.clone(), zeros.clone(), bits);
        record::<B, C, 3>(nodes, y, move |dy, _| {
            let (dw, dscales) = B::gradient(w, scales, zeros, dy, bits);
            [Some(dw), Some(dscales), None]
        })
    }
}
