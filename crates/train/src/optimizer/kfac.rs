//! K-FAC: gradient descent in a metric that knows how the loss is curved (Martens and Grosse, 1503.05671; convolutions:
//! Grosse and Martens, 1602.01407).
//!
//! A layer's gradient `G [O, I]` becomes `(B + λ_B)⁻¹ G (A + λ_A)⁻¹`, with the layer's Kronecker factors `A` of its
//! inputs and `B` of its outputs' gradients, averaged over the steps, and a damping `λ` that the two share so that each
//! bears the same part of it: `λ_A = π √λ`, `λ_B = √λ / π`, `π² = (tr A / I) / (tr B / O)` (1503.05671, section 6.3). Or,
//! by the eigenvectors of both, `(A ⊗ B + λ)⁻¹ G` as it is.
//! What comes out is what [`SgdOptimizer`] takes for a gradient, with momentum and weight decay.

use std::collections::BTreeMap;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, TensorData};
use faer::linalg::solvers::DenseSolveCore;
use faer::{Mat, Side};
use lapidary_curvature::CurvatureError;
use lapidary_curvature::LinearOperator;
use lapidary_curvature::kronecker::{DampedInverse, InputFactor, LayerFactors};
use lapidary_kernels::linear::{linear, linear_backward_weight};
use lapidary_kernels::precision::Precision;
use lapidary_models::parameters::{self, GradientMap};
use serde::{Deserialize, Serialize};

use super::{SgdOptimizer, SgdOptions};

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KfacOptions {
    /// `λ`: the larger, the more a step is one of plain gradient descent.
    pub damping: f64,
    /// What the damping is added to.
    pub form: KfacForm,
    /// Weight of an average over all factors before, against 1 of a new one. The averages have no bias at the start.
    pub decay: f64,
    /// Steps between two looks at the factors.
    pub factors_every: u64,
    /// Steps between two inversions.
    pub inverses_every: u64,
    /// `κ`: a step is scaled so that its length by the factors, `rate² Σ U·G`, is no more (Ba et al., "Distributed
    /// second-order optimization using Kronecker-factored approximations", section 5). `None`: it is not.
    pub norm_constraint: Option<f64>,
    /// What is made of the preconditioned gradient.
    pub sgd: SgdOptions,
}

impl Default for KfacOptions {
    fn default() -> Self {
        Self {
            damping: 1e-3,
            form: KfacForm::Split,
            decay: 0.95,
            factors_every: 10,
            inverses_every: 100,
            norm_constraint: Some(1e-3),
            sgd: SgdOptions::default(),
        }
    }
}

/// Where the damping goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KfacForm {
    /// To each factor its part.
    #[default]
    Split,
    /// To their product, which takes the factors' eigenvectors: some ten times the work of an inversion.
    Eigen,
}

/// What a parameter's gradient goes through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block {
    /// The inverse factors of a layer, by its weight's path; its bias is in the same block.
    Kronecker {
        /// The layer's weight.
        weight: String,
    },
    /// Nothing: norms, and layers that no factors were seen of.
    Gradient,
}

/// Factor averages and inverses of every layer, velocities of every parameter.
pub struct KfacOptimizer {
    options: KfacOptions,
    sgd: SgdOptimizer,
    steps: u64,
    layers: BTreeMap<String, Layer>,
}

/// What is known of a layer.
struct Layer {
    factors: LayerFactors,
    /// Sum of the weights that are in the average.
    weight: f64,
    /// Of the averages at the last inversion.
    inverse: Option<Inverse>,
}

enum Inverse {
    Split {
        input: InputInverse,
        /// `[O, O]`.
        gradient: Vec<f32>,
    },
    Eigen(Box<DampedInverse>),
}

enum InputInverse {
    /// `[I, I]`, or `[I + 1, I + 1]` with a bias.
    Full(Vec<f32>),
    /// Of a table, one a row.
    Diagonal(Vec<f32>),
}

/// An inversion that went another way than it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// The layer's weight.
    pub weight: String,
    /// The damping that the layer's factors were inverted with.
    pub damping: f64,
}

impl KfacOptimizer {
    /// Before the first step.
    pub fn new(options: KfacOptions) -> Self {
        Self { options, sgd: SgdOptimizer::new(options.sgd), steps: 0, layers: BTreeMap::new() }
    }

    /// Whether the next step is one that looks at the factors.
    pub fn wants_factors(&self) -> bool {
        self.steps.is_multiple_of(self.options.factors_every.max(1))
    }

    /// Takes the factors of a batch into the averages.
    ///
    /// # Errors
    /// Factors of another size than a layer's before.
    pub fn observe(&mut self, factors: Vec<LayerFactors>) -> Result<(), CurvatureError> {
        for factors in factors {
            match self.layers.get_mut(&factors.weight) {
                Some(layer) => layer.average(factors, self.options.decay)?,
                None => {
                    let weight = factors.weight.clone();
                    self.layers.insert(weight, Layer { factors, weight: 1.0, inverse: None });
                }
            }
        }
        Ok(())
    }

    /// Which block each parameter of a model has, in the order of its fields.
    pub fn blocks<M: Module>(&self, model: &M) -> Vec<(String, Block)> {
        let mut blocks = Vec::new();
        parameters::visit(model, &mut |parameter| {
            let of_layer = self.layers.iter().find(|(weight, layer)| {
                weight.as_str() == parameter.path || layer.factors.bias.as_deref() == Some(parameter.path)
            });
            let block = of_layer.map_or(Block::Gradient, |(weight, _)| Block::Kronecker { weight: weight.clone() });
            blocks.push((parameter.path.to_owned(), block));
        });
        blocks
    }

    /// One step with a learning rate; every gradient is multiplied by `scale` (what clipping asks for). What it inverted
    /// with more damping than it was told comes with the model.
    ///
    /// # Errors
    /// A damping that is not positive; a layer whose factors cannot be inverted with any.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientMap,
        rate: f64,
        scale: f64,
    ) -> Result<(M, Vec<Raised>), CurvatureError> {
        let mut raised = Vec::new();
        let is_due = self.steps.is_multiple_of(self.options.inverses_every.max(1));
        for layer in self.layers.values_mut().filter(|layer| is_due || layer.inverse.is_none()) {
            raised.extend(layer.invert(self.options.damping, self.options.form)?);
        }
        self.steps += 1;
        let (gradients, product) = self.preconditioned(&model, gradients)?;
        // The scale multiplies both factors of the product.
        let length = rate * rate * scale * scale * product;
        let shorter = match self.options.norm_constraint {
            Some(most) if length > most => (most / length).sqrt(),
            _ => 1.0,
        };
        Ok((self.sgd.step(model, gradients, rate, scale * shorter), raised))
    }

    /// Gradients as the blocks make them, and `Σ U·G` over all.
    fn preconditioned<M: Module>(
        &mut self,
        model: &M,
        mut gradients: GradientMap,
    ) -> Result<(GradientMap, f64), CurvatureError> {
        let mut ids: BTreeMap<String, ParamId> = BTreeMap::new();
        parameters::visit(model, &mut |parameter| {
            ids.insert(parameter.path.to_owned(), parameter.id);
        });
        let mut done = GradientMap::new();
        let mut product = 0.0;
        for (path, layer) in &mut self.layers {
            let Some(inverse) = &mut layer.inverse else { continue };
            let Some(&weight_id) = ids.get(path) else { continue };
            let bias_id = layer.factors.bias.as_ref().and_then(|bias| ids.get(bias)).copied();
            // A layer that took no part in the loss, in whole or in part, is left to the plain gradient.
            if !gradients.contains_key(&weight_id) || bias_id.is_some_and(|id| !gradients.contains_key(&id)) {
                continue;
            }
            let taken = [Some(weight_id), bias_id].map(|id| id.and_then(|id| gradients.remove(&id)));
            let [Some(weight), bias] = taken else { continue };
            let device = weight.device();
            let of_weight = parameters::elements(weight);
            let of_bias = bias.map(parameters::elements);
            let (new_weight, new_bias) = inverse.apply(&of_weight, of_bias.as_deref())?;
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            product += dot(&of_weight, &new_weight);
            let tensor = |data: Vec<f32>| {
                let length = data.len();
                Tensor::<1>::from_data(TensorData::new(data, [length]), &device)
            };
            if let (Some(before), Some(after), Some(id)) = (&of_bias, new_bias, bias_id) {
                product += dot(before, &after);
                done.insert(id, tensor(after));
            }
            done.insert(weight_id, tensor(new_weight));
        }
        for (id, gradient) in gradients {
            product += lapidary_ops::sum_of_squares(&gradient);
            done.insert(id, gradient);
        }
        Ok((done, product))
    }
}

impl Layer {
    /// `Σ decay^age F / Σ decay^age`: the weights add up to 1 from the first on.
    fn average(&mut self, new: LayerFactors, decay: f64) -> Result<(), CurvatureError> {
        self.weight = decay * self.weight + 1.0;
        let share = 1.0 / self.weight;
        let mix = |old: &mut Mat<f64>, new: &Mat<f64>| {
            if (old.nrows(), old.ncols()) != (new.nrows(), new.ncols()) {
                let what = "a layer's factor";
                return Err(CurvatureError::Dimension { what, expected: old.nrows(), found: new.nrows() });
            }
            *old += (new - &*old) * faer::Scale(share);
            Ok(())
        };
        match (&mut self.factors.input, &new.input) {
            (InputFactor::Full(old), InputFactor::Full(new)) => mix(old, new)?,
            (InputFactor::Diagonal(old), InputFactor::Diagonal(new)) if old.len() == new.len() => {
                old.iter_mut().zip(new).for_each(|(old, new)| *old += share * (new - *old));
            }
            (InputFactor::Full(old), InputFactor::Diagonal(new)) => {
                return Err(CurvatureError::Dimension {
                    what: "a layer's factor",
                    expected: old.nrows(),
                    found: new.len(),
                });
            }
            (InputFactor::Diagonal(old), _) => {
                return Err(CurvatureError::Dimension { what: "a table's factor", expected: old.len(), found: 0 });
            }
        }
        mix(&mut self.factors.gradient, &new.gradient)
    }

    /// Inverts the averages, with ten times the damping where they cannot be with less, a few times over.
    fn invert(&mut self, damping: f64, form: KfacForm) -> Result<Option<Raised>, CurvatureError> {
        if !(damping > 0.0 && damping.is_finite()) {
            return Err(CurvatureError::Damping(damping));
        }
        if form == KfacForm::Eigen {
            self.inverse = Some(Inverse::Eigen(Box::new(self.factors.inverse(damping)?)));
            return Ok(None);
        }
        const TRIES: i32 = 8;
        for tries in 0..TRIES {
            let damping = damping * 10f64.powi(tries);
            if let Some(inverse) = self.split_inverse(damping) {
                self.inverse = Some(inverse);
                let weight = self.factors.weight.clone();
                return Ok((tries > 0).then_some(Raised { weight, damping }));
            }
        }
        Err(CurvatureError::NonFiniteFactor(self.factors.weight.clone()))
    }

    fn split_inverse(&self, damping: f64) -> Option<Inverse> {
        let LayerFactors { input, gradient, .. } = &self.factors;
        let mean =
            |matrix: &Mat<f64>| (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum::<f64>() / matrix.nrows().max(1) as f64;
        let of_input = match input {
            InputFactor::Full(input) => mean(input),
            InputFactor::Diagonal(input) => input.iter().sum::<f64>() / input.len().max(1) as f64,
        };
        // Where one of them vanishes there is nothing to share by.
        let ratio = of_input / mean(gradient);
        let split = if ratio > 0.0 && ratio.is_finite() { ratio.sqrt() } else { 1.0 };
        let (for_input, for_gradient) = (split * damping.sqrt(), damping.sqrt() / split);
        let input = match input {
            InputFactor::Full(input) => InputInverse::Full(inverse(input, for_input)?),
            InputFactor::Diagonal(input) => {
                InputInverse::Diagonal(input.iter().map(|share| (share + for_input).recip() as f32).collect())
            }
        };
        Some(Inverse::Split { input, gradient: inverse(gradient, for_gradient)? })
    }
}

/// `(matrix + damping)⁻¹`, row-major, if it is positive definite and its inverse finite.
fn inverse(matrix: &Mat<f64>, damping: f64) -> Option<Vec<f32>> {
    let n = matrix.nrows();
    let damped = Mat::from_fn(n, n, |i, j| matrix[(i, j)] + if i == j { damping } else { 0.0 });
    let inverse = damped.llt(Side::Lower).ok()?.inverse();
    let numbers: Vec<f32> = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|at| inverse[at] as f32).collect();
    numbers.iter().all(|number| number.is_finite()).then_some(numbers)
}

impl Inverse {
    /// `B⁻¹ G A⁻¹` of a layer's gradients, and its bias's part; of a table `A⁻¹ G B⁻¹`.
    fn apply(&mut self, weight: &[f32], bias: Option<&[f32]>) -> Result<(Vec<f32>, Option<Vec<f32>>), CurvatureError> {
        let (input, gradient) = match self {
            Self::Split { input, gradient } => (input, gradient),
            Self::Eigen(inverse) => {
                let joined = [weight, bias.unwrap_or_default()].concat();
                let mut product = vec![0.0; joined.len()];
                inverse.apply(&joined, &mut product)?;
                let of_bias = product.split_off(weight.len());
                return Ok((product, bias.map(|_| of_bias)));
            }
        };
        let outputs = gradient.len().isqrt();
        Ok(match input {
            InputInverse::Diagonal(input) => {
                let mut product = vec![0.0; weight.len()];
                linear(weight, gradient, None, None, input.len(), outputs, outputs, Precision::F32, &mut product);
                for (row, share) in product.chunks_exact_mut(outputs.max(1)).zip(&*input) {
                    row.iter_mut().for_each(|x| *x *= share);
                }
                (product, bias.map(<[f32]>::to_vec))
            }
            InputInverse::Full(input) => {
                let all = input.len().isqrt();
                let joined: Vec<f32> = match bias {
                    None => weight.to_vec(),
                    Some(bias) => {
                        let rows = weight.chunks_exact(all - 1).zip(bias);
                        rows.flat_map(|(row, bias)| row.iter().chain([bias])).copied().collect()
                    }
                };
                let mut half = vec![0.0; joined.len()];
                linear(&joined, input, None, None, outputs, all, all, Precision::F32, &mut half);
                let mut product = vec![0.0; joined.len()];
                // Both inverses are symmetric, so that a transpose is the matrix itself.
                linear_backward_weight(gradient, &half, outputs, all, outputs, Precision::F32, &mut product);
                match bias {
                    None => (product, None),
                    Some(_) => {
                        let (rows, bias): (Vec<&[f32]>, Vec<f32>) =
                            product.chunks_exact(all).map(|row| (&row[..all - 1], row[all - 1])).unzip();
                        (rows.concat(), Some(bias))
                    }
                }
            }
        })
    }
}
