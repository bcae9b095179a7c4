//! Models: layers, the trunk, one file a model, what they are trained for, and their checkpoints.

pub mod bert;
pub mod checkpoint;
pub mod classifier;
pub mod decoder;
mod error;
pub mod layer;
pub mod load;
pub mod objective;
pub mod parameters;
mod pass;
pub mod resnet;
pub mod trunk;
pub mod vilt;

pub use classifier::{Checkpointed, Classifier, Matrix};
pub use error::ModelError;
pub use pass::Pass;
