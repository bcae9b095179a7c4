//! What can stop a training, and what to do about it.

use std::path::PathBuf;

use lapidary_collective::CollectiveError;
use lapidary_curvature::CurvatureError;
use lapidary_data::store::StoreError;
use lapidary_models::ModelError;
use lapidary_models::checkpoint::CheckpointError;

/// An error of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model or a target is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The text could not be read.
    #[error(transparent)]
    Text(#[from] StoreError),
    /// A log could not be read or written.
    #[error("cannot write {}", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The loss or the gradient is no number any more.
    #[error(
        "{what} is {value} at step {step} (learning rate {rate:.2e}): lower the learning rate, lengthen the warm-up \
         or clip the gradient; the last saved state is whole"
    )]
    NotFinite {
        /// Loss, gradient norm or validation metric.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Step, counted from 0.
        step: u64,
        /// Learning rate of the step.
        rate: f64,
    },
    /// A saved state of another model or another run.
    #[error("{}: {reason}; remove the folder to begin anew", path.display())]
    State {
        /// The state's file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The factors of K-FAC.
    #[error(transparent)]
    Curvature(#[from] CurvatureError),
    /// Matrices that K-FAC has no factors of.
    #[error(
        "K-FAC has no factors of {paths}: their layers do not write down what they read; strict = false leaves them to \
         the plain gradient"
    )]
    WithoutFactors {
        /// Their paths.
        paths: String,
    },
    /// The noise of the gradient is to be measured on one micro-batch a step.
    #[error(
        "the noise scale is measured between micro-batches: make a step of two or more, which accumulate says how many"
    )]
    NoiseScale,
    /// The factors are to be those of drawn targets, and there is nothing to draw.
    #[error("this objective has no targets to draw: take the estimate empirical or two_batch for K-FAC's factors")]
    NotSampled,
    /// What ranks have to say to each other.
    #[error(transparent)]
    Ranks(#[from] CollectiveError),
    /// The micro-batches of a step cannot be shared out.
    #[error(
        "a step has {parts} parts, and {ranks} ranks to share them out to: {}",
        if *sync_batch_norm {
            "sync_batch_norm wants as many ranks as parts, which accumulate says"
        } else {
            "make accumulate a multiple of the ranks, or start as many as divide it"
        }
    )]
    Parts {
        /// Micro-batches of a step.
        parts: u64,
        /// How many there are.
        ranks: usize,
        /// Whether norms want one rank a part.
        sync_batch_norm: bool,
    },
    /// A rank does not see the files of another.
    #[error(
        "rank {rank} finds step {found} in {}, and rank 0 another: it has to be one folder, on storage that all ranks \
         share", path.display()
    )]
    NotShared {
        /// This one.
        rank: usize,
        /// Of its state; 0 without one.
        found: u64,
        /// Where.
        path: PathBuf,
    },
    /// The look at the validation part failed.
    #[error("validation failed")]
    Validation(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No example to train on.
    #[error("there is nothing to train on: the data set is empty")]
    Empty,
    /// A text that is to be written has more tokens than there are places for it.
    #[error("the target of pair {pair} has {tokens} tokens, the canvas {canvas} places")]
    Target {
        /// Counted from 0.
        pair: usize,
        /// Of the target, with the one that ends it.
        tokens: usize,
        /// Places of the canvas.
        canvas: usize,
    },
    /// Asked to stop; the state has been saved.
    #[error("stopped at step {step} of {total}, state saved; run the same command again to go on")]
    Interrupted {
        /// Steps done.
        step: u64,
        /// Steps planned.
        total: u64,
    },
}
