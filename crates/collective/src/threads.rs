//! Ranks that are threads of one process.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::{Collective, CollectiveError};

/// A rank among threads: channels to all others and from them.
pub struct Threads {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// So many ranks, to be given to as many threads. Where one is dropped the others' calls are errors.
pub fn threads(count: usize) -> Vec<Threads> {
    let mut ranks: Vec<Threads> = (0..count).map(|rank| Threads { rank, to: Vec::new(), from: Vec::new() }).collect();
    // Each receives from the others in their order.
    for from in 0..count {
        for to in 0..count {
            let (sender, receiver) = channel();
            ranks[from].to.push(sender);
            ranks[to].from.push(receiver);
        }
    }
    ranks
}

impl Threads {
    /// Adds up what all ranks have, in the order of the ranks, so that the sum has the same bits everywhere.
    fn add<const N: usize, T: Copy>(
        &mut self,
        numbers: &mut [T],
        to_bytes: impl Fn(T) -> [u8; N],
        from_bytes: impl Fn([u8; N]) -> T,
        add: impl Fn(T, T) -> T,
    ) -> Result<(), CollectiveError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| to_bytes(*number)).collect();
        for to in &self.to {
            to.send(bytes.clone()).map_err(|_| CollectiveError::Gone)?;
        }
        for (number, from) in self.from.iter().enumerate() {
            let bytes = from.recv().map_err(|_| CollectiveError::Gone)?;
            let (others, _) = bytes.as_chunks::<N>();
            if others.len() != numbers.len() {
                return Err(CollectiveError::Gone);
            }
            for (sum, other) in numbers.iter_mut().zip(others) {
                let other = from_bytes(*other);
                *sum = if number == 0 { other } else { add(*sum, other) };
            }
        }
        Ok(())
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.to.len()
    }

    fn sum(&mut self, numbers: &mut [f32]) -> Result<(), CollectiveError> {
        self.add(numbers, f32::to_le_bytes, f32::from_le_bytes, |a, b| a + b)
    }

    fn sum_f64(&mut self, numbers: &mut [f64]) -> Result<(), CollectiveError> {
        self.add(numbers, f64::to_le_bytes, f64::from_le_bytes, |a, b| a + b)
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CollectiveError> {
        self.to[to].send(bytes.to_vec()).map_err(|_| CollectiveError::Gone)
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), CollectiveError> {
        let received = self.from[from].recv().map_err(|_| CollectiveError::Gone)?;
        if received.len() != bytes.len() {
            return Err(CollectiveError::Gone);
        }
        bytes.copy_from_slice(&received);
        Ok(())
    }
}
