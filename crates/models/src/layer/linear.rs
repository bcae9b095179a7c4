//! A matrix and a bias, dense or rounded to codes on the way.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use lapidary_ops as ops;

use super::Initializer;
use crate::pass::Pass;
use crate::taps::LayerInput;

/// `y = x Wᵀ + b`; a row of `W [O, I]` is one output neuron, as in every published checkpoint.
///
/// Cutting a layer sets `range` and `activation_bits` and leaves the names and ids of its parameters alone, so a
/// model file is written once and has no quantized twin.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[O, I]`.
    pub weight: Param<Tensor<2>>,
    /// `[O]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// How the weight is rounded before it is used; `None`: it is used as it is.
    pub range: Option<WeightRange>,
    /// Width of the codes that the input is rounded to, row by row.
    #[module(skip)]
    pub activation_bits: Option<u32>,
}

/// The codes a weight is rounded to: `G` groups of rows, each with a scale and a zero point of its own.
///
/// What is trained is the scale's ratio to where it began: an optimizer's step is then a share of the scale, whatever
/// the width of the codes.
#[derive(Module, Debug)]
pub struct WeightRange {
    /// Distance of two codes at the beginning, `[G]`; fixed.
    pub scales: Param<Tensor<1>>,
    /// What the scales are multiplied by, `[G]`; 1 at the beginning, trained along with the weights.
    pub ratios: Param<Tensor<1>>,
    /// The code that stands for zero, `[G]`; fixed.
    pub zeros: Param<Tensor<1>>,
    /// Width of a code.
    #[module(skip)]
    pub bits: u32,
}

impl WeightRange {
    /// Ranges of `bits`-bit codes for weights on the device of `weight`.
    pub fn new(scales: Vec<f32>, zeros: Vec<f32>, bits: u32, weight: &Param<Tensor<2>>) -> Self {
        let device = weight.val().device();
        let vector = |data: Vec<f32>| {
            let groups = data.len();
            Param::from_tensor(Tensor::<1>::from_data(TensorData::new(data, [groups]), &device))
        };
        Self {
            ratios: vector(vec![1.0; scales.len()]),
            scales: vector(scales).set_require_grad(false),
            zeros: vector(zeros).set_require_grad(false),
            bits,
        }
    }

    /// Distance of two codes now, `[G]`.
    pub fn used_scales(&self) -> Tensor<1> {
        self.scales.val() * self.ratios.val()
    }
}

impl Linear {
    /// Normal weights and, if asked for, a bias of zeros.
    pub fn new(input: usize, output: usize, bias: bool, init: &mut Initializer) -> Self {
        Self {
            weight: init.normal([output, input]),
            bias: bias.then(|| init.constant(0.0, [output])),
            range: None,
            activation_bits: None,
        }
    }

    /// `[N, I]` → `[N, O]`.
    pub fn forward(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.add(x, None, pass)
    }

    /// `[N, I]` → `[N, O]`, added to `residual [N, O]` on the way.
    pub fn forward_residual(&self, x: Tensor<2>, residual: Tensor<2>, pass: &Pass) -> Tensor<2> {
        self.add(x, Some(residual), pass)
    }

    fn add(&self, x: Tensor<2>, residual: Option<Tensor<2>>, pass: &Pass) -> Tensor<2> {
        let x = match self.activation_bits {
            Some(bits) => ops::fake_quantize_rows(x, bits),
            None => x,
        };
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let Some(taps) = pass.taps() else {
            return ops::linear(x, self.used_weight(), bias, residual, pass.precision());
        };
        let y = ops::linear(x.clone(), self.used_weight(), bias, residual, pass.precision());
        taps.tap(self.weight.id, LayerInput::Rows(x), y)
    }

    /// The weight as it enters the product: rounded where a range is set.
    pub fn used_weight(&self) -> Tensor<2> {
        let weight = self.weight.val();
        match &self.range {
            Some(range) => ops::fake_quantize(weight, range.used_scales(), range.zeros.val(), range.bits),
            None => weight,
        }
    }
}
