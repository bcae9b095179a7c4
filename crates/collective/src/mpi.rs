//! Ranks that are processes of an MPI job.

use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use crate::{Collective, CollectiveError};

/// A rank of the job's world. MPI is used by one thread alone, that which opened it.
pub(crate) struct Mpi {
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped, and so comes last.
    _universe: Universe,
}

/// Numbers of one call at most: MPI counts them in 32 bits.
const MOST: usize = 1 << 30;

impl Mpi {
    pub fn open() -> Result<Self, CollectiveError> {
        let universe = mpi::initialize().ok_or_else(|| CollectiveError::Start("it had been started before".into()))?;
        Ok(Self { world: universe.world(), _universe: universe })
    }

    fn add<T: Equivalence + Copy>(&self, numbers: &mut [T]) {
        for part in numbers.chunks_mut(MOST) {
            let own = part.to_vec();
            self.world.all_reduce_into(&own[..], part, SystemOperation::sum());
        }
    }
}

/// A rank that is gone ends all others within MPI: a call either returns well or not at all.
impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn count(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), CollectiveError> {
        self.add(numbers);
        Ok(())
    }

    fn sum_f64(&mut self, numbers: &mut [f64]) -> Result<(), CollectiveError> {
        self.add(numbers);
        Ok(())
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CollectiveError> {
        bytes.chunks(MOST).for_each(|part| self.world.process_at_rank(to as i32).send(part));
        Ok(())
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        for part in bytes.chunks_mut(MOST) {
            self.world.process_at_rank(from as i32).receive_into(part);
        }
        Ok(())
    }

    fn abort(&mut self) {
        self.world.abort(1);
    }
}
