//! The study of how optimizers take to larger batches: trials, the file that they are kept in, and what follows from them.
//!
//! Ma et al., "Inefficiency of K-FAC for large batch size training" (1903.06237); how to compare fairly: Shallue et al.,
//! "Measuring the effects of data parallelism" (1811.03600).

mod fit;
mod points;
mod store;
mod trial;

pub use fit::{CriticalBatch, critical_batch};
pub use points::{evenly, grid};
pub use store::{Counts, Status, StoreError, StudyStore, StudyTrial};
pub use trial::{Look, Seen, TrialOptions, TrialOutcome, run_trial};
