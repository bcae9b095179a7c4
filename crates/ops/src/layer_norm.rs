//! Layer norm over the last axis, with the residual of a post-norm block added on the way.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// `LN(x + residual) · gamma + beta` for rows `x [N, D]`, `residual [N, D]`, `gamma [D]`, `beta [D]`.
pub fn layer_norm(x: Tensor<2>, residual: Option<Tensor<2>>, gamma: Tensor<1>, beta: Tensor<1>, eps: f32) -> Tensor<2> {
    let residual = residual.unwrap_or_else(|| absent(&x));
    dispatch(<Dispatch as Kernels>::fused_layer_norm(
        x.into_dispatch(),
        residual.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        eps,
    ))
}

fn present(residual: &FlexTensor) -> Option<&[f32]> {
    let residual = floats(residual);
    (!residual.is_empty()).then_some(residual)
}

pub(super) fn forward(
    x: FlexTensor,
    residual: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    eps: f32,
) -> FlexTensor {
    let (x, residual) = (x.to_contiguous(), residual.to_contiguous());
    let (gamma, beta) = (gamma.to_contiguous(), beta.to_contiguous());
    let mut y = Buffer::new(floats(&x).len());
    kernels::layer_norm::layer_norm(floats(&x), present(&residual), floats(&gamma), floats(&beta), eps, &mut y);
    like(y, &x)
}

pub(super) fn grad(
    x: FlexTensor,
    residual: FlexTensor,
    gamma: FlexTensor,
    dy: FlexTensor,
    eps: f32,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (x, residual, gamma, dy) =
        (x.to_contiguous(), residual.to_contiguous(), gamma.to_contiguous(), dy.to_contiguous());
    let width = floats(&gamma).len();
    let (mut dx, mut dgamma, mut dbeta) = (Buffer::new(floats(&x).len()), Buffer::new(width), Buffer::new(width));
    kernels::layer_norm::layer_norm_backward(
        floats(&x),
        present(&residual),
        floats(&gamma),
        eps,
        floats(&dy),
        &mut dx,
        &mut dgamma,
        &mut dbeta,
    );
    (like(dx, &x), dgamma.into_tensor([width]), dbeta.into_tensor([width]))
}

#[derive(Debug)]
struct LayerNormBackward;

impl<B: Backend + Kernels> Backward<B, 4> for LayerNormBackward {
    type State = (B::FloatTensorPrimitive, B::FloatTensorPrimitive, B::FloatTensorPrimitive, f32);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, residual, gamma, eps) = ops.state;
        let (dx, dgamma, dbeta) = B::layer_norm_grad(x, residual, gamma, dy, eps);
        let [x_node, residual_node, gamma_node, beta_node] = ops.parents;
        for (node, gradient) in [(residual_node, dx.clone()), (x_node, dx), (gamma_node, dgamma), (beta_node, dbeta)] {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    residual: Tracked<B, C>,
    gamma: Tracked<B, C>,
    beta: Tracked<B, C>,
    eps: f32,
) -> Tracked<B, C> {
    let nodes = [x.node(), residual.node(), gamma.node(), beta.node()];
    let (x, residual, gamma, beta) =
        (x.into_primitive(), residual.into_primitive(), gamma.into_primitive(), beta.into_primitive());
    match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(
            (x.clone(), residual.clone(), gamma.clone(), eps),
            B::fused_layer_norm(x, residual, gamma, beta, eps),
        ),
        OpsKind::UnTracked(prep) => prep.finish(B::fused_layer_norm(x, residual, gamma, beta, eps)),
    }
}
