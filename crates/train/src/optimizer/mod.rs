//! Optimizers: gradients in, parameters changed, state kept by parameter path.

mod adamw;
mod sgd;

pub use adamw::{AdamWOptimizer, AdamWOptions, accumulate, gradient_norm};
pub use sgd::{SgdOptimizer, SgdOptions};
