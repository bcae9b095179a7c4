//! What goes into layers and what comes back to them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;
use burn::tensor::{Device, Tensor};
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_ops::{Keeper, kept};

/// Writes down, during a pass, what each layer with a weight reads, and keeps its output's gradient: after the backward
/// pass both factors of its Kronecker-factored curvature are there.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    tapped: Arc<Mutex<Vec<Tapped>>>,
    /// Examples that are written down, and all of the pass; `None`: all are.
    examples: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Tapped {
    weight: ParamId,
    input: LayerInput,
    device: Device,
    gradient: Keeper,
}

/// What a layer read.
#[derive(Clone, Debug)]
pub enum LayerInput {
    /// `[N, I]`.
    Rows(Tensor<2>),
    /// Pictures `[B·H·W, C]`, of which a convolution reads patches.
    Pictures(Tensor<2>, Conv2dShape),
    /// Ids of the rows of a table.
    Ids(Arc<[u32]>),
}

/// Where the rows of a layer belong.
#[derive(Clone, Debug)]
pub struct Positions {
    /// Of the pass.
    pub examples: usize,
    /// Positions of each that are no padding; `None`: all.
    pub lengths: Option<Vec<usize>>,
}

/// One use of a layer by a pass; a layer whose weight is shared has several.
#[derive(Debug)]
pub struct LayerUse {
    /// The layer's weight.
    pub weight: ParamId,
    /// What it read, without gradient.
    pub input: LayerInput,
    /// The loss's gradient with respect to what it gave, `[N, O]`.
    pub output_gradient: Tensor<2>,
}

impl Positions {
    /// Those of at most so many examples, the first ones.
    pub fn of_first(&self, most: usize) -> Self {
        let examples = most.min(self.examples);
        let lengths = self.lengths.as_ref().map(|lengths| lengths[..examples.min(lengths.len())].to_vec());
        Self { examples, lengths }
    }
}

impl Taps {
    /// Of the first `some` of a pass's `all` examples, whose rows follow each other.
    pub fn of_first(some: usize, all: usize) -> Self {
        Self { tapped: Arc::default(), examples: (some < all).then_some((some, all)) }
    }

    /// `output` of a layer that read `input`; its gradient will be kept. A pass without gradients is left as it is.
    pub(crate) fn tap(&self, weight: ParamId, input: LayerInput, output: Tensor<2>) -> Tensor<2> {
        if !output.is_autodiff() {
            return output;
        }
        let first = |rows: usize| self.examples.map_or(rows, |(some, all)| rows / all * some);
        let part = |x: Tensor<2>| {
            let x = if x.is_autodiff() { x.inner() } else { x };
            let [rows, width] = x.dims();
            if first(rows) < rows { x.slice([0..first(rows), 0..width]) } else { x }
        };
        let input = match input {
            LayerInput::Rows(x) => LayerInput::Rows(part(x)),
            LayerInput::Pictures(x, shape) => {
                LayerInput::Pictures(part(x), Conv2dShape { batch: first(shape.batch), ..shape })
            }
            LayerInput::Ids(ids) if first(ids.len()) < ids.len() => LayerInput::Ids(ids[..first(ids.len())].into()),
            ids @ LayerInput::Ids(_) => ids,
        };
        let gradient = Keeper::default();
        let tapped = Tapped { weight, input, device: output.device(), gradient: gradient.clone() };
        self.tapped.lock().unwrap_or_else(PoisonError::into_inner).push(tapped);
        let rows = first(output.dims()[0]);
        kept(output, rows, &gradient)
    }

    /// Everything that was written down of layers that a backward pass has come by since.
    pub fn take(&self) -> Vec<LayerUse> {
        let tapped = std::mem::take(&mut *self.tapped.lock().unwrap_or_else(PoisonError::into_inner));
        let with_gradient = |tapped: Tapped| {
            let output_gradient = tapped.gradient.take(&tapped.device)?;
            Some(LayerUse { weight: tapped.weight, input: tapped.input, output_gradient })
        };
        tapped.into_iter().filter_map(with_gradient).collect()
    }
}
