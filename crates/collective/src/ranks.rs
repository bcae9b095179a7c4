//! What the ranks of a job have in common, for those who compute.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::{Collective, CollectiveError};

/// The ranks of a job, seen from one of them. Clones are the same rank.
///
/// All ranks call the same methods in the same order; what one begins earlier is done earlier.
#[derive(Clone)]
pub struct Ranks {
    rank: usize,
    count: usize,
    /// `None`: alone.
    worker: Option<Arc<Worker>>,
}

/// What is asked of the thread that talks.
enum Job {
    Sum(Vec<f32>, Sender<Answer<f32>>),
    SumF64(Vec<f64>, Sender<Answer<f64>>),
    Send { to: usize, bytes: Vec<u8>, done: Sender<Answer<u8>> },
    Receive { from: usize, length: usize, done: Sender<Answer<u8>> },
    Abort,
}

type Answer<T> = Result<Vec<T>, CollectiveError>;

struct Worker {
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A sum that may not be done yet.
pub struct Pending<T = f32>(Receiver<Answer<T>>);

impl<T> Pending<T> {
    /// Waits for it.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn wait(self) -> Result<Vec<T>, CollectiveError> {
        self.0.recv().unwrap_or(Err(CollectiveError::Gone))
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.count)
    }
}

impl Default for Ranks {
    fn default() -> Self {
        Self::alone()
    }
}

impl Ranks {
    /// One rank, with nobody to talk to.
    pub fn alone() -> Self {
        Self { rank: 0, count: 1, worker: None }
    }

    /// The rank that `open` opens, which talks from a thread of its own: it is opened there, used there alone, and
    /// dropped there.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn new<C: Collective>(
        open: impl FnOnce() -> Result<C, CollectiveError> + Send + 'static,
    ) -> Result<Self, CollectiveError> {
        let (jobs, to_do) = channel();
        let (opened, known) = channel();
        let talk = move || {
            let mut collective = match open() {
                Ok(collective) => collective,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if opened.send(Ok((collective.rank(), collective.count()))).is_ok() {
                to_do.iter().for_each(|job| work(&mut collective, job));
            }
        };
        let thread = std::thread::Builder::new().name("ranks".into()).spawn(talk);
        let thread = thread.map_err(|error| CollectiveError::Start(error.to_string()))?;
        let (rank, count) = known.recv().unwrap_or(Err(CollectiveError::Gone))?;
        let worker = Worker { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)) };
        Ok(Self { rank, count, worker: Some(Arc::new(worker)) })
    }

    /// The rank that this process is of its MPI job; alone where it was not started by a launcher of such jobs.
    ///
    /// # Errors
    /// Several processes, in a build without the feature `mpi`; an MPI that does not start.
    pub fn of_job() -> Result<Self, CollectiveError> {
        match launched() {
            None | Some((_, 1)) => Ok(Self::alone()),
            #[cfg(feature = "mpi")]
            Some(_) => Self::new(crate::mpi::Mpi::open),
            #[cfg(not(feature = "mpi"))]
            Some((rank, count)) => Err(CollectiveError::NoMpi { rank, count }),
        }
    }

    /// This one's number, from 0 on.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.count == 1
    }

    /// Whether this one writes the files that all have in common.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    fn ask<T>(&self, job: impl FnOnce(Sender<Answer<T>>) -> Job) -> Option<Pending<T>> {
        let worker = self.worker.as_ref()?;
        let (done, answer) = channel();
        if let Some(jobs) = &*worker.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            // A thread that is gone has dropped `done`, and the answer says so.
            let _ = jobs.send(job(done));
        }
        Some(Pending(answer))
    }

    /// Begins to add up numbers over the ranks.
    pub fn begin_sum(&self, numbers: Vec<f32>) -> Pending {
        let numbers = match &self.worker {
            Some(_) => return self.ask(|done| Job::Sum(numbers, done)).unwrap_or_else(gone),
            None => numbers,
        };
        let (done, answer) = channel();
        let _ = done.send(Ok(numbers));
        Pending(answer)
    }

    /// Adds up numbers over the ranks: the same bits on all of them.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn sum(&self, numbers: &mut [f32]) -> Result<(), CollectiveError> {
        if !self.is_alone() {
            numbers.copy_from_slice(&self.begin_sum(numbers.to_vec()).wait()?);
        }
        Ok(())
    }

    /// The same in double precision.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn sum_f64(&self, numbers: &mut [f64]) -> Result<(), CollectiveError> {
        if let Some(sum) = self.ask(|done| Job::SumF64(numbers.to_vec(), done)) {
            numbers.copy_from_slice(&sum.wait()?);
        }
        Ok(())
    }

    /// Gives the bytes of rank `from` to the ranks `to`; all ranks call it, with as many bytes. Others keep theirs.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn spread(&self, from: usize, to: &[usize], bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        if self.rank == from {
            for &to in to.iter().filter(|to| **to != from) {
                self.send(to, bytes.clone())?;
            }
        } else if to.contains(&self.rank) {
            return self.receive(from, bytes.len());
        }
        Ok(bytes)
    }

    /// Gives bytes, however many, of rank `from` to all.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn broadcast(&self, from: usize, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError> {
        if self.is_alone() {
            return Ok(bytes);
        }
        let mut length = [if self.rank == from { bytes.len() as f64 } else { 0.0 }];
        self.sum_f64(&mut length)?;
        if self.rank != from {
            return self.receive(from, length[0] as usize);
        }
        for to in (0..self.count).filter(|to| *to != from) {
            self.send(to, bytes.clone())?;
        }
        Ok(bytes)
    }

    /// Gives bytes to another rank, which [`Ranks::receive`]s as many.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn send(&self, to: usize, bytes: Vec<u8>) -> Result<(), CollectiveError> {
        match self.ask(|done| Job::Send { to, bytes, done }) {
            Some(sent) => sent.wait().map(drop),
            None => Err(CollectiveError::Gone),
        }
    }

    /// Takes so many bytes that another rank sends.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn receive(&self, from: usize, length: usize) -> Result<Vec<u8>, CollectiveError> {
        match self.ask(|done| Job::Receive { from, length, done }) {
            Some(received) => received.wait(),
            None => Err(CollectiveError::Gone),
        }
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// As [`Ranks::sum`].
    pub fn wait_for_all(&self) -> Result<(), CollectiveError> {
        self.sum_f64(&mut [0.0])
    }

    /// Leaves the job, which all ranks do at its end. What is asked for later is an error.
    pub fn close(&self) {
        if let Some(worker) = &self.worker {
            worker.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
            worker.join();
        }
    }

    /// Ends the job on all ranks, if there is a way to: what a rank does that cannot go on, since the others would wait
    /// for it for ever. Of MPI this does not return.
    pub fn abort(&self) {
        let Some(worker) = &self.worker else { return };
        if let Some(jobs) = worker.jobs.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = jobs.send(Job::Abort);
        }
        worker.join();
    }
}

fn gone<T>() -> Pending<T> {
    Pending(channel().1)
}

impl Worker {
    fn join(&self) {
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without a sender the thread's list of jobs ends.
        if let Some(jobs) = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take()
            && std::thread::panicking()
        {
            // The others would wait for what this one was about to do.
            let _ = jobs.send(Job::Abort);
        }
        self.join();
    }
}

fn work(collective: &mut impl Collective, job: Job) {
    // Who does not wait for an answer does not want it.
    match job {
        Job::Sum(mut numbers, done) => {
            let answer = collective.sum(&mut numbers).map(|()| numbers);
            let _ = done.send(answer);
        }
        Job::SumF64(mut numbers, done) => {
            let answer = collective.sum_f64(&mut numbers).map(|()| numbers);
            let _ = done.send(answer);
        }
        Job::Send { to, bytes, done } => {
            let _ = done.send(collective.send(to, &bytes).map(|()| Vec::new()));
        }
        Job::Receive { from, length, done } => {
            let mut bytes = vec![0; length];
            let answer = collective.receive(from, &mut bytes).map(|()| bytes);
            let _ = done.send(answer);
        }
        Job::Abort => collective.abort(),
    }
}

/// Rank and count as the launcher has set them, if there was one: OpenMPI's mpirun, PMIx under Slurm with the step's
/// count, MPICH's PMI.
fn launched() -> Option<(usize, usize)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let pairs = [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        // Slurm sets its own in every allocation; PMIx has a rank only where srun was told to join the tasks.
        ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
    ];
    pairs.iter().find_map(|(rank, count)| Some((number(rank)?, number(count)?)))
}
