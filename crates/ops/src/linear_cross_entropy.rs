//! The loss of a language model's head, `cross_entropy(x wᵀ)`, whose logits are never held whole; the forward pass leaves
//! both gradients behind, the backward pass only scales them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::{AutodiffBackend, read_sync};
use kernels::linear_cross_entropy::{DrawKey, LinearCrossEntropy as Settings};
use kernels::precision::Precision;

use crate::CrossEntropyError;
use crate::operator::*;

/// `Σ −log softmax(x weightᵀ)[target] / normalizer` → a scalar `[1]`, for `x [N, D]`, `weight [V, D]` and `N` targets.
///
/// As [`cross_entropy`](crate::cross_entropy()) of a [`linear`](crate::linear()) without bias, whose products have
/// that precision.
///
/// # Errors
/// A target that is neither in `0..V` nor −100, or another number of targets than rows.
pub fn linear_cross_entropy(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    normalizer: f32,
    precision: Precision,
) -> Result<Tensor<1>, CrossEntropyError> {
    all(x, weight, targets, normalizer, precision, None)
}

/// As [`linear_cross_entropy`], and for each row whose target counts a token drawn from its softmax, at the row's place in
/// `[N]`; the other rows have 0. Nothing is differentiated through a draw.
///
/// # Errors
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_drawing(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    normalizer: f32,
    precision: Precision,
    key: DrawKey,
) -> Result<(Tensor<1>, Vec<u32>), CrossEntropyError> {
    let draws = Draws { key, tokens: Arc::new(Mutex::new(vec![0; targets.len()])) };
    let loss = all(x, weight, targets, normalizer, precision, Some(draws.clone()))?;
    let tokens = std::mem::take(&mut *draws.tokens.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((loss, tokens))
}

fn all(
    x: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    normalizer: f32,
    precision: Precision,
    draws: Option<Draws>,
) -> Result<Tensor<1>, CrossEntropyError> {
    let ([rows, width], [vocabulary, _]) = (x.dims(), weight.dims());
    kernels::cross_entropy::check(targets, rows, vocabulary)?;
    let settings = Settings { width, normalizer, soft_cap: None, precision };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (loss, _, _) = <Dispatch as LinearCrossEntropy>::forward(x, weight, targets.into(), settings, draws);
    Ok(Tensor::from_dispatch(loss))
}

/// Where drawn tokens go.
#[derive(Clone, Debug)]
pub struct Draws {
    key: DrawKey,
    /// One a row.
    tokens: Arc<Mutex<Vec<u32>>>,
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait LinearCrossEntropy: Backend {
    /// The loss `[1]`, and its gradients by `x` and by `w`; targets have been checked.
    fn forward(
        x: Float<Self>,
        w: Float<Self>,
        targets: Arc<[i64]>,
        settings: Settings,
        draws: Option<Draws>,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        if let Some(draws) = draws {
            draw::<Self>(x.clone(), w.clone(), &targets, settings, &draws);
        }
        plain::<Self>(x, w, &targets, settings).into()
    }
}

/// Draws on the host, from all logits at once.
fn draw<B: Backend>(x: Float<B>, w: Float<B>, targets: &[i64], settings: Settings, draws: &Draws) {
    let [x, w] = [x, w].map(|x| {
        let data = read_sync(B::float_into_data(x)).expect("the device has not failed");
        data.iter::<f32>().collect::<Vec<_>>()
    });
    let mut tokens = draws.tokens.lock().unwrap_or_else(PoisonError::into_inner);
    let kernel = kernels::linear_cross_entropy::linear_cross_entropy_drawing;
    kernel(&settings, &x, &w, targets, None, draws.key, &mut tokens)
        .expect("the public operator has checked the targets");
}

/// [`LinearCrossEntropy::forward`] by ordinary operations, in the precision of its tensors and with all logits at once.
pub fn plain<B: Backend>(x: Float<B>, w: Float<B>, targets: &[i64], settings: Settings) -> [Float<B>; 3] {
    let (x, w) = (Array::<B>(x), Array::<B>(w));
    let logits = x.clone().matmul(w.clone().transpose());
    let (logits, derivative) = match settings.soft_cap.map(f64::from) {
        None => (logits, None),
        Some(cap) => {
            let tanh = (logits / cap).tanh();
            let derivative = tanh.full(1.0, [1, 1]) - tanh.clone().square();
            (tanh * cap, Some(derivative))
        }
    };
    let [loss, dlogits] = crate::cross_entropy::plain::<B>(logits.0, targets, settings.normalizer);
    let dlogits = match derivative {
        Some(derivative) => Array::<B>(dlogits) * derivative,
        None => Array::<B>(dlogits),
    };
    [loss, dlogits.clone().matmul(w).0, dlogits.transpose().matmul(x).0]
}

impl LinearCrossEntropy for Flex {
    fn forward(
        x: FlexTensor,
        w: FlexTensor,
        targets: Arc<[i64]>,
        settings: Settings,
        draws: Option<Draws>,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let Some([x, w]) = floats([&x, &w]) else {
            if let Some(draws) = draws {
                draw::<Self>(x.clone(), w.clone(), &targets, settings, &draws);
            }
            return plain::<Self>(x, w, &targets, settings).into();
        };
        outputs([[1].into(), x.shape(), w.shape()], |[loss, dx, dw]| {
            use kernels::linear_cross_entropy::{linear_cross_entropy, linear_cross_entropy_drawing};
            let gradients = Some((dx, dw));
            let sum = match &draws {
                Some(Draws { key, tokens }) => {
                    let mut tokens = tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    linear_cross_entropy_drawing(&settings, &x, &w, &targets, gradients, *key, &mut tokens)
                }
                None => linear_cross_entropy(&settings, &x, &w, &targets, gradients),
            };
            loss[0] = sum.expect("the public operator has checked the targets") as f32;
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl LinearCrossEntropy for Cube {}

impl<B: LinearCrossEntropy, C: CheckpointStrategy> LinearCrossEntropy for Autodiff<B, C> {
    fn forward(
        x: Float<Self>,
        w: Float<Self>,
        targets: Arc<[i64]>,
        settings: Settings,
        draws: Option<Draws>,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        let ([x, w], nodes) = parts::<B, C, 2>([x, w]);
        let (loss, dx, dw) = B::forward(x, w, targets, settings, draws);
        let constants = [dx.clone(), dw.clone()].map(Self::from_inner);
        let loss = record::<B, C, 2>(nodes, loss, |dloss, wanted| {
            let dloss = Array::<B>(dloss).reshape([1, 1]);
            let scaled = |gradient| (Array::<B>(gradient) * dloss.clone()).0;
            [wanted[0].then(|| scaled(dx)), wanted[1].then(|| scaled(dw))]
        });
        let [dx, dw] = constants;
        (loss, dx, dw)
    }
}
