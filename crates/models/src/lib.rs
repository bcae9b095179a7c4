//! Models: layers, the trunk, one file a model, what they are trained for, and their checkpoints.

pub mod bert;
pub mod checkpoint;
pub mod classifier;
pub mod decoder;
mod error;
mod kinks;
pub mod layer;
pub mod load;
pub mod objective;
pub mod parameters;
mod pass;
pub mod published;
pub mod resnet;
pub mod taps;
pub mod trunk;
pub mod vilt;

pub use classifier::{Checkpointed, Classifier, Matrix, Task};
pub use error::ModelError;
pub use kinks::Kinks;
pub use pass::Pass;
