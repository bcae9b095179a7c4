//! Stochastic gradient descent with momentum, as one pass over memory for each parameter.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_kernels::sgd::Sgd;
use lapidary_models::checkpoint::TensorSource;
use lapidary_models::parameters::{self, GradientMap};
use lapidary_ops as ops;
use serde::{Deserialize, Serialize};

use super::saved::{Entries, f32_tensor};

/// What stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdOptions {
    /// Decay of the velocity; 0 for none. Default: 0.9.
    pub momentum: f64,
    /// Looks ahead along the velocity (Sutskever et al., 2013). Default: no.
    pub nesterov: bool,
    /// Added to the gradient, times the weight; of matrices and convolutions only, vectors do not decay.
    /// Default: 1e-4.
    pub weight_decay: f64,
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false, weight_decay: 1e-4 }
    }
}

/// Velocities of every parameter that has had a gradient, by path.
#[derive(Default)]
pub struct SgdOptimizer {
    options: SgdOptions,
    velocities: BTreeMap<String, Tensor<1>>,
}

impl SgdOptimizer {
    /// Before the first step.
    pub fn new(options: SgdOptions) -> Self {
        Self { options, velocities: BTreeMap::new() }
    }

    /// One step with a learning rate; every gradient is multiplied by `scale` (what clipping asks for).
    pub fn step<M: Module>(&mut self, model: M, mut gradients: GradientMap, rate: f64, scale: f64) -> M {
        let Self { options, velocities } = self;
        parameters::map(model, &mut |parameter| {
            let Some(gradient) = gradients.remove(&parameter.id) else { return parameter.value };
            let velocity = velocities.remove(parameter.path);
            let settings = Sgd {
                lr: rate,
                momentum: options.momentum,
                nesterov: options.nesterov,
                weight_decay: if parameter.shape.len() >= 2 { options.weight_decay } else { 0.0 },
                grad_scale: scale,
            };
            let (value, velocity) = ops::sgd(parameter.value, gradient, velocity, settings);
            velocities.insert(parameter.path.to_owned(), velocity);
            value
        })
    }

    /// Its velocities as they are saved.
    pub(crate) fn save(&self) -> Vec<TensorSource<'static>> {
        self.velocities.iter().map(|(path, velocity)| f32_tensor(format!("velocity.{path}"), velocity)).collect()
    }

    /// # Errors
    /// A velocity of another size than its parameter.
    pub(crate) fn load(
        &mut self,
        entries: &mut Entries,
        shapes: &[(String, Vec<usize>)],
        device: &Device,
    ) -> Result<(), String> {
        self.velocities.clear();
        for (path, shape) in shapes {
            let name = format!("velocity.{path}");
            // Without one it never had a gradient.
            if entries.has(&name) {
                self.velocities.insert(path.clone(), entries.tensor(&name, shape.iter().product(), device)?);
            }
        }
        Ok(())
    }
}
