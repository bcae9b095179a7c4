//! A table of vectors.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lapidary_ops as ops;

use super::Initializer;
use crate::pass::Pass;
use crate::taps::LayerInput;

/// Rows of a table `[V, D]`, looked up by id.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[V, D]`.
    pub weight: Param<Tensor<2>>,
    /// Width of the codes a row is rounded to, in the row's own range of minimum and maximum.
    #[module(skip)]
    pub bits: Option<u32>,
}

impl Embedding {
    /// Normal weights.
    pub fn new(rows: usize, width: usize, init: &mut Initializer) -> Self {
        Self { weight: init.normal([rows, width]), bits: None }
    }

    /// `N` ids below `V` → `[N, D]`.
    pub fn forward(&self, ids: &[u32], pass: &Pass) -> Tensor<2> {
        let rows = ops::embedding(self.weight.val(), ids);
        let rows = match pass.taps() {
            Some(taps) => taps.tap(self.weight.id, LayerInput::Ids(ids.into()), rows),
            None => rows,
        };
        // Rounding what was looked up is rounding the table, without the rows that nobody asked for.
        match self.bits {
            Some(bits) => ops::fake_quantize_rows(rows, bits),
            None => rows,
        }
    }
}
