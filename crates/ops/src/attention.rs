//! Softmax attention under a causal, prefix or full mask, with a window, grouped heads and rotary positions.

use std::ops::Range;

use burn::backend::AutodiffBackend;
use kernels::attention::{AttentionOptions, AttentionShape};

use crate::operator::*;

/// `softmax(scale q kᵀ) v` per row and head; `q [B·L, H·K]`, `k, v [B·L, G·K]` → `[B·L, H·K]`.
///
/// The probabilities are recomputed in the backward pass, so no `L × L` matrix outlives either pass; the kernel never
/// holds one at all.
pub fn attention(
    q: Tensor<2>,
    k: Tensor<2>,
    v: Tensor<2>,
    shape: AttentionShape,
    options: &AttentionOptions,
) -> Tensor<2> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    let (out, _) = <Dispatch as Attention>::forward(q, k, v, shape, options.clone());
    Tensor::from_dispatch(out)
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Attention: Backend {
    /// `P v` with `P = softmax(scale q kᵀ)` over the keys that a query sees, 0 for a query that sees none; and what
    /// the backward pass may want to know of the softmax, which is the backend's own affair.
    fn forward(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        shape: AttentionShape,
        options: AttentionOptions,
    ) -> (Float<Self>, Float<Self>) {
        let out = plain::<Self>([q, k, v], shape, &options);
        (out.clone(), Array::<Self>(out).full(0.0, [0]).0)
    }

    /// `(dq, dk, dv)`.
    fn gradient(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        out: Float<Self>,
        softmax: Float<Self>,
        dout: Float<Self>,
        shape: AttentionShape,
        options: AttentionOptions,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        let _ = (out, softmax);
        plain_gradient::<Self>([q, k, v, dout], shape, &options).into()
    }
}

/// The same tensors another way: heads apart, keys and values once for each head of the queries, positions turned in.
struct Plain<'a> {
    shape: AttentionShape,
    options: &'a AttentionOptions,
}

impl Plain<'_> {
    /// `[B·L, H·K]` → `[B, H, L, K]`.
    fn split<B: Backend>(&self, x: Float<B>, heads: usize) -> Array<B> {
        let AttentionShape { rows, length, head_width, .. } = self.shape;
        Array::<B>(x).reshape([rows, length, heads, head_width]).swap(1, 2)
    }

    /// `[B, H, L, K]` → `[B·L, H·K]`.
    fn join<B: Backend>(&self, x: Array<B>, heads: usize) -> Float<B> {
        let AttentionShape { rows, length, head_width, .. } = self.shape;
        x.swap(1, 2).reshape([rows * length, heads * head_width]).0
    }

    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads.max(1)
    }

    /// `[B, G, L, K]` → `[B, H, L, K]`, each head for all of its group.
    fn repeat<B: Backend>(&self, x: Array<B>) -> Array<B> {
        let AttentionShape { rows, length, heads, kv_heads, head_width } = self.shape;
        let ones = x.full(1.0, [1, 1, self.group(), 1, 1]);
        (x.reshape([rows, kv_heads, 1, length, head_width]) * ones).reshape([rows, heads, length, head_width])
    }

    /// The gradient of [`repeat`](Self::repeat).
    fn gather<B: Backend>(&self, x: Array<B>) -> Array<B> {
        let AttentionShape { rows, length, kv_heads, head_width, .. } = self.shape;
        x.reshape([rows, kv_heads, self.group(), length, head_width])
            .sum(2)
            .reshape([rows, kv_heads, length, head_width])
    }

    /// Each head turned by its position, or back.
    fn turn<B: Backend>(&self, x: Array<B>, back: bool) -> Array<B> {
        let AttentionShape { rows, length, head_width, .. } = self.shape;
        let Some(rotary) = &self.options.rotary else { return x };
        let half = head_width / 2;
        let angles: Vec<f64> = (0..rows * length)
            .flat_map(|i| {
                let first = rotary.offsets.as_ref().map_or(0, |offsets| offsets[i / length]);
                rotary.frequencies.iter().map(move |frequency| (first + i % length) as f64 * frequency)
            })
            .collect();
        let table = |f: fn(f64) -> f64, sign: f64| {
            x.host(angles.iter().map(|&angle| (sign * f(angle)) as f32).collect(), [rows, 1, length, half])
        };
        let (cos, sin) = (table(f64::cos, 1.0), table(f64::sin, if back { -1.0 } else { 1.0 }));
        let (a, b) = (x.clone().narrow(3, 0..half), x.narrow(3, half..head_width));
        let turned = [a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
        Array::join(turned, 3)
    }

    fn scale(&self) -> f64 {
        self.options.scale.map_or(1.0 / (self.shape.head_width as f64).sqrt(), f64::from)
    }

    /// `P [B, H, L, L]` of split, turned and repeated `q` and `k`, and the derivative of the capped scores.
    fn probabilities<B: Backend>(&self, q: Array<B>, k: Array<B>) -> (Array<B>, Option<Array<B>>) {
        let AttentionShape { rows, length, .. } = self.shape;
        // A query sees a range of keys: two vectors instead of a matrix.
        let device = q.0.device();
        let spans: Vec<_> =
            (0..rows * length).map(|i| self.options.mask.span(i / length, i % length, length)).collect();
        let of_queries = |f: fn(&Range<usize>) -> usize| {
            integers::<B>(spans.iter().map(|s| f(s) as i64), [rows, 1, length, 1], &device)
        };
        let keys = |first: i64| integers::<B>((0..length as i64).map(|key| first + key), [1, 1, 1, length], &device);
        let before = reaches::<B>(of_queries(|span| span.start), keys(1)); // [B, 1, L, L]
        let behind = reaches::<B>(keys(0), of_queries(|span| span.end)); // [B, 1, L, L]
        let scores = q.matmul(k.swap(2, 3)) * self.scale(); // [B, H, L, L]
        let (scores, derivative) = match self.options.soft_cap.map(f64::from) {
            None => (scores, None),
            Some(cap) => {
                let tanh = (scores / cap).tanh();
                let derivative = tanh.full(1.0, [1, 1, 1, 1]) - tanh.clone().square();
                (tanh * cap, Some(derivative))
            }
        };
        let hide = |x: Array<B>, number| x.fill_where(before.clone(), number).fill_where(behind.clone(), number);
        let scores = hide(scores, f32::MIN.into());
        let weights = hide((scores.clone() - scores.max(3)).exp(), 0.0);
        let sum = weights.clone().sum(3);
        let none = sum.clone().is(0.0);
        (weights / sum.fill_where(none, 1.0), derivative)
    }

    fn inputs<B: Backend>(&self, [q, k, v]: [Float<B>; 3]) -> [Array<B>; 3] {
        let AttentionShape { heads, kv_heads, .. } = self.shape;
        let q = self.turn(self.split::<B>(q, heads), false);
        let k = self.repeat(self.turn(self.split::<B>(k, kv_heads), false));
        [q, k, self.repeat(self.split::<B>(v, kv_heads))]
    }
}

/// [`Attention::forward`] by ordinary operations.
pub fn plain<B: Backend>(inputs: [Float<B>; 3], shape: AttentionShape, options: &AttentionOptions) -> Float<B> {
    let plain = Plain { shape, options };
    let [q, k, v] = plain.inputs::<B>(inputs);
    plain.join(plain.probabilities(q, k).0.matmul(v), shape.heads)
}

/// [`Attention::gradient`] by ordinary operations: with `dP = dout vᵀ` and `dS = P (dP − Σ_keys P dP)`,
/// `dq = scale dS k`, `dk = scale dSᵀ q` and `dv = Pᵀ dout`.
pub fn plain_gradient<B: Backend>(
    [q, k, v, dout]: [Float<B>; 4],
    shape: AttentionShape,
    options: &AttentionOptions,
) -> [Float<B>; 3] {
    let plain = Plain { shape, options };
    let [q, k, v] = plain.inputs::<B>([q, k, v]);
    let dout = plain.split::<B>(dout, shape.heads);
    let (p, derivative) = plain.probabilities(q.clone(), k.clone());
    let dp = dout.clone().matmul(v.swap(2, 3));
    let ds = p.clone() * (dp.clone() - (p.clone() * dp).sum(3)) * plain.scale();
    let ds = match derivative {
        Some(derivative) => ds * derivative,
        None => ds,
    };
    let dq = plain.turn(ds.clone().matmul(k), true);
    let dk = plain.turn(plain.gather(ds.swap(2, 3).matmul(q)), true);
    let dv = plain.gather(p.swap(2, 3).matmul(dout));
    [plain.join(dq, shape.heads), plain.join(dk, shape.kv_heads), plain.join(dv, shape.kv_heads)]
}

impl Attention for Flex {
    fn forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        shape: AttentionShape,
        options: AttentionOptions,
    ) -> (FlexTensor, FlexTensor) {
        let Some([q, k, v]) = floats([&q, &k, &v]) else {
            let out = plain::<Self>([q, k, v], shape, &options);
            return (out.clone(), out);
        };
        let log_sums = [shape.rows, shape.heads, shape.length].into();
        outputs([q.shape(), log_sums], |[out, log_sums]| {
            kernels::attention::attention(&q, &k, &v, shape, &options, out, Some(log_sums));
        })
        .into()
    }

    fn gradient(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        out: FlexTensor,
        log_sums: FlexTensor,
        dout: FlexTensor,
        shape: AttentionShape,
        options: AttentionOptions,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let Some([q, k, v, out, log_sums, dout]) = floats([&q, &k, &v, &out, &log_sums, &dout]) else {
            return plain_gradient::<Self>([q, k, v, dout], shape, &options).into();
        };
        outputs([q.shape(), k.shape(), v.shape()], |[dq, dk, dv]| {
            kernels::attention::attention_backward(&q, &k, &v, &out, &log_sums, &dout, shape, &options, dq, dk, dv);
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl Attention for Cube {}

impl<B: Attention, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    fn forward(
        q: Float<Self>,
        k: Float<Self>,
        v: Float<Self>,
        shape: AttentionShape,
        options: AttentionOptions,
    ) -> (Float<Self>, Float<Self>) {
        let ([q, k, v], nodes) = parts::<B, C, 3>([q, k, v]);
        let (out, softmax) = B::forward(q.clone(), k.clone(), v.clone(), shape, options.clone());
        let constant = Self::from_inner(softmax.clone());
        let of_out = out.clone();
        let out = record::<B, C, 3>(nodes, out, move |dout, _| {
            <[_; 3]>::from(B::gradient(q, k, v, of_out, softmax, dout, shape, options)).map(Some)
        });
        (out, constant)
    }
}
