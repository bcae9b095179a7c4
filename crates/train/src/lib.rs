//! Training: optimizer, schedule, the loop, and what it leaves behind for people and for its own resumption.

mod batches;
mod error;
mod events;
mod exchange;
mod interrupt;
mod log;
mod noise_scale;
pub mod optimizer;
mod pairs;
mod pictures;
mod pieces;
mod progress;
pub mod schedule;
mod state;
pub mod study;
mod trainer;
mod windows;

pub use batches::{BatchSource, EpochBatches};
pub use error::TrainError;
pub use events::EventWriter;
pub use interrupt::Interrupt;
pub use log::{MetricsLog, MetricsRow};
pub use noise_scale::{NoiseSample, NoiseScale};
pub use optimizer::{
    AdamWOptimizer, AdamWOptions, KfacOptimizer, KfacOptions, Optimizer, OptimizerOptions, SgdOptimizer, SgdOptions,
};
pub use pairs::{CanvasLayout, PairBatches, TextPair};
pub use pictures::PictureBatches;
pub use progress::Progress;
pub use schedule::{Decay, Schedule};
pub use trainer::{StepDone, TrainOptions, Trained, Training, step, train, train_among};
pub use windows::WindowBatches;
