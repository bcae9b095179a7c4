//! Optimizers: gradients in, parameters changed, state kept by parameter path.

mod adamw;

pub use adamw::{AdamWOptimizer, AdamWOptions, accumulate, gradient_norm};
