//! What one run through a model is for.

use burn::tensor::Tensor;
use lapidary_kernels::precision::Precision;
use lapidary_ops::{self as ops, DropoutKey, Reduction};

use crate::kinks::Kinks;
use crate::taps::Taps;

/// One forward pass: an evaluation, or a training step with its dropout and the statistics of its batch; in some
/// precision.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    batch_statistics: bool,
    remembers: bool,
    precision: Precision,
    dropout: Option<(f32, u64, u64)>,
    kinks: Option<Kinks>,
    taps: Option<Taps>,
    reduction: Option<Reduction>,
}

impl Pass {
    /// No dropout, stored statistics.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Dropout with probability `p`; the masks are a function of the seed and the micro-batch's number.
    pub fn training(p: f32, seed: u64, micro_batch: u64) -> Self {
        let dropout = (p > 0.0).then_some((p, seed, micro_batch));
        Self { batch_statistics: true, remembers: true, dropout, ..Self::default() }
    }

    /// No dropout, and the statistics of each batch, which are not remembered.
    pub fn batch_statistics() -> Self {
        Self { batch_statistics: true, ..Self::default() }
    }

    /// The same, of which norms remember nothing.
    pub fn forgetting(self) -> Self {
        Self { remembers: false, ..self }
    }

    /// The same with matrix products, forward and backward, in another precision than f32.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The same with ReLUs on the sides that were written down.
    pub fn with_kinks(self, kinks: Kinks) -> Self {
        Self { kinks: Some(kinks), ..self }
    }

    /// The same with layers that write down what they read and give.
    pub fn with_taps(self, taps: Taps) -> Self {
        Self { taps: Some(taps), ..self }
    }

    /// The same over a part of a batch, whose norms take the statistics of all parts.
    pub fn with_reduction(self, reduction: Reduction) -> Self {
        Self { reduction: Some(reduction), ..self }
    }

    /// What adds up statistics over the parts of a batch, if it is one part of several.
    pub(crate) fn reduction(&self) -> Option<&Reduction> {
        self.reduction.as_ref()
    }

    /// The sides that ReLUs are on, if they are held.
    pub fn kinks(&self) -> Option<&Kinks> {
        self.kinks.as_ref()
    }

    /// Where layers write down what they read and give, if they do.
    pub(crate) fn taps(&self) -> Option<&Taps> {
        self.taps.as_ref()
    }

    /// Of matrix products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether this pass drops activations.
    pub fn drops(&self) -> bool {
        self.dropout.is_some()
    }

    /// Whether norms take the batch's statistics.
    pub fn takes_batch_statistics(&self) -> bool {
        self.batch_statistics
    }

    /// Whether norms remember them.
    pub fn remembers(&self) -> bool {
        self.remembers
    }

    /// Applies dropout at a place of the model, if this pass has any.
    pub fn dropout(&self, x: Tensor<2>, place: u64) -> Tensor<2> {
        match self.dropout {
            Some((p, seed, step)) => ops::dropout(x, p, DropoutKey { seed, step, place }),
            None => x,
        }
    }
}
