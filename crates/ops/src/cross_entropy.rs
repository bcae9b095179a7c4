//! Softmax cross-entropy; the forward pass leaves the gradient behind, the backward pass only scales it.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

pub use lapidary_kernels::cross_entropy::CrossEntropyError;

/// `Σ −log softmax(logits)[target] / normalizer` → a scalar `[1]`, for `logits [N, V]` and `N` targets.
///
/// The normalizer is given, so that micro-batches of one step can share that of the whole step. A target of −100
/// is left out.
///
/// # Errors
/// A target outside `0..V`, or another number of targets than rows.
pub fn cross_entropy(logits: Tensor<2>, targets: &[i64], normalizer: f32) -> Result<Tensor<1>, CrossEntropyError> {
    let [rows, vocabulary] = logits.dims();
    kernels::cross_entropy::check(targets, rows, vocabulary)?;
    let (loss, _) = <Dispatch as Kernels>::fused_cross_entropy(logits.into_dispatch(), targets.into(), normalizer);
    Ok(dispatch(loss))
}

pub(super) fn forward(logits: FlexTensor, targets: &[i64], normalizer: f32) -> (FlexTensor, FlexTensor) {
    let logits = logits.to_contiguous();
    let (_, vocabulary) = rows_columns(&logits);
    let mut gradient = Buffer::new(floats(&logits).len());
    let loss =
        kernels::cross_entropy::cross_entropy(floats(&logits), targets, vocabulary, normalizer, Some(&mut gradient))
            .expect("the public operator has checked the targets");
    let loss = FlexTensor::from_data(TensorData::new(vec![loss as f32], [1]));
    (loss, like(gradient, &logits))
}

#[derive(Debug)]
struct CrossEntropyBackward;

impl<B: Backend + Kernels> Backward<B, 1> for CrossEntropyBackward {
    type State = B::FloatTensorPrimitive;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dloss = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let dloss = B::float_reshape(dloss, Shape::new([1, 1]));
            grads.register::<B>(node.id, B::float_mul(ops.state, dloss));
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    logits: Tracked<B, C>,
    targets: Arc<[i64]>,
    normalizer: f32,
) -> (Tracked<B, C>, Tracked<B, C>) {
    let prep = CrossEntropyBackward.prepare::<C>([logits.node()]).compute_bound().stateful();
    let (loss, gradient) = B::fused_cross_entropy(logits.into_primitive(), targets, normalizer);
    let constant = constant::<B, C>(gradient.clone());
    match prep {
        OpsKind::Tracked(prep) => (prep.finish(gradient, loss), constant),
        OpsKind::UnTracked(prep) => (prep.finish(loss), constant),
    }
}
