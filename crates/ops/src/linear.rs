//! `y = x wᵀ + b`, the layout of every published checkpoint: a row of `w` is one output neuron.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// `x [N, I]`, `weight [O, I]`, `bias [O]` → `[N, O]`.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let bias = bias.unwrap_or_else(|| absent(&x));
    dispatch(<Dispatch as Kernels>::fused_linear(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

pub(super) fn forward(x: FlexTensor, w: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let (x, w, bias) = (x.to_contiguous(), w.to_contiguous(), bias.to_contiguous());
    let ((n, input), (output, _)) = (rows_columns(&x), rows_columns(&w));
    let mut y = Buffer::new(n * output);
    let bias = floats(&bias);
    kernels::linear::linear(floats(&x), floats(&w), (!bias.is_empty()).then_some(bias), n, input, output, &mut y);
    y.into_tensor([n, output])
}

pub(super) fn grad_input(dy: FlexTensor, w: FlexTensor) -> FlexTensor {
    let (dy, w) = (dy.to_contiguous(), w.to_contiguous());
    let ((n, output), (_, input)) = (rows_columns(&dy), rows_columns(&w));
    let mut dx = Buffer::new(n * input);
    kernels::linear::linear_backward_input(floats(&dy), floats(&w), n, input, output, &mut dx);
    dx.into_tensor([n, input])
}

pub(super) fn grad_weight(dy: FlexTensor, x: FlexTensor) -> FlexTensor {
    let (dy, x) = (dy.to_contiguous(), x.to_contiguous());
    let ((n, output), (_, input)) = (rows_columns(&dy), rows_columns(&x));
    let mut dw = Buffer::new(output * input);
    kernels::linear::linear_backward_weight(floats(&dy), floats(&x), n, input, output, &mut dw);
    dw.into_tensor([output, input])
}

pub(super) fn grad_bias(dy: FlexTensor) -> FlexTensor {
    let dy = dy.to_contiguous();
    let (n, output) = rows_columns(&dy);
    let mut db = Buffer::new(output);
    kernels::linear::sum_rows(floats(&dy), n, output, &mut db);
    db.into_tensor([output])
}

#[derive(Debug)]
struct LinearBackward;

impl<B: Backend + Kernels> Backward<B, 3> for LinearBackward {
    type State = (B::FloatTensorPrimitive, B::FloatTensorPrimitive);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, w) = ops.state;
        let [x_node, w_node, bias_node] = ops.parents;
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::linear_grad_bias(dy.clone()));
        }
        if let Some(node) = w_node {
            grads.register::<B>(node.id, B::linear_grad_weight(dy.clone(), x));
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::linear_grad_input(dy, w));
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    w: Tracked<B, C>,
    bias: Tracked<B, C>,
) -> Tracked<B, C> {
    match LinearBackward.prepare::<C>([x.node(), w.node(), bias.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (x, w) = (x.into_primitive(), w.into_primitive());
            prep.finish((x.clone(), w.clone()), B::fused_linear(x, w, bias.into_primitive()))
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::fused_linear(x.into_primitive(), w.into_primitive(), bias.into_primitive()))
        }
    }
}
