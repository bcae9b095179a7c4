//! Inverted dropout with a stateless mask: the same key gives the same mask, in the forward and the backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// What a dropout mask is a function of: the run's seed, the step, and the place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Micro-batch of the run, counted from its start.
    pub step: u64,
    /// Place in the model, different for each dropout layer.
    pub place: u64,
}

/// `x [N, D]` with each element zeroed with probability `p` and the rest divided by `1 − p`.
pub fn dropout(x: Tensor<2>, p: f32, key: DropoutKey) -> Tensor<2> {
    if p == 0.0 { x } else { dispatch(<Dispatch as Kernels>::dropout(x.into_dispatch(), p, key)) }
}

pub(super) fn forward(x: FlexTensor, p: f32, key: DropoutKey) -> FlexTensor {
    let x = x.to_contiguous();
    let mut y = Buffer::new(floats(&x).len());
    kernels::dropout::dropout(floats(&x), p, key.seed, key.step, key.place, &mut y);
    like(y, &x)
}

#[derive(Debug)]
struct DropoutBackward;

impl<B: Backend + Kernels> Backward<B, 1> for DropoutBackward {
    type State = (f32, DropoutKey);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (p, key) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::dropout(dy, p, key));
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    x: Tracked<B, C>,
    p: f32,
    key: DropoutKey,
) -> Tracked<B, C> {
    match DropoutBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((p, key), B::dropout(x.into_primitive(), p, key)),
        OpsKind::UnTracked(prep) => prep.finish(B::dropout(x.into_primitive(), p, key)),
    }
}
