//! GELU with the exact error function.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// `x · Φ(x)`, elementwise, any shape `[N, D]`.
pub fn gelu(x: Tensor<2>) -> Tensor<2> {
    dispatch(<Dispatch as Kernels>::fused_gelu(x.into_dispatch()))
}

pub(super) fn forward(x: FlexTensor) -> FlexTensor {
    let x = x.to_contiguous();
    let mut y = Buffer::new(floats(&x).len());
    kernels::gelu::gelu(floats(&x), &mut y);
    like(y, &x)
}

pub(super) fn grad(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
    let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
    let mut dx = Buffer::new(floats(&x).len());
    kernels::gelu::gelu_backward(floats(&x), floats(&dy), &mut dx);
    like(dx, &x)
}

#[derive(Debug)]
struct GeluBackward;

impl<B: Backend + Kernels> Backward<B, 1> for GeluBackward {
    type State = B::FloatTensorPrimitive;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::gelu_grad(ops.state, dy));
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(x: Tracked<B, C>) -> Tracked<B, C> {
    match GeluBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let x = x.into_primitive();
            prep.finish(x.clone(), B::fused_gelu(x))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::fused_gelu(x.into_primitive())),
    }
}
