//! Optimizers: gradients in, parameters changed, state kept by parameter path.

mod adamw;
mod any;
mod kfac;
mod saved;
mod sgd;

pub use adamw::{AdamWOptimizer, AdamWOptions, accumulate, gradient_norm};
pub(crate) use any::Header;
pub use any::{Optimizer, OptimizerOptions};
pub(crate) use kfac::Before;
pub use kfac::{
    Block, DampingRule, FactorEstimate, Interval, KfacForm, KfacOptimizer, KfacOptions, Raised, StepSize, VectorBlock,
};
pub(crate) use saved::Entries;
pub use sgd::{SgdOptimizer, SgdOptions};
