//! Optimizers: gradients in, parameters changed, state kept by parameter path.

mod adamw;
mod any;
mod kfac;
mod saved;
mod sgd;

pub use adamw::{AdamWOptimizer, AdamWOptions, accumulate, gradient_norm};
pub use any::OptimizerOptions;
pub(crate) use any::{Header, Optimizer};
pub(crate) use kfac::Before;
pub use kfac::{
    Block, DampingRule, FactorEstimate, Interval, KfacForm, KfacOptimizer, KfacOptions, Raised, VectorBlock,
};
pub(crate) use saved::Entries;
pub use sgd::{SgdOptimizer, SgdOptions};
