//! The Hessian of a classifier's loss along the parameters of one block of its trunk.
//!
//! Only that block's parameters are perturbed, so what lies below it is run once, and what the backward pass would
//! compute below it or for other weights is not computed at all.

use burn::tensor::{Tensor, TensorData};
use lapidary_data::Batch;
use lapidary_models::objective::Classification;
use lapidary_models::{Classifier, Pass, parameters};

use crate::step::{self, Difference};
use crate::{CurvatureError, LinearOperator, norm};

/// Examples on which a Hessian is taken, with what one block reads of them.
pub struct HessianSample {
    batches: Vec<Batch>,
    hidden: Vec<Tensor<2>>,
    examples: usize,
}

impl HessianSample {
    /// The examples as the first block reads them. `model` has no gradients.
    pub fn new<M: Classifier>(model: &M, batches: Vec<Batch>) -> Self {
        let hidden = batches.iter().map(|batch| model.embed(batch, &Pass::evaluation())).collect();
        let examples = batches.iter().map(|batch| batch.rows).sum();
        Self { batches, hidden, examples }
    }

    /// Runs one block: the examples as the block after it reads them.
    pub fn advance<M: Classifier>(&mut self, model: &M, block: usize) {
        for (hidden, batch) in self.hidden.iter_mut().zip(&self.batches) {
            *hidden = model.advance(hidden.clone(), block..block + 1, batch, &Pass::evaluation());
        }
    }
}

/// `H v` for the mean cross-entropy over a sample and the parameters of one block, by central differences of
/// gradients in `f32`; the vector lies parameter after parameter in the order of the model's fields.
pub struct BlockHessian<'a, M> {
    model: Option<M>,
    block: usize,
    sample: &'a HessianSample,
    base: Vec<f32>,
    difference: Option<Difference>,
}

impl<'a, M: Classifier> BlockHessian<'a, M> {
    /// The Hessian along `block` of a model on an autodiff device; `sample` has been advanced to that block.
    ///
    /// `difference` is a step settled before, on other data or another vector; without it the first product settles
    /// one, which costs some more gradients.
    pub fn new(model: M, block: usize, sample: &'a HessianSample, difference: Option<Difference>) -> Self {
        let prefix = M::block_path(block);
        let mut base = Vec::new();
        parameters::visit(&model, &mut |parameter| {
            if parameter.path.starts_with(&prefix) {
                base.extend(parameters::elements(parameter.value));
            }
        });
        let model = parameters::train_only(model, &|path| path.starts_with(&prefix));
        Self { model: Some(model), block, sample, base, difference }
    }

    /// The step that further products take and its estimated relative error, once a product has been made.
    pub fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// The gradient of the mean loss at `w + step · v`.
    pub fn gradient_at(&mut self, v: &[f32], step: f64, out: &mut [f32]) -> Result<(), CurvatureError> {
        let Self { model, block, base, .. } = &mut *self;
        let prefix = M::block_path(*block);
        let Some(moved) = model.take() else { return Err(CurvatureError::Empty) };
        let mut place = 0;
        let moved = parameters::map(moved, &mut |parameter| {
            if !parameter.path.starts_with(&prefix) {
                return parameter.value;
            }
            let elements: usize = parameter.shape.iter().product();
            let range = place..place + elements;
            place += elements;
            // In f64, so that a short step is rounded once and not twice.
            let values: Vec<f32> = base[range.clone()]
                .iter()
                .zip(&v[range])
                .map(|(&w, &v)| (f64::from(w) + step * f64::from(v)) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, [elements]), &parameter.value.device())
        });
        let gradient = self.gradient_of(&moved, out);
        self.model = Some(moved);
        gradient
    }

    /// The gradient of the mean loss at a model's own parameters, summed in `f64` over the batches.
    fn gradient_of(&self, model: &M, out: &mut [f32]) -> Result<(), CurvatureError> {
        let prefix = M::block_path(self.block);
        let mut sum = vec![0.0f64; self.base.len()];
        for (batch, hidden) in self.sample.batches.iter().zip(&self.sample.hidden) {
            let pass = Pass::evaluation();
            let x = model.advance(hidden.clone(), self.block..model.blocks(), batch, &pass);
            let logits = model.head(x, batch, &pass);
            let loss = Classification::of_logits(logits, batch, self.sample.examples as f32)
                .map_err(|error| CurvatureError::Operator(Box::new(error)))?;
            let gradients = parameters::gradients(model, loss.backward());
            let mut place = 0;
            parameters::visit(model, &mut |parameter| {
                if parameter.path.starts_with(&prefix) {
                    let elements: usize = parameter.shape.iter().product();
                    // A parameter that the loss does not reach has gradient zero.
                    if let Some(gradient) = gradients.get(&parameter.id) {
                        let gradient = parameters::elements(gradient.clone());
                        for (sum, g) in sum[place..place + elements].iter_mut().zip(gradient) {
                            *sum += f64::from(g);
                        }
                    }
                    place += elements;
                }
            });
        }
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = sum as f32;
        }
        Ok(())
    }
}

/// Steps of a [`Difference`] are those of a unit vector; a longer one takes a shorter step.
impl<M: Classifier> BlockHessian<'_, M> {
    /// Finds the step for products with `v`, which is not zero.
    fn settle(&mut self, v: &[f32]) -> Result<Difference, CurvatureError> {
        let length = norm(v);
        let (dim, scale) = (self.dim(), norm(&self.base).max(1.0) / length);
        let settled = step::settle(&mut |step, out| self.gradient_at(v, step, out), dim, scale)?;
        Ok(Difference { step: settled.step * length, error: settled.error })
    }

    fn product(&mut self, v: &[f32], step: f64, out: &mut [f32]) -> Result<(), CurvatureError> {
        step::product(&mut |step, out| self.gradient_at(v, step, out), step, out)
    }
}

impl<M: Classifier> LinearOperator for BlockHessian<'_, M> {
    fn dim(&self) -> usize {
        self.base.len()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let length = norm(v);
        if length == 0.0 {
            out.fill(0.0);
            return Ok(());
        }
        if let Some(Difference { step, .. }) = self.difference {
            return self.product(v, step / length, out);
        }
        let first = self.settle(v)?;
        self.product(v, first.step / length, out)?;
        // What is asked for next lies along the most curved directions, where the step that suits a random vector can
        // be ten times too long and bend the top eigenvalue by a percent. The first product already points that way.
        self.difference = Some(if norm(out) > 0.0 { self.settle(out)? } else { first });
        Ok(())
    }
}
