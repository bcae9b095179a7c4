//! Softmax attention under a causal, prefix or full mask.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// `softmax(q kᵀ / √K) v` per row and head; `q, k, v [B·L, H·K]` → `[B·L, H·K]`.
///
/// The probabilities are recomputed in the backward pass, so no `L × L` matrix outlives either pass.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape, mask: &Mask) -> Tensor<2> {
    dispatch(<Dispatch as Kernels>::fused_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        shape,
        mask.clone(),
    ))
}

pub(super) fn forward(q: FlexTensor, k: FlexTensor, v: FlexTensor, shape: AttentionShape, mask: Mask) -> FlexTensor {
    let (q, k, v) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous());
    let mut out = Buffer::new(floats(&q).len());
    kernels::attention::attention(floats(&q), floats(&k), floats(&v), shape, &mask, &mut out);
    like(out, &q)
}

pub(super) fn grad(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    dout: FlexTensor,
    shape: AttentionShape,
    mask: Mask,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let (q, k, v, dout) = (q.to_contiguous(), k.to_contiguous(), v.to_contiguous(), dout.to_contiguous());
    let n = floats(&q).len();
    let (mut dq, mut dk, mut dv) = (Buffer::new(n), Buffer::new(n), Buffer::new(n));
    kernels::attention::attention_backward(
        floats(&q),
        floats(&k),
        floats(&v),
        floats(&dout),
        shape,
        &mask,
        &mut dq,
        &mut dk,
        &mut dv,
    );
    (like(dq, &q), like(dk, &q), like(dv, &q))
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Backend + Kernels> Backward<B, 3> for AttentionBackward {
    type State = ([B::FloatTensorPrimitive; 3], AttentionShape, Mask);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dout = grads.consume::<B>(&ops.node);
        let ([q, k, v], shape, mask) = ops.state;
        let (dq, dk, dv) = B::attention_grad(q, k, v, dout, shape, mask);
        for (node, gradient) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    q: Tracked<B, C>,
    k: Tracked<B, C>,
    v: Tracked<B, C>,
    shape: AttentionShape,
    mask: Mask,
) -> Tracked<B, C> {
    let nodes = [q.node(), k.node(), v.node()];
    let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
    match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let state = ([q.clone(), k.clone(), v.clone()], shape, mask.clone());
            prep.finish(state, B::fused_attention(q, k, v, shape, mask))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::fused_attention(q, k, v, shape, mask)),
    }
}
