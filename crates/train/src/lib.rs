//! Training: optimizer, schedule, the loop, and what it leaves behind for people and for its own resumption.

mod batches;
mod error;
mod events;
mod interrupt;
mod log;
pub mod optimizer;
mod pairs;
mod progress;
pub mod schedule;
mod state;
mod trainer;
mod windows;

pub use batches::{BatchSource, EpochBatches};
pub use error::TrainError;
pub use events::EventWriter;
pub use interrupt::Interrupt;
pub use log::{MetricsLog, MetricsRow};
pub use optimizer::{AdamWOptimizer, AdamWOptions, KfacOptimizer, KfacOptions, SgdOptimizer, SgdOptions};
pub use pairs::{CanvasLayout, PairBatches, TextPair};
pub use progress::Progress;
pub use schedule::Schedule;
pub use trainer::{TrainOptions, Trained, train};
pub use windows::WindowBatches;
