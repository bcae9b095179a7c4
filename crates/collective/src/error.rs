//! What can go wrong between ranks.

/// What can go wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// It ended before the work was done.
    #[error(
        "another rank is gone; its own message says why. Start the same command again to go on from the last state"
    )]
    Gone,

    /// Several processes were started, by a program that cannot join them.
    #[error(
        "this is process {rank} of {count} of an MPI job, and this program was built without MPI: build it with \
         --features mpi, or start it without mpirun"
    )]
    NoMpi {
        /// By the launcher.
        rank: usize,
        /// By the launcher.
        count: usize,
    },

    /// MPI does not start.
    #[error("MPI did not start: {0}")]
    Start(String),
}
