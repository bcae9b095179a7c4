//! Multi-head attention.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rotary::Rotary;
use lapidary_ops as ops;

use super::{Initializer, Linear, Norm, NormKind, RotaryConfig};
use crate::pass::Pass;

/// Sizes of attention and what it does beside the bare minimum.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionConfig {
    /// `D`.
    pub width: usize,
    /// `H`, of queries.
    pub heads: usize,
    /// Heads of keys and values, each for a group of as many of queries (grouped queries, 2305.13245): a divisor of `heads`.
    pub kv_heads: usize,
    /// `K`.
    pub head_width: usize,
    /// Whether its matrices have biases.
    pub bias: bool,
    /// How many of the last heads of keys have at each token the key of the token before it, and zeros at the first: what
    /// they find is what followed a token before. Such a head copies on its own, where others take a head of an earlier
    /// block to tell it the token before, and long to learn it (Olsson et al., "In-context learning and induction heads",
    /// 2209.11895, on smeared keys).
    pub shifted: usize,
    /// A norm of each head of queries and keys, with what is added to its mean square or variance.
    pub head_norm: Option<(NormKind, f32)>,
    /// How queries and keys are turned, if they are.
    pub rotary: Option<RotaryConfig>,
    /// As [`Mask::window`].
    pub window: Option<usize>,
    /// What products of queries and keys are multiplied by. `None`: `1 / √K`.
    pub scale: Option<f32>,
    /// As [`AttentionOptions::soft_cap`].
    pub soft_cap: Option<f32>,
}

impl AttentionConfig {
    /// As in the first transformers: as many keys as queries, biases, and nothing beside.
    pub fn new(width: usize, heads: usize) -> Self {
        Self {
            width,
            heads,
            kv_heads: heads,
            head_width: width / heads,
            bias: true,
            shifted: 0,
            head_norm: None,
            rotary: None,
            window: None,
            scale: None,
            soft_cap: None,
        }
    }
}

/// Queries, keys and values of one input, mixed under a mask.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[H·K, D]`.
    pub query: Linear,
    /// `[G·K, D]` with `G` heads of keys.
    pub key: Linear,
    /// `[G·K, D]`.
    pub value: Linear,
    /// Of each head of queries, `[K]`.
    pub query_norm: Option<Norm>,
    /// Of each head of keys, `[K]`.
    pub key_norm: Option<Norm>,
    /// `[D, H·K]`.
    pub output: Linear,
    #[module(skip)]
    config: AttentionConfig,
    #[module(skip)]
    rotary: Option<Rotary>,
}

impl Attention {
    /// Normal weights.
    pub fn new(config: &AttentionConfig, init: &mut Initializer) -> Self {
        let AttentionConfig { width, heads, kv_heads, head_width, bias, shifted, .. } = *config;
        assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads), "whole groups of heads: {heads} of {kv_heads}");
        assert!(shifted <= kv_heads, "{shifted} shifted heads of {kv_heads}");
        let (queries, keys) = (heads * head_width, kv_heads * head_width);
        let norm = |init: &mut Initializer| config.head_norm.map(|(kind, eps)| Norm::new(kind, head_width, eps, init));
        Self {
            query: Linear::new(width, queries, bias, init),
            key: Linear::new(width, keys, bias, init),
            value: Linear::new(width, keys, bias, init),
            query_norm: norm(init),
            key_norm: norm(init),
            output: Linear::new(queries, width, bias, init),
            config: config.clone(),
            rotary: config.rotary.map(|rotary| rotary.rotary(head_width)),
        }
    }

    /// What it was made by.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// How queries and keys are turned, if they are.
    pub fn rotary(&self) -> Option<&Rotary> {
        self.rotary.as_ref()
    }

    /// `x [B·L, D]` → what the heads found, `[B·L, H·K]`: the input of `output`.
    pub fn heads(&self, x: Tensor<2>, rows: usize, mask: &Mask, pass: &Pass) -> Tensor<2> {
        let AttentionConfig { heads, kv_heads, head_width, shifted, window, scale, soft_cap, .. } = self.config;
        let shape = AttentionShape { rows, length: x.dims()[0] / rows, heads, kv_heads, head_width };
        let q = of_heads(self.query.forward(x.clone(), pass), self.query_norm.as_ref(), head_width); // [B·L, H·K]
        let k = of_heads(self.key.forward(x.clone(), pass), self.key_norm.as_ref(), head_width); // [B·L, G·K]
        let k = if shifted == 0 { k } else { shift(k, rows, shifted * head_width) };
        let v = self.value.forward(x, pass); // [B·L, G·K]
        let window = [window, mask.window].into_iter().flatten().min();
        let mask = Mask { window, ..mask.clone() };
        ops::attention(q, k, v, shape, &AttentionOptions { mask, rotary: self.rotary.clone(), scale, soft_cap })
    }
}

/// The norm of each head of `x [B·L, H·K]`.
fn of_heads(x: Tensor<2>, norm: Option<&Norm>, head_width: usize) -> Tensor<2> {
    let Some(norm) = norm else { return x };
    let [tokens, width] = x.dims();
    norm.forward(x.reshape([tokens * width / head_width, head_width])).reshape([tokens, width])
}

/// The last `columns` of `k [B·L, G·K]` one token further along each row, zeros at its first token.
fn shift(k: Tensor<2>, rows: usize, columns: usize) -> Tensor<2> {
    let [tokens, width] = k.dims();
    let (length, own) = (tokens / rows, width - columns);
    let k = k.reshape([rows, length, width]);
    let first = k.clone().slice([0..rows, 0..1, own..width]).zeros_like();
    let moved = match length {
        1 => first,
        _ => Tensor::cat(vec![first, k.clone().slice([0..rows, 0..length - 1, own..width])], 1),
    };
    let all = if own == 0 { moved } else { Tensor::cat(vec![k.slice([0..rows, 0..length, 0..own]), moved], 2) };
    all.reshape([tokens, width])
}
