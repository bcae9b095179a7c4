//! Fake quantization: values rounded to the codes they will be stored as, still held in `f32`.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};

use super::*;
use lapidary_kernels as kernels;

/// Weights `w [O, I]` rounded to `bits`-bit codes in `G` groups of rows; `scales, zeros [G]`.
///
/// Group `g` holds the rows `g·O/G .. (g+1)·O/G`. Backward is Q-BERT's straight-through estimator (1909.05840,
/// section 3): a gradient of 1 inside the range and 0 outside; the scales get LSQ's gradient (1902.08153, eq. 3),
/// unscaled.
pub fn fake_quantize(w: Tensor<2>, scales: Tensor<1>, zeros: Tensor<1>, bits: u32) -> Tensor<2> {
    dispatch(<Dispatch as Kernels>::fake_quantize(
        w.into_dispatch(),
        scales.into_dispatch(),
        zeros.into_dispatch(),
        bits,
    ))
}

/// Activations `x [N, D]` rounded to `bits` bits, each row in its own range `[min(0, x), max(0, x)]`.
///
/// Nothing lies outside a range that is found anew for each row, so backward is the identity.
pub fn fake_quantize_rows(x: Tensor<2>, bits: u32) -> Tensor<2> {
    dispatch(<Dispatch as Kernels>::fake_quantize_rows(x.into_dispatch(), bits))
}

pub(super) fn forward(w: FlexTensor, scales: FlexTensor, zeros: FlexTensor, bits: u32) -> FlexTensor {
    let (w, scales, zeros) = (w.to_contiguous(), scales.to_contiguous(), zeros.to_contiguous());
    let (rows, columns) = rows_columns(&w);
    let mut y = Buffer::new(rows * columns);
    kernels::fake_quantize::fake_quantize(floats(&w), rows, columns, floats(&scales), floats(&zeros), bits, &mut y);
    like(y, &w)
}

pub(super) fn grad(
    w: FlexTensor,
    scales: FlexTensor,
    zeros: FlexTensor,
    dy: FlexTensor,
    bits: u32,
) -> (FlexTensor, FlexTensor) {
    let (w, scales, zeros, dy) = (w.to_contiguous(), scales.to_contiguous(), zeros.to_contiguous(), dy.to_contiguous());
    let (rows, columns) = rows_columns(&w);
    let (mut dw, mut dscales) = (Buffer::new(rows * columns), Buffer::new(floats(&scales).len()));
    kernels::fake_quantize::fake_quantize_backward(
        floats(&w),
        rows,
        columns,
        floats(&scales),
        floats(&zeros),
        bits,
        floats(&dy),
        &mut dw,
        &mut dscales,
    );
    (like(dw, &w), like(dscales, &scales))
}

pub(super) fn rows(x: FlexTensor, bits: u32) -> FlexTensor {
    let x = x.to_contiguous();
    let (_, columns) = rows_columns(&x);
    let mut y = Buffer::new(floats(&x).len());
    kernels::fake_quantize::fake_quantize_rows(floats(&x), columns, bits, &mut y);
    like(y, &x)
}

#[derive(Debug)]
struct FakeQuantizeBackward;

impl<B: Backend + Kernels> Backward<B, 3> for FakeQuantizeBackward {
    type State = ([B::FloatTensorPrimitive; 3], u32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let ([w, scales, zeros], bits) = ops.state;
        let (dw, dscales) = B::fake_quantize_grad(w, scales, zeros, dy, bits);
        let [w_node, scales_node, _] = ops.parents;
        for (node, gradient) in [(w_node, dw), (scales_node, dscales)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    w: Tracked<B, C>,
    scales: Tracked<B, C>,
    zeros: Tracked<B, C>,
    bits: u32,
) -> Tracked<B, C> {
    let nodes = [w.node(), scales.node(), zeros.node()];
    let (w, scales, zeros) = (w.into_primitive(), scales.into_primitive(), zeros.into_primitive());
    match FakeQuantizeBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let state = ([w.clone(), scales.clone(), zeros.clone()], bits);
            prep.finish(state, B::fake_quantize(w, scales, zeros, bits))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::fake_quantize(w, scales, zeros, bits)),
    }
}

#[derive(Debug)]
struct RowsBackward;

impl<B: Backend + Kernels> Backward<B, 1> for RowsBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |dy| dy);
    }
}

pub(super) fn track_rows<B: Backend + Kernels, C: CheckpointStrategy>(x: Tracked<B, C>, bits: u32) -> Tracked<B, C> {
    let prep = RowsBackward.prepare::<C>([x.node()]).compute_bound();
    prep.stateless(B::fake_quantize_rows(x.into_primitive(), bits))
}
