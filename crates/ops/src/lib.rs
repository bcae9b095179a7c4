//! The kernels as Burn operators: each with a backward pass of its own, each an ordinary function over [`Tensor`].
//!
//! One extension trait, [`Kernels`], carries them all across Burn's dispatch; a file per operator holds its
//! implementation for the CPU and its gradient. Tensors are `f32`; what is saved for the backward pass is the
//! operator's input wherever recomputing is cheaper than the memory traffic of keeping an intermediate.

mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod fake_quantize;
mod gelu;
mod layer_norm;
mod linear;
mod optimizer;
mod pool;

use std::sync::Arc;

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchTensor, Flex, TensorData, backend_extension};
use burn::tensor::{Shape, Tensor};

use lapidary_kernels::adamw::AdamW;
use lapidary_kernels::attention::AttentionShape;
use lapidary_kernels::mask::Mask;

use pool::Buffer;

pub use attention::attention;
pub use cross_entropy::{CrossEntropyError, cross_entropy};
pub use dropout::{DropoutKey, dropout};
pub use embedding::embedding;
pub use fake_quantize::{fake_quantize, fake_quantize_rows};
pub use gelu::gelu;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use optimizer::{AdamWState, adamw, sum_of_squares};

/// Every operator with its backward operator, at the level of backend primitives.
///
/// Absent biases and residuals are tensors without elements: the dispatch carries no options.
#[backend_extension(Flex, Autodiff)]
pub trait Kernels: Backend {
    /// `y[N, O] = x[N, I] w[O, I]ᵀ + bias[O]`.
    fn fused_linear(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `dx[N, I] = dy[N, O] w[O, I]`.
    fn linear_grad_input(dy: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `dw[O, I] = dy[N, O]ᵀ x[N, I]`.
    fn linear_grad_weight(dy: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `db[O] = Σₙ dy[n, O]`.
    fn linear_grad_bias(dy: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Layer norm of `x + residual` over the last axis.
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    /// `(d(x + residual), dgamma, dbeta)`.
    fn layer_norm_grad(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Exact GELU.
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;
    /// `dy · gelu'(x)`.
    fn gelu_grad(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Masked softmax attention.
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
        mask: Mask,
    ) -> FloatTensor<Self>;
    /// `(dq, dk, dv)`.
    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: AttentionShape,
        mask: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `(Σ −log p / normalizer, its gradient by the logits)`; targets have been checked.
    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        targets: Arc<[i64]>,
        normalizer: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Rows of a table.
    fn fused_embedding(table: FloatTensor<Self>, ids: Arc<[u32]>) -> FloatTensor<Self>;
    /// The table's gradient, dense.
    fn embedding_grad(dy: FloatTensor<Self>, ids: Arc<[u32]>, rows: usize) -> FloatTensor<Self>;

    /// Inverted dropout whose mask is a function of `key` alone.
    fn dropout(x: FloatTensor<Self>, p: f32, key: DropoutKey) -> FloatTensor<Self>;

    /// Weights rounded to their codes and back, groups of rows.
    fn fake_quantize(
        w: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        zeros: FloatTensor<Self>,
        bits: u32,
    ) -> FloatTensor<Self>;
    /// `(dw, dscales)` by the straight-through estimator.
    fn fake_quantize_grad(
        w: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        zeros: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        bits: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    /// Activations rounded row by row, each in its own range.
    fn fake_quantize_rows(x: FloatTensor<Self>, bits: u32) -> FloatTensor<Self>;

    /// One AdamW step; `(parameter, first moment, second moment)`.
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        settings: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The CPU's side: slices in, a new tensor out. The work itself is in [`lapidary_kernels`].
impl Kernels for Flex {
    fn fused_linear(x: FlexTensor, w: FlexTensor, bias: FlexTensor) -> FlexTensor {
        linear::forward(x, w, bias)
    }
    fn linear_grad_input(dy: FlexTensor, w: FlexTensor) -> FlexTensor {
        linear::grad_input(dy, w)
    }
    fn linear_grad_weight(dy: FlexTensor, x: FlexTensor) -> FlexTensor {
        linear::grad_weight(dy, x)
    }
    fn linear_grad_bias(dy: FlexTensor) -> FlexTensor {
        linear::grad_bias(dy)
    }
    fn fused_layer_norm(
        x: FlexTensor,
        residual: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        eps: f32,
    ) -> FlexTensor {
        layer_norm::forward(x, residual, gamma, beta, eps)
    }
    fn layer_norm_grad(
        x: FlexTensor,
        residual: FlexTensor,
        gamma: FlexTensor,
        dy: FlexTensor,
        eps: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        layer_norm::grad(x, residual, gamma, dy, eps)
    }
    fn fused_gelu(x: FlexTensor) -> FlexTensor {
        gelu::forward(x)
    }
    fn gelu_grad(x: FlexTensor, dy: FlexTensor) -> FlexTensor {
        gelu::grad(x, dy)
    }
    fn fused_attention(q: FlexTensor, k: FlexTensor, v: FlexTensor, shape: AttentionShape, mask: Mask) -> FlexTensor {
        attention::forward(q, k, v, shape, mask)
    }
    fn attention_grad(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        dout: FlexTensor,
        shape: AttentionShape,
        mask: Mask,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        attention::grad(q, k, v, dout, shape, mask)
    }
    fn fused_cross_entropy(logits: FlexTensor, targets: Arc<[i64]>, normalizer: f32) -> (FlexTensor, FlexTensor) {
        cross_entropy::forward(logits, &targets, normalizer)
    }
    fn fused_embedding(table: FlexTensor, ids: Arc<[u32]>) -> FlexTensor {
        embedding::forward(table, &ids)
    }
    fn embedding_grad(dy: FlexTensor, ids: Arc<[u32]>, rows: usize) -> FlexTensor {
        embedding::grad(dy, &ids, rows)
    }
    fn dropout(x: FlexTensor, p: f32, key: DropoutKey) -> FlexTensor {
        dropout::forward(x, p, key)
    }
    fn fake_quantize(w: FlexTensor, scales: FlexTensor, zeros: FlexTensor, bits: u32) -> FlexTensor {
        fake_quantize::forward(w, scales, zeros, bits)
    }
    fn fake_quantize_grad(
        w: FlexTensor,
        scales: FlexTensor,
        zeros: FlexTensor,
        dy: FlexTensor,
        bits: u32,
    ) -> (FlexTensor, FlexTensor) {
        fake_quantize::grad(w, scales, zeros, dy, bits)
    }
    fn fake_quantize_rows(x: FlexTensor, bits: u32) -> FlexTensor {
        fake_quantize::rows(x, bits)
    }
    fn adamw(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        settings: AdamW,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        optimizer::adamw_step(parameter, gradient, first, second, settings)
    }
}

/// The elements of a contiguous `f32` tensor, borrowed.
fn floats(x: &FlexTensor) -> &[f32] {
    x.as_slice::<f32>().expect("operators make their inputs contiguous and f32 first")
}

/// Rows and columns of a tensor of rank two.
fn rows_columns(x: &FlexTensor) -> (usize, usize) {
    let dims = x.layout().shape().as_slice();
    (dims[0], dims[1])
}

fn like(data: Buffer, other: &FlexTensor) -> FlexTensor {
    data.into_tensor(other.layout().shape().clone())
}

/// A tensor without elements: how an absent bias or residual crosses the dispatch.
fn absent<const D: usize>(like: &Tensor<2>) -> Tensor<D> {
    let empty = Tensor::<D>::empty([0; D], (&like.device(), like.dtype()));
    if like.is_autodiff() { Tensor::from_inner(empty.inner()) } else { empty }
}

fn dispatch<const D: usize>(x: DispatchTensor) -> Tensor<D> {
    Tensor::from_dispatch(x)
}

/// A float tensor of a backend that records gradients.
type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

/// A tensor that takes no part in the gradient.
fn constant<B: Backend, C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy>(
    x: B::FloatTensorPrimitive,
) -> Tracked<B, C> {
    <Autodiff<B, C> as burn::backend::AutodiffBackend>::from_inner(x)
}

/// Tracked operators record their backward pass; backward operators themselves are not differentiated again.
impl<B, C> Kernels for Autodiff<B, C>
where
    B: Backend + Kernels,
    C: burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy,
{
    fn fused_linear(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        linear::track::<B, C>(x, w, bias)
    }
    fn linear_grad_input(dy: FloatTensor<Self>, w: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<B, C>(B::linear_grad_input(dy.into_primitive(), w.into_primitive()))
    }
    fn linear_grad_weight(dy: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<B, C>(B::linear_grad_weight(dy.into_primitive(), x.into_primitive()))
    }
    fn linear_grad_bias(dy: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<B, C>(B::linear_grad_bias(dy.into_primitive()))
    }
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        layer_norm::track::<B, C>(x, residual, gamma, beta, eps)
    }
    fn layer_norm_grad(
        x: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        eps: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (dx, dgamma, dbeta) = B::layer_norm_grad(
            x.into_primitive(),
            residual.into_primitive(),
            gamma.into_primitive(),
            dy.into_primitive(),
            eps,
        );
        (constant::<B, C>(dx), constant::<B, C>(dgamma), constant::<B, C>(dbeta))
    }
    fn fused_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::track::<B, C>(x)
    }
    fn gelu_grad(x: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        constant::<B, C>(B::gelu_grad(x.into_primitive(), dy.into_primitive()))
    }
    fn fused_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        shape: AttentionShape,
        mask: Mask,
    ) -> FloatTensor<Self> {
        attention::track::<B, C>(q, k, v, shape, mask)
    }
    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        dout: FloatTensor<Self>,
        shape: AttentionShape,
        mask: Mask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (dq, dk, dv) = B::attention_grad(
            q.into_primitive(),
            k.into_primitive(),
            v.into_primitive(),
            dout.into_primitive(),
            shape,
            mask,
        );
        (constant::<B, C>(dq), constant::<B, C>(dk), constant::<B, C>(dv))
    }
    fn fused_cross_entropy(
        logits: FloatTensor<Self>,
        targets: Arc<[i64]>,
        normalizer: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        cross_entropy::track::<B, C>(logits, targets, normalizer)
    }
    fn fused_embedding(table: FloatTensor<Self>, ids: Arc<[u32]>) -> FloatTensor<Self> {
        embedding::track::<B, C>(table, ids)
    }
    fn embedding_grad(dy: FloatTensor<Self>, ids: Arc<[u32]>, rows: usize) -> FloatTensor<Self> {
        constant::<B, C>(B::embedding_grad(dy.into_primitive(), ids, rows))
    }
    fn dropout(x: FloatTensor<Self>, p: f32, key: DropoutKey) -> FloatTensor<Self> {
        dropout::track::<B, C>(x, p, key)
    }
    fn fake_quantize(
        w: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        zeros: FloatTensor<Self>,
        bits: u32,
    ) -> FloatTensor<Self> {
        fake_quantize::track::<B, C>(w, scales, zeros, bits)
    }
    fn fake_quantize_grad(
        w: FloatTensor<Self>,
        scales: FloatTensor<Self>,
        zeros: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        bits: u32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (dw, dscales) = B::fake_quantize_grad(
            w.into_primitive(),
            scales.into_primitive(),
            zeros.into_primitive(),
            dy.into_primitive(),
            bits,
        );
        (constant::<B, C>(dw), constant::<B, C>(dscales))
    }
    fn fake_quantize_rows(x: FloatTensor<Self>, bits: u32) -> FloatTensor<Self> {
        fake_quantize::track_rows::<B, C>(x, bits)
    }
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        settings: AdamW,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let (parameter, first, second) = B::adamw(
            parameter.into_primitive(),
            gradient.into_primitive(),
            first.into_primitive(),
            second.into_primitive(),
            settings,
        );
        (constant::<B, C>(parameter), constant::<B, C>(first), constant::<B, C>(second))
    }
}
