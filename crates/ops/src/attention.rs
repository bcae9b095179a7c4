//! Softmax attention under a causal, prefix or full mask.

use kernels::attention::AttentionShape;
use kernels::mask::Mask;

use crate::operator::*;

/// `softmax(q kᵀ / √K) v` per row and head; `q, k, v [B·L, H·K]` → `[B·L, H·K]`.
///
/// The probabilities are recomputed in the backward pass, so no `L × L` matrix outlives either pass.
pub fn attention(q: Tensor<2>, k: Tensor<2>, v: Tensor<2>, shape: AttentionShape, mask: &Mask) -> Tensor<2> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::forward(q, k, v, shape, mask.clone()))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Attention: Backend {
    /// `P v` with `P = softmax(q kᵀ / √K)` over the keys that a query sees; 0 for a query that sees none.
    fn forward(q: Float<Self>, k: Float<Self>, v: Float<Self>, shape: AttentionShape, mask: Mask) -> Float<Self> {
        plain::<Self>([q, k, v], shape, &mask)
    }

    /// `(dq, dk, dv)`.
    fn gradient(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        dout: Float<Self>,
        shape: AttentionShape,
        mask: Mask,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        plain_gradient::<Self>([q, k, v, dout], shape, &mask).into()
    }
}

/// `[B·L, H·K]` → `[B, H, L, K]`.
fn split<B: Backend>(x: Float<B>, shape: AttentionShape) -> Array<B> {
    let AttentionShape { rows, length, heads, head_width } = shape;
    Array::<B>(x).reshape([rows, length, heads, head_width]).swap(1, 2)
}

/// `[B, H, L, K]` → `[B·L, H·K]`.
fn join<B: Backend>(x: Array<B>, shape: AttentionShape) -> Float<B> {
    x.swap(1, 2).reshape([shape.rows * shape.length, shape.heads * shape.head_width]).0
}

fn scale(shape: AttentionShape) -> f64 {
    1.0 / (shape.head_width as f64).sqrt()
}

/// `P [B, H, L, L]` of split `q` and `k`.
fn probabilities<B: Backend>(q: Array<B>, k: Array<B>, shape: AttentionShape, mask: &Mask) -> Array<B> {
    let AttentionShape { rows, length, .. } = shape;
    // A query sees the keys before the end of its span: two vectors instead of a matrix.
    let (device, end) = (q.0.device(), |i| mask.span(i / length, i % length, length) as i64);
    let ends = integers::<B>((0..rows * length).map(end), [rows, 1, length, 1], &device);
    let keys = integers::<B>(0..length as i64, [1, 1, 1, length], &device);
    let hidden = reaches::<B>(keys, ends); // [B, 1, L, L]
    let scores = (q.matmul(k.swap(2, 3)) * scale(shape)).fill_where(hidden.clone(), f32::MIN.into()); // [B, H, L, L]
    let weights = (scores.clone() - scores.max(3)).exp().fill_where(hidden, 0.0);
    let sum = weights.clone().sum(3);
    let none = sum.clone().is(0.0);
    weights / sum.fill_where(none, 1.0)
}

/// [`Attention::forward`] by ordinary operations.
pub fn plain<B: Backend>(inputs: [Float<B>; 3], shape: AttentionShape, mask: &Mask) -> Float<B> {
    let [q, k, v] = inputs.map(|x| split::<B>(x, shape));
    join(probabilities(q, k, shape, mask).matmul(v), shape)
}

/// [`Attention::gradient`] by ordinary operations: with `dP = dout vᵀ` and `dS = P (dP − Σ_keys P dP)`,
/// `dq = dS k / √K`, `dk = dSᵀ q / √K` and `dv = Pᵀ dout`.
pub fn plain_gradient<B: Backend>(inputs: [Float<B>; 4], shape: AttentionShape, mask: &Mask) -> [Float<B>; 3] {
    let [q, k, v, dout] = inputs.map(|x| split::<B>(x, shape));
    let p = probabilities(q.clone(), k.clone(), shape, mask);
    let dp = dout.clone().matmul(v.swap(2, 3));
    let ds = p.clone() * (dp.clone() - (p.clone() * dp).sum(3)) * scale(shape);
    [ds.clone().matmul(k), ds.swap(2, 3).matmul(q), p.swap(2, 3).matmul(dout)].map(|x| join(x, shape))
}

impl Attention for Flex {
    fn forward(q: FlexTensor, k: FlexTensor, v: FlexTensor, shape: AttentionShape, mask: Mask) -> FlexTensor {
        let Some([q, k, v]) = floats([&q, &k, &v]) else { return plain::<Self>([q, k, v], shape, &mask) };
        output(q.shape(), |out| kernels::attention::attention(&q, &k, &v, shape, &mask, out))
    }

    fn gradient(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        dout: FlexTensor,
        shape: AttentionShape,
        mask: Mask,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let Some([q, k, v, dout]) = floats([&q, &k, &v, &dout]) else {
            return plain_gradient::<Self>([q, k, v, dout], shape, &mask).into();
        };
        outputs([q.shape(), k.shape(), v.shape()], |[dq, dk, dv]| {
            kernels::attention::attention_backward(&q, &k, &v, &dout, shape, &mask, dq, dk, dv)
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl Attention for Cube {}

impl<B: Attention, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn forward(q: Float<Self>, k: Float<Self>, v: Float<Self>, shape: AttentionShape, mask: Mask) -> Float<Self> {
        let ([q, k, v], nodes) = parts::<B, C, 3>([q, k, v]);
        let out = B::forward(q.clone(), k.clone(), v.clone(), shape, mask.clone());
        record::<B, C, 3>(nodes, out, move |dout, _| <[_; 3]>::from(B::gradient(q, k, v, dout, shape, mask)).map(Some))
    }
}
