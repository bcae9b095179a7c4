//! K-FAC: gradient descent in a metric that knows how the loss is curved (Martens and Grosse, 1503.05671; convolutions:
//! Grosse and Martens, 1602.01407).
//!
//! A layer's gradient `G [O, I]` becomes `(B + λ_B)⁻¹ G (A + λ_A)⁻¹`, with the layer's Kronecker factors `A` of its
//! inputs and `B` of its outputs' gradients, averaged over the steps, and a damping `λ` that the two share so that each
//! bears the same part of it: `λ_A = π √λ`, `λ_B = √λ / π`, `π² = (tr A / I) / (tr B / O)` (1503.05671, section 6.3). Or,
//! by the eigenvectors of both, `(A ⊗ B + λ)⁻¹ G` as it is.
//! What comes out is what [`SgdOptimizer`] takes for a gradient, with momentum and weight decay.

mod damping;
mod layer;
mod saved;
mod shares;

use std::collections::BTreeMap;

use burn::module::{Module, ParamId};
use burn::tensor::{Tensor, TensorData};
use lapidary_collective::{CollectiveError, Ranks};
use lapidary_curvature::CurvatureError;
use lapidary_curvature::kronecker::LayerFactors;
use lapidary_models::parameters::{self, GradientMap};
use serde::{Deserialize, Serialize};

use super::{SgdOptimizer, SgdOptions};
use crate::TrainError;
pub use damping::DampingRule;
use layer::{Layer, dot};
pub(crate) use saved::Header;
use shares::{Share, shares, spread_inverse, spread_numbers};

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KfacOptions {
    /// `λ` at the beginning: the larger, the more a step is one of plain gradient descent. Default: 1e-3.
    pub damping: f64,
    /// How `λ` changes. Default: it does not.
    pub damping_rule: DampingRule,
    /// What the damping is added to. Default: `split`.
    pub form: KfacForm,
    /// Whose targets the factors are of. Default: `empirical`.
    pub estimate: FactorEstimate,
    /// Examples of a step at most, its first ones, that factors are of; 0: all. Default: 128.
    pub examples: usize,
    /// Weight of an average over all factors before, against 1 of a new one. The averages have no bias at the start.
    /// Default: 0.95.
    pub decay: f64,
    /// When the factors are looked at. Default: every 10 steps.
    pub factors: Interval,
    /// When they are inverted. Default: every 100 steps.
    pub inverses: Interval,
    /// `κ`: a step is scaled so that its length by the factors, `rate² Σ U·G`, is no more (Ba et al., "Distributed
    /// second-order optimization using Kronecker-factored approximations", section 5). 0: it is not. Default: 1e-3.
    pub norm_constraint: f64,
    /// What becomes of the gradients of vectors that belong to no layer's block, such as those of norms. Default:
    /// `gradient`.
    pub vectors: VectorBlock,
    /// Whether a matrix without factors is an error. Default: yes.
    pub strict: bool,
    /// Among ranks the share of them, one at least, that keep a layer's inverse factors and multiply with them; the others
    /// are given what comes out, which takes less memory and more exchange. Default: 1.
    #[serde(skip_serializing_if = "is_all")]
    pub gradient_workers: f64,
    /// What is made of the preconditioned gradient.
    pub sgd: SgdOptions,
}

fn is_all(share: &f64) -> bool {
    *share == 1.0
}

impl Default for KfacOptions {
    fn default() -> Self {
        Self {
            damping: 1e-3,
            damping_rule: DampingRule::Constant,
            form: KfacForm::Split,
            estimate: FactorEstimate::Empirical,
            examples: 128,
            decay: 0.95,
            factors: Interval { burn_in: 0, every: 10 },
            inverses: Interval { burn_in: 0, every: 100 },
            norm_constraint: 1e-3,
            vectors: VectorBlock::Gradient,
            strict: true,
            gradient_workers: 1.0,
            sgd: SgdOptions::default(),
        }
    }
}

/// Steps on which something is done: each of the first ones, then every so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Steps at the beginning on which it is done each time. Default: 0.
    #[serde(default)]
    pub burn_in: u64,
    /// From one to the next after those.
    pub every: u64,
}

impl Interval {
    /// Whether it is done on a step, counted from 0; on the first one always.
    pub fn is_due(self, step: u64) -> bool {
        step < self.burn_in || step.is_multiple_of(self.every.max(1))
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

/// Whose targets the factors are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorEstimate {
    /// Those of the batch: the gradient's own pass gives the factors, of the empirical Fisher matrix.
    #[default]
    Empirical,
    /// Targets that the model draws from what it says: the Fisher matrix, for two more passes forward and one backward.
    Sampled,
    /// Those of the batch that comes next: a gradient and a metric that do not share their noise, for a pass more.
    TwoBatch,
}

/// What becomes of the gradient of a vector without factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorBlock {
    /// Nothing.
    #[default]
    Gradient,
    /// It is divided by an estimate of its diagonal of the Fisher matrix, plus the damping: the average of `n g²` over the
    /// batches, `n` targets each. (Its mean is that diagonal where the mean gradient is zero.)
    Diagonal,
}

/// What a parameter's gradient goes through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// The inverse factors of a layer, by its weight's path; its bias is in the same block.
    Kronecker {
        /// The layer's weight.
        weight: String,
    },
    /// See [`VectorBlock::Diagonal`].
    Diagonal,
    /// Nothing.
    Gradient,
}

/// Factor averages and inverses of every layer, velocities of every parameter.
pub struct KfacOptimizer {
    options: KfacOptions,
    sgd: SgdOptimizer,
    steps: u64,
    /// The present `λ`.
    damping: f64,
    layers: BTreeMap<String, Layer>,
    /// Averages of `n g²`, by path.
    diagonals: BTreeMap<String, Vec<f64>>,
    /// Sum of the weights that are in them.
    diagonal_weight: f64,
}

/// How far a step goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSize {
    /// How many targets the gradient is that of a mean over.
    pub targets: f64,
    /// The learning rate.
    pub rate: f64,
    /// What every gradient is multiplied by, as clipping asks for.
    pub scale: f64,
}

/// An inversion that went another way than it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// The layer's weight.
    pub weight: String,
    /// The damping that the layer's factors were inverted with.
    pub damping: f64,
}

/// Parameters and their gradients before a step, for [`KfacOptimizer::expected_change`].
pub(crate) struct Before {
    values: BTreeMap<String, Tensor<1>>,
    gradients: BTreeMap<String, Tensor<1>>,
}

impl Before {
    /// Handles, no copies.
    pub fn of<M: Module>(model: &M, gradients: &GradientMap) -> Self {
        let mut before = Self { values: BTreeMap::new(), gradients: BTreeMap::new() };
        parameters::visit(model, &mut |parameter| {
            if let Some(gradient) = gradients.get(&parameter.id) {
                before.gradients.insert(parameter.path.to_owned(), gradient.clone());
                before.values.insert(parameter.path.to_owned(), parameter.value);
            }
        });
        before
    }
}

impl KfacOptimizer {
    /// Before the first step.
    pub fn new(options: KfacOptions) -> Self {
        Self {
            options,
            sgd: SgdOptimizer::new(options.sgd),
            steps: 0,
            damping: options.damping,
            layers: BTreeMap::new(),
            diagonals: BTreeMap::new(),
            diagonal_weight: 0.0,
        }
    }

    /// What it was told.
    pub fn options(&self) -> &KfacOptions {
        &self.options
    }

    /// The present `λ`.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Whether the next step is one that looks at the factors.
    pub fn wants_factors(&self) -> bool {
        self.options.factors.is_due(self.steps)
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
                    self.layers.insert(factors.weight.clone(), Layer::new(factors));
                }
            }
        }
        Ok(())
    }

    /// Takes the gradients of vectors without factors into the averages, those of a mean over `targets`.
    fn observe_vectors<M: Module>(&mut self, model: &M, gradients: &GradientMap, targets: f64) {
        self.diagonal_weight = self.options.decay * self.diagonal_weight + 1.0;
        let share = 1.0 / self.diagonal_weight;
        let blocks: BTreeMap<String, Block> = self.blocks(model).into_iter().collect();
        parameters::visit(model, &mut |parameter| {
            let (Some(gradient), Some(Block::Diagonal)) = (gradients.get(&parameter.id), blocks.get(parameter.path))
            else {
                return;
            };
            let gradient = parameters::elements(gradient.clone());
            let average = self.diagonals.entry(parameter.path.to_owned()).or_insert_with(|| vec![0.0; gradient.len()]);
            for (average, g) in average.iter_mut().zip(gradient) {
                *average += share * (targets * f64::from(g) * f64::from(g) - *average);
            }
        });
    }

    /// Which block each trained parameter of a model has, in the order of its fields.
    pub fn blocks<M: Module>(&self, model: &M) -> Vec<(String, Block)> {
        let mut blocks = Vec::new();
        parameters::visit(model, &mut |parameter| {
            if !parameter.trained {
                return;
            }
            let of_layer = self.layers.iter().find(|(weight, layer)| {
                weight.as_str() == parameter.path || layer.factors.bias.as_deref() == Some(parameter.path)
            });
            let block = match of_layer {
                Some((weight, _)) => Block::Kronecker { weight: weight.clone() },
                None if parameter.shape.len() < 2 && self.options.vectors == VectorBlock::Diagonal => Block::Diagonal,
                None => Block::Gradient,
            };
            blocks.push((parameter.path.to_owned(), block));
        });
        blocks
    }

    /// Matrices that have no factors although they have had a gradient.
    pub(crate) fn without_factors<M: Module>(&self, model: &M, gradients: &GradientMap) -> Vec<String> {
        let mut without = Vec::new();
        parameters::visit(model, &mut |parameter| {
            let is_matrix = parameter.shape.len() >= 2 && gradients.contains_key(&parameter.id);
            if is_matrix && !self.layers.contains_key(parameter.path) {
                without.push(parameter.path.to_owned());
            }
        });
        without
    }

    /// One step. What it inverted with more damping than it was told comes with the model, of the layers that are this
    /// rank's to invert. All ranks call it alike.
    ///
    /// # Errors
    /// A damping that is not positive; a layer whose factors cannot be inverted with any; another rank that is gone.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientMap,
        size: StepSize,
        ranks: &Ranks,
    ) -> Result<(M, Vec<Raised>), TrainError> {
        let StepSize { targets, rate, scale } = size;
        if self.options.vectors == VectorBlock::Diagonal {
            self.observe_vectors(&model, &gradients, targets);
        }
        self.damping = self.options.damping_rule.at(self.steps, self.options.damping, self.damping);
        let mut raised = Vec::new();
        let is_due = self.options.inverses.is_due(self.steps);
        let shares = shares(self.layers.values(), self.options.gradient_workers, ranks.count());
        let due = |layer: &Layer| is_due || !layer.inverted;
        // All of a rank's own first, so that the ranks invert at the same time.
        for (layer, _) in
            self.layers.values_mut().zip(&shares).filter(|(layer, share)| due(layer) && share.owner == ranks.rank())
        {
            raised.extend(layer.invert(self.damping, self.options.form)?);
        }
        for (layer, share) in self.layers.values_mut().zip(&shares).filter(|(layer, _)| due(layer)) {
            spread_inverse(layer, self.options.form, (share.owner, &share.workers), ranks)?;
            layer.inverted = true;
        }
        self.steps += 1;
        let (gradients, product) = self.preconditioned(&model, gradients, &shares, ranks)?;
        // The scale multiplies both factors of the product.
        let length = rate * rate * scale * scale * product;
        let most = self.options.norm_constraint;
        let shorter = if most > 0.0 && length > most { (most / length).sqrt() } else { 1.0 };
        Ok((self.sgd.step(model, gradients, rate, scale * shorter), raised))
    }

    /// Gives the first rank, which saves the state, the inverses that it does not have.
    pub(crate) fn gather(&mut self, ranks: &Ranks) -> Result<(), CollectiveError> {
        let shares = shares(self.layers.values(), self.options.gradient_workers, ranks.count());
        let elsewhere = |(layer, share): &(&mut Layer, &Share)| layer.inverted && !share.works(0);
        for (layer, share) in self.layers.values_mut().zip(&shares).filter(elsewhere) {
            spread_inverse(layer, self.options.form, (share.owner, &[0]), ranks)?;
        }
        Ok(())
    }

    /// Lets go of the inverses that are other ranks' to keep: after a state was saved or loaded.
    pub(crate) fn keep_own(&mut self, ranks: &Ranks) {
        let shares = shares(self.layers.values(), self.options.gradient_workers, ranks.count());
        let others = self.layers.values_mut().zip(&shares).filter(|(_, share)| !share.works(ranks.rank()));
        others.for_each(|(layer, _)| layer.inverse = None);
    }

    /// Gradients as the blocks make them, and `Σ U·G` over all.
    fn preconditioned<M: Module>(
        &self,
        model: &M,
        mut gradients: GradientMap,
        shares: &[Share],
        ranks: &Ranks,
    ) -> Result<(GradientMap, f64), CollectiveError> {
        let mut ids: BTreeMap<String, ParamId> = BTreeMap::new();
        parameters::visit(model, &mut |parameter| {
            ids.insert(parameter.path.to_owned(), parameter.id);
        });
        let mut done = GradientMap::new();
        let mut product = 0.0;
        let mut exchanged = Vec::new();
        for ((path, layer), share) in self.layers.iter().zip(shares).filter(|((_, layer), _)| layer.inverted) {
            let Some(&weight_id) = ids.get(path) else { continue };
            let bias_id = layer.factors.bias.as_ref().and_then(|bias| ids.get(bias)).copied();
            // A layer that took no part in the loss, in whole or in part, is left to the plain gradient.
            if !gradients.contains_key(&weight_id) || bias_id.is_some_and(|id| !gradients.contains_key(&id)) {
                continue;
            }
            let taken = [Some(weight_id), bias_id].map(|id| id.and_then(|id| gradients.remove(&id)));
            let [Some(weight), bias] = taken else { continue };
            let device = weight.device();
            let before = (parameters::elements(weight), bias.map(parameters::elements));
            let after = match &layer.inverse {
                Some(inverse) if share.works(ranks.rank()) => {
                    inverse.apply(&before.0, before.1.as_deref(), self.damping)
                }
                // To be received.
                _ => before.clone(),
            };
            exchanged.push((share, device, (weight_id, bias_id), before, after));
        }
        for (share, device, (weight_id, bias_id), before, (mut new_weight, mut new_bias)) in exchanged {
            for (worker, receivers) in share.served(ranks.count()) {
                spread_numbers(&mut new_weight, (worker, &receivers), ranks)?;
                if let Some(bias) = &mut new_bias {
                    spread_numbers(bias, (worker, &receivers), ranks)?;
                }
            }
            product += dot(&before.0, &new_weight);
            if let (Some(before), Some(after), Some(id)) = (&before.1, new_bias, bias_id) {
                product += dot(before, &after);
                done.insert(id, flat(after, &device));
            }
            done.insert(weight_id, flat(new_weight, &device));
        }
        for (path, diagonal) in &self.diagonals {
            let Some((id, gradient)) = ids.get(path).and_then(|id| gradients.remove_entry(id)) else { continue };
            let device = gradient.device();
            let before = parameters::elements(gradient);
            let divided = |(g, d): (&f32, &f64)| (f64::from(*g) / (d + self.damping)) as f32;
            let after: Vec<f32> = before.iter().zip(diagonal).map(divided).collect();
            product += dot(&before, &after);
            done.insert(id, flat(after, &device));
        }
        for (id, gradient) in gradients {
            product += lapidary_ops::sum_of_squares(&gradient);
            done.insert(id, gradient);
        }
        Ok((done, product))
    }

    /// Whether the damping asks, after so many steps, what the last did to the loss. Where it is part of the inverses it
    /// asks only before they are made again: until then another damping would have no effect.
    pub(crate) fn asks_for_change_at(&self, steps: u64) -> bool {
        let counts = self.options.form == KfacForm::Eigen || self.options.inverses.is_due(steps);
        counts && self.options.damping_rule.asks_at(steps)
    }

    /// What a step, from `before` to `model`, was to do to the loss by the quadratic model of the factors:
    /// `G·δ + ½ δᵀ (F + λ) δ` (1503.05671, section 6.4, `F` by its factors instead of by a product with it).
    ///
    /// # Errors
    /// Factors that do not fit the model.
    pub(crate) fn expected_change<M: Module>(&mut self, before: &Before, model: &M) -> Result<f64, CurvatureError> {
        let mut steps: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        let mut expected = 0.0;
        parameters::visit(model, &mut |parameter| {
            let path = parameter.path;
            let (Some(old), Some(gradient)) = (before.values.get(path), before.gradients.get(path)) else { return };
            let [new, old] = [parameter.value, old.clone()].map(parameters::elements);
            let step: Vec<f32> = new.iter().zip(&old).map(|(new, old)| new - old).collect();
            expected += dot(&step, &parameters::elements(gradient.clone())) + 0.5 * self.damping * dot(&step, &step);
            steps.insert(path.to_owned(), step);
        });
        for (path, layer) in &mut self.layers {
            let Some(weight) = steps.get(path) else { continue };
            let bias = layer.factors.bias.as_ref().and_then(|bias| steps.get(bias)).map(Vec::as_slice);
            expected += 0.5 * layer.curvature_along(weight, bias)?;
        }
        for (path, diagonal) in &self.diagonals {
            let Some(step) = steps.get(path) else { continue };
            let along = step.iter().zip(diagonal).map(|(x, d)| f64::from(*x) * f64::from(*x) * d);
            expected += 0.5 * along.sum::<f64>();
        }
        Ok(expected)
    }

    /// Takes what a step did to the loss, and was to do, into the damping.
    pub(crate) fn adapt(&mut self, actual: f64, expected: f64) {
        // A step that was to make the loss worse, as momentum may, says nothing good of the damping whatever came of it.
        let ratio = if expected < 0.0 { actual / expected } else { f64::NAN };
        self.damping = self.options.damping_rule.adapted(self.damping, ratio);
    }
}

fn flat(data: Vec<f32>, device: &burn::tensor::Device) -> Tensor<1> {
    let length = data.len();
    Tensor::from_data(TensorData::new(data, [length]), device)
}
