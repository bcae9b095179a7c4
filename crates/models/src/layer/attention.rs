//! Multi-head attention.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rotary::Rotary;
use lapidary_ops as ops;

use super::{Initializer, Linear};
use crate::pass::Pass;

/// Queries, keys and values of one input, mixed under a mask.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[D, D]`.
    pub query: Linear,
    /// `[D, D]`.
    pub key: Linear,
    /// `[D, D]`.
    pub value: Linear,
    /// `[D, D]`.
    pub output: Linear,
    #[module(skip)]
    count: usize,
    #[module(skip)]
    shifted: usize,
    #[module(skip)]
    rotary: Option<Rotary>,
}

impl Attention {
    /// `heads` divides `width`; `rotary` is the base of the angles by which queries and keys are turned, if they are.
    pub fn new(width: usize, heads: usize, rotary: Option<f64>, init: &mut Initializer) -> Self {
        let mut linear = || Linear::new(width, width, true, init);
        let rotary = rotary.map(|base| Rotary::new(base, width / heads));
        Self { query: linear(), key: linear(), value: linear(), output: linear(), count: heads, shifted: 0, rotary }
    }

    /// The same, the last `heads` of which have at each token the key of the token before it, and zeros at the first: what
    /// they find is what followed a token before. Such a head copies on its own, where others take a head of an earlier
    /// block to tell it the token before, and long to learn it (Olsson et al., "In-context learning and induction heads",
    /// 2209.11895, on smeared keys).
    pub fn shifting(self, heads: usize) -> Self {
        assert!(heads <= self.count, "{heads} shifted heads of {}", self.count);
        Self { shifted: heads, ..self }
    }

    /// How many of the last heads have the keys of the tokens before.
    pub fn shifted(&self) -> usize {
        self.shifted
    }

    /// `H`.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How queries and keys are turned, if they are.
    pub fn rotary(&self) -> Option<&Rotary> {
        self.rotary.as_ref()
    }

    /// `x [B·L, D]` → what the heads found, `[B·L, H·K]`: the input of `output`.
    pub fn heads(&self, x: Tensor<2>, rows: usize, mask: &Mask, pass: &Pass) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let shape = AttentionShape::new(rows, tokens / rows, self.count, width / self.count);
        let q = self.query.forward(x.clone(), pass); // [B·L, H·K]
        let k = self.key.forward(x.clone(), pass); // [B·L, H·K]
        let k = if self.shifted == 0 { k } else { shift(k, rows, self.shifted * (width / self.count)) };
        let v = self.value.forward(x, pass); // [B·L, H·K]
        let options = AttentionOptions { rotary: self.rotary.clone(), ..mask.clone().into() };
        ops::attention(q, k, v, shape, &options)
    }
}

/// The last `columns` of `k [B·L, H·K]` one token further along each row, zeros at its first token.
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
