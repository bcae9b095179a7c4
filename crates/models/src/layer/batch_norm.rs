//! Batch norm, with the addition and the ReLU that follow it in a residual network.

use burn::module::{Module, Param, RunningState};
use burn::tensor::Tensor;
use lapidary_ops::{self as ops, BatchNormInput};

use super::Initializer;
use crate::pass::Pass;

/// Each channel normalized by its mean and variance: those of the batch in training, running ones elsewhere.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[C]`.
    pub weight: Param<Tensor<1>>,
    /// `[C]`.
    pub bias: Param<Tensor<1>>,
    /// `[C]`.
    pub running_mean: RunningState<Tensor<1>>,
    /// `[C]`, unbiased.
    pub running_variance: RunningState<Tensor<1>>,
}

impl BatchNorm {
    /// Added to the variance, as in PyTorch.
    const EPS: f32 = 1e-5;
    /// Share of the newest batch in the running statistics, as in PyTorch.
    const MOMENTUM: f64 = 0.1;

    /// Weight 1, bias 0; running mean 0, variance 1.
    pub fn new(channels: usize, init: &mut Initializer) -> Self {
        Self {
            weight: init.constant(1.0, [channels]),
            bias: init.constant(0.0, [channels]),
            running_mean: RunningState::new(init.fixed(0.0, [channels])),
            running_variance: RunningState::new(init.fixed(1.0, [channels])),
        }
    }

    /// `x [B·H·W, C]` → the same, `residual` added to it if there is one, and ReLU taken if asked for.
    pub fn forward(&self, x: Tensor<2>, residual: Option<Tensor<2>>, relu: bool, pass: &Pass) -> Tensor<2> {
        if relu && let Some(kinks) = pass.kinks() {
            return kinks.relu(self.forward(x, residual, false, pass));
        }
        let input =
            BatchNormInput { x, weight: self.weight.val(), bias: self.bias.val(), residual, relu, eps: Self::EPS };
        if !pass.takes_batch_statistics() {
            return ops::batch_norm_fixed(input, self.running_mean.value_sync(), self.running_variance.value_sync());
        }
        let (y, mean, variance) = ops::batch_norm(input, pass.reduction().cloned());
        let statistics = [(&self.running_mean, mean), (&self.running_variance, variance)];
        for (running, new) in statistics.into_iter().filter(|_| pass.remembers()) {
            running.update(running.value_sync() * (1.0 - Self::MOMENTUM) + new * Self::MOMENTUM);
            // An update counts from the next synchronization on.
            running.value_sync();
        }
        y
    }
}
