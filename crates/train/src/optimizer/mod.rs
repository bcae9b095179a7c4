//! Optimizers: gradients in, parameters changed, state kept by parameter path.

mod adamw;
mod kfac;
mod sgd;

pub use adamw::{AdamWOptimizer, AdamWOptions, accumulate, gradient_norm};
pub use kfac::{Block, KfacForm, KfacOptimizer, KfacOptions, Raised};
pub use sgd::{SgdOptimizer, SgdOptions};
