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
    rotary: Option<Rotary>,
}

impl Attention {
    /// `heads` divides `width`; `rotary` is the base of the angles by which queries and keys are turned, if they are.
    pub fn new(width: usize, heads: usize, rotary: Option<f64>, init: &mut Initializer) -> Self {
        let mut linear = || Linear::new(width, width, true, init);
        let rotary = rotary.map(|base| Rotary::new(base, width / heads));
        Self { query: linear(), key: linear(), value: linear(), output: linear(), count: heads, rotary }
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
        let v = self.value.forward(x, pass); // [B·L, H·K]
        let options = AttentionOptions { rotary: self.rotary.clone(), ..mask.clone().into() };
        ops::attention(q, k, v, shape, &options)
    }
}
