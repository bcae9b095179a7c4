//! What checkpoints ask of any model, and training, curvature and quantization of one that sorts examples into classes.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_data::Batch;
use lapidary_kernels::mask::Mask;

use crate::layer::{Embedding, Linear};
use crate::pass::Pass;

/// A matrix that can be cut to a few bits.
pub struct Matrix<'a> {
    /// Its name in a checkpoint.
    pub name: String,
    /// The block it belongs to; `None` outside the trunk.
    pub block: Option<usize>,
    /// The layer itself.
    pub linear: &'a mut Linear,
}

/// A model that checkpoints are of.
pub trait Checkpointed: Module {
    /// The name in a checkpoint of the parameter at a path.
    fn checkpoint_name(path: &str) -> String;
    /// Tensors that a checkpoint may hold and the model has no use for.
    fn known_extra(name: &str) -> bool;
    /// Tensors that a checkpoint may lack: a task's head begins fresh.
    fn may_be_fresh(name: &str) -> bool;
    /// The matrices that quantization cuts, first block first.
    fn matrices_mut(&mut self) -> Vec<Matrix<'_>>;
}

/// What a model says of its input, and so which head it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of these classes for each input.
    Classes(Vec<String>),
    /// One of these tags for each token.
    Tags(Vec<String>),
    /// The first and the last token of an answer.
    Spans,
}

impl Task {
    /// The names of what a row of logits is over; none for spans, whose logits are over places.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Classes(labels) | Self::Tags(labels) => labels,
            Self::Spans => &[],
        }
    }
}

/// A trunk with embeddings below and a head above.
pub trait Classifier: Checkpointed {
    /// What the paths of a block's parameters begin with.
    fn block_path(block: usize) -> String {
        format!("trunk.blocks.{block}.")
    }

    /// Number of blocks of the trunk.
    fn blocks(&self) -> usize;
    /// Who sees whom in a batch.
    fn mask(&self, batch: &Batch) -> Mask;
    /// Batch → input of the first block, `[B·L, D]`.
    fn embed(&self, batch: &Batch, pass: &Pass) -> Tensor<2>;
    /// Input of the range's first block → output of its last, `[B·L, D]`.
    fn advance(&self, x: Tensor<2>, blocks: Range<usize>, batch: &Batch, pass: &Pass) -> Tensor<2>;
    /// Output of the last block → logits, a row for each of the batch's targets: `[B, classes]`, `[2B, L]` for starts
    /// and ends of spans, `[B·L, tags]`.
    fn head(&self, x: Tensor<2>, batch: &Batch, pass: &Pass) -> Tensor<2>;

    /// The tables of vectors, with their names in a checkpoint.
    fn tables_mut(&mut self) -> Vec<(String, &mut Embedding)>;

    /// Logits, a row for each of the batch's targets, as [`head`](Self::head) gives them.
    fn logits(&self, batch: &Batch, pass: &Pass) -> Tensor<2> {
        let x = self.embed(batch, pass);
        let x = self.advance(x, 0..self.blocks(), batch, pass);
        self.head(x, batch, pass)
    }
}
