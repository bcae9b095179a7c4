//! Processes that train one model together: their numbers, and what they exchange.
//!
//! [`Ranks`] is what others use. It is alone, or hands all that is exchanged to a thread of its own, so that a sum over
//! the ranks goes on while the caller computes. What that thread talks through is a [`Collective`]: MPI, with the cargo
//! feature `mpi`, or the threads of one process ([`threads`]), by which everything that is built on ranks can be tested
//! without MPI.

mod error;
#[cfg(feature = "mpi")]
mod mpi;
mod ranks;
mod threads;

pub use error::CollectiveError;
pub use ranks::{Pending, Ranks};
pub use threads::{Threads, threads};

/// A way to exchange numbers. All ranks call the same methods in the same order.
pub trait Collective {
    /// This one's number, from 0 on.
    fn rank(&self) -> usize;

    /// How many there are.
    fn count(&self) -> usize;

    /// Each number becomes the sum of its like over all ranks, the same bits on all of them.
    ///
    /// # Errors
    /// Another rank is gone.
    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), CollectiveError>;

    /// The same in double precision.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn sum_f64(&mut self, numbers: &mut [f64]) -> Result<(), CollectiveError>;

    /// Gives another rank bytes, which [`Collective::receive`]s as many.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CollectiveError>;

    /// Takes what another rank sends.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CollectiveError>;

    /// Ends the job on all ranks, if there is a way to; the process may end here.
    fn abort(&mut self) {}
}
