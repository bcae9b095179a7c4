//! What goes into layers and what comes back to them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;
use burn::tensor::{Gradients, Tensor};
use lapidary_kernels::conv2d::Conv2dShape;

/// Writes down, during a pass, what each layer with a weight reads, and makes its output's gradient readable: after the
/// backward pass both factors of its Kronecker-factored curvature are there.
#[derive(Clone, Debug, Default)]
pub struct Taps(Arc<Mutex<Vec<Tapped>>>);

#[derive(Debug)]
struct Tapped {
    weight: ParamId,
    input: LayerInput,
    /// Zeros that were added to the output: their gradient is the output's.
    probe: Tensor<2>,
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

impl LayerUse {
    /// What belongs to the first `some` of `all` examples, whose rows follow each other.
    pub fn of_first(self, some: usize, all: usize) -> Self {
        let part = |x: Tensor<2>| {
            let [rows, width] = x.dims();
            x.slice([0..rows / all.max(1) * some, 0..width])
        };
        let input = match self.input {
            LayerInput::Rows(x) => LayerInput::Rows(part(x)),
            LayerInput::Pictures(x, shape) => LayerInput::Pictures(part(x), Conv2dShape { batch: some, ..shape }),
            LayerInput::Ids(ids) => LayerInput::Ids(ids[..ids.len() / all.max(1) * some].into()),
        };
        Self { input, output_gradient: part(self.output_gradient), ..self }
    }
}

impl Taps {
    /// `output` of a layer that read `input`, its gradient made readable. A pass without gradients is left as it is.
    pub(crate) fn tap(&self, weight: ParamId, input: LayerInput, output: Tensor<2>) -> Tensor<2> {
        if !output.is_autodiff() {
            return output;
        }
        let probe = Tensor::<2>::from_inner(output.clone().inner().zeros_like()).require_grad();
        let plain = |x: Tensor<2>| if x.is_autodiff() { x.inner() } else { x };
        let input = match input {
            LayerInput::Rows(x) => LayerInput::Rows(plain(x)),
            LayerInput::Pictures(x, shape) => LayerInput::Pictures(plain(x), shape),
            ids @ LayerInput::Ids(_) => ids,
        };
        let mut taps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taps.push(Tapped { weight, input, probe: probe.clone() });
        output + probe
    }

    /// Everything that was written down, with the gradients of the pass that was run backward.
    pub fn take(&self, gradients: &mut Gradients) -> Vec<LayerUse> {
        let tapped = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let with_gradient = |tapped: Tapped| {
            let output_gradient = tapped.probe.grad_remove(gradients)?;
            Some(LayerUse { weight: tapped.weight, input: tapped.input, output_gradient })
        };
        tapped.into_iter().filter_map(with_gradient).collect()
    }
}
