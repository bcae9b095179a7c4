//! AdamW (1711.05101) as one pass over memory for each parameter.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_kernels::adamw::AdamW;
use lapidary_models::checkpoint::TensorSource;
use lapidary_models::parameters::{self, GradientMap};
use lapidary_ops::{self as ops, AdamWState};
use serde::{Deserialize, Serialize};

use super::saved::{Entries, f32_tensor};

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of matrices and tables; vectors (biases, norms, ranges) do not decay.
    pub weight_decay: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Moments of every parameter that has had a gradient, by path.
#[derive(Default)]
pub struct AdamWOptimizer {
    options: AdamWOptions,
    /// Steps done.
    pub(crate) steps: u64,
    state: BTreeMap<String, AdamWState<1>>,
}

impl AdamWOptimizer {
    /// Before the first step.
    pub fn new(options: AdamWOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// One step with a learning rate; every gradient is multiplied by `scale` (what clipping asks for).
    pub fn step<M: Module>(&mut self, model: M, mut gradients: GradientMap, rate: f64, scale: f64) -> M {
        self.steps += 1;
        let Self { options, steps, state } = self;
        parameters::map(model, &mut |parameter| {
            let Some(gradient) = gradients.remove(&parameter.id) else { return parameter.value };
            let moments = state.remove(parameter.path).unwrap_or_else(|| AdamWState {
                first: Tensor::zeros_like(&parameter.value),
                second: Tensor::zeros_like(&parameter.value),
            });
            let settings = AdamW {
                lr: rate,
                beta1: options.beta1,
                beta2: options.beta2,
                eps: options.eps,
                weight_decay: if parameter.shape.len() >= 2 { options.weight_decay } else { 0.0 },
                step: *steps,
                grad_scale: scale,
            };
            let (value, moments) = ops::adamw(parameter.value, gradient, moments, settings);
            state.insert(parameter.path.to_owned(), moments);
            value
        })
    }
}

impl AdamWOptimizer {
    /// Its moments as they are saved.
    pub(crate) fn save(&self) -> Vec<TensorSource<'static>> {
        let of_parameter = |(path, moments): (&String, &AdamWState<1>)| {
            [("first", &moments.first), ("second", &moments.second)]
                .map(|(name, tensor)| f32_tensor(format!("{name}.{path}"), tensor))
        };
        self.state.iter().flat_map(of_parameter).collect()
    }

    /// # Errors
    /// A moment without the other, or of another size than its parameter.
    pub(crate) fn load(
        &mut self,
        entries: &mut Entries,
        shapes: &[(String, Vec<usize>)],
        device: &Device,
    ) -> Result<(), String> {
        self.state.clear();
        for (path, shape) in shapes {
            let names = ["first", "second"].map(|name| format!("{name}.{path}"));
            // Without any it never had a gradient.
            if names.iter().any(|name| entries.has(name)) {
                let mut moment = |name: &str| entries.tensor(name, shape.iter().product(), device);
                let (first, second) = (moment(&names[0])?, moment(&names[1])?);
                self.state.insert(path.clone(), AdamWState { first, second });
            }
        }
        Ok(())
    }
}

/// The norm of all gradients together, summed in the order of the model's fields.
pub fn gradient_norm<M: Module>(model: &M, gradients: &GradientMap) -> f64 {
    let mut sum = 0.0;
    parameters::visit(model, &mut |parameter| {
        if let Some(gradient) = gradients.get(&parameter.id) {
            sum += ops::sum_of_squares(gradient);
        }
    });
    sum.sqrt()
}

/// `Σ` of two backward passes.
pub fn accumulate(into: &mut GradientMap, gradients: GradientMap) {
    for (id, gradient) in gradients {
        let sum = match into.remove(&id) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        into.insert(id, sum);
    }
}
