//! Multi-head attention.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::attention::AttentionShape;
use lapidary_kernels::mask::Mask;
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
}

impl Attention {
    /// `heads` divides `width`.
    pub fn new(width: usize, heads: usize, init: &mut Initializer) -> Self {
        let mut linear = || Linear::new(width, width, true, init);
        Self { query: linear(), key: linear(), value: linear(), output: linear(), count: heads }
    }

    /// `H`.
    pub fn count(&self) -> usize {
        self.count
    }

    /// `x [B·L, D]` → what the heads found, `[B·L, H·K]`: the input of `output`.
    pub fn heads(&self, x: Tensor<2>, rows: usize, mask: &Mask, pass: &Pass) -> Tensor<2> {
        let [tokens, width] = x.dims();
        let shape = AttentionShape::new(rows, tokens / rows, self.count, width / self.count);
        let q = self.query.forward(x.clone(), pass); // [B·L, H·K]
        let k = self.key.forward(x.clone(), pass); // [B·L, H·K]
        let v = self.value.forward(x, pass); // [B·L, H·K]
        ops::attention(q, k, v, shape, &mask.clone().into())
    }
}
