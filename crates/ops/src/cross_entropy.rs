//! Softmax cross-entropy; the forward pass leaves the gradient behind, the backward pass only scales it.

use std::sync::Arc;

use burn::backend::AutodiffBackend;
use kernels::cross_entropy::IGNORED;

use crate::operator::*;

pub use kernels::cross_entropy::CrossEntropyError;

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
    let (loss, _) = Dispatch::forward(logits.into_dispatch(), targets.into(), normalizer);
    Ok(Tensor::from_dispatch(loss))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait CrossEntropy: Backend {
    /// The loss `[1]`, and its gradient `(softmax − onehot) / normalizer [N, V]`; targets have been checked.
    fn forward(logits: Float<Self>, targets: Arc<[i64]>, normalizer: f32) -> (Float<Self>, Float<Self>) {
        plain::<Self>(logits, &targets, normalizer).into()
    }
}

/// [`CrossEntropy::forward`] by ordinary operations.
pub fn plain<B: Backend>(logits: Float<B>, targets: &[i64], normalizer: f32) -> [Float<B>; 2] {
    let (logits, n, normalizer) = (Array::<B>(logits), targets.len(), f64::from(normalizer));
    let counts = targets.iter().map(|&target| f32::from(target != IGNORED)).collect();
    let ignored = logits.host(counts, [n, 1]).is(0.0);
    let targets = integers::<B>(targets.iter().map(|&target| target.max(0)), [n, 1], &logits.0.device());

    let shifted = logits.clone() - logits.max(1);
    let exponentials = shifted.clone().exp();
    let sums = exponentials.clone().sum(1); // [N, 1]
    let losses = (sums.clone().ln() - shifted.pick(targets.clone())).fill_where(ignored.clone(), 0.0);
    let minus_one = sums.full(-1.0, [n, 1]);
    let gradient = (exponentials / sums).add_at(targets, minus_one).fill_where(ignored, 0.0);
    [losses.sum(0).reshape([1]), gradient].map(|x| (x / normalizer).0)
}

impl CrossEntropy for Flex {
    fn forward(logits: FlexTensor, targets: Arc<[i64]>, normalizer: f32) -> (FlexTensor, FlexTensor) {
        let Some([logits]) = floats([&logits]) else { return plain::<Self>(logits, &targets, normalizer).into() };
        let [_, vocabulary] = logits.dims();
        outputs([[1].into(), logits.shape()], |[loss, gradient]| {
            let sum = kernels::cross_entropy::cross_entropy(&logits, &targets, vocabulary, normalizer, Some(gradient));
            loss[0] = sum.expect("the public operator has checked the targets") as f32;
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl CrossEntropy for Cube {}

impl<B: CrossEntropy, C: CheckpointStrategy> CrossEntropy for Autodiff<B, C> {
    fn forward(logits: Float<Self>, targets: Arc<[i64]>, normalizer: f32) -> (Float<Self>, Float<Self>) {
        let ([logits], nodes) = parts::<B, C, 1>([logits]);
        let (loss, gradient) = B::forward(logits, targets, normalizer);
        let constant = Self::from_inner(gradient.clone());
        let loss = record::<B, C, 1>(nodes, loss, |dloss, _| {
            let dloss = Array::<B>(dloss).reshape([1, 1]);
            [Some((Array(gradient) * dloss).0)]
        });
        (loss, constant)
    }
}
