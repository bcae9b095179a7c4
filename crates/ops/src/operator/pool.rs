//! The memory of the operators' outputs, kept from one use to the next.
//!
//! A training step makes the same large tensors each time. Fresh pages for them have to be cleared by the system, which
//! takes a fifth of a step where allocators give large blocks back, and zeros that a kernel overwrites are written in
//! vain. Here a tensor's memory returns to a pool when the tensor goes, and is handed out again as it is: initialised,
//! with whatever it held.

use std::collections::BTreeMap;
use std::mem::{self, MaybeUninit};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, TensorData};
use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Smaller buffers are left to the allocator, which keeps small blocks itself.
const LEAST: usize = 1 << 12;

/// Free buffers by their length, and how much memory there is.
struct Pool {
    free: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Elements in free buffers.
    kept: usize,
    /// Elements handed out.
    used: usize,
    /// The most that was handed out at a time.
    peak: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), kept: 0, used: 0, peak: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    // No code that holds the lock leaves the counts half changed.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `n` rounded up to one of eight sizes per doubling, so that batches of nearly one shape share their buffers.
fn class(n: usize) -> usize {
    let step = (n.next_power_of_two() / 16).max(1);
    n.next_multiple_of(step)
}

/// An output for a kernel to write: `n` numbers of any value.
pub(crate) struct Buffer {
    memory: Vec<f32>,
    len: usize,
}

impl Buffer {
    /// `n` numbers of any value: whoever asks writes them all.
    pub(crate) fn new(n: usize) -> Self {
        if n < LEAST {
            return Self { memory: vec![0.0; n], len: n };
        }
        let size = class(n);
        let mut pool = pool();
        pool.used += size;
        pool.peak = pool.peak.max(pool.used);
        let found = pool.free.get_mut(&size).and_then(Vec::pop);
        if found.is_some() {
            pool.kept -= size;
        }
        let surplus = pool.surplus();
        drop(pool);
        // Given back to the allocator outside the lock.
        drop(surplus);
        Self { memory: found.unwrap_or_else(|| vec![0.0; size]), len: n }
    }

    /// The numbers as a tensor, whose memory comes back here when it goes.
    pub(crate) fn into_tensor(mut self, shape: impl Into<Shape>) -> FlexTensor {
        let shape = shape.into();
        let (memory, len) = (mem::take(&mut self.memory), mem::take(&mut self.len));
        if len < LEAST {
            return FlexTensor::from_data(TensorData::new(memory, shape));
        }
        let bytes = len * size_of::<f32>();
        // SAFETY: all elements of the vector are initialised, and it has at least `len` of them.
        let bytes = unsafe { Bytes::from_controller(Box::new(Pooled(memory)), bytes) };
        FlexTensor::from_data(TensorData::from_bytes(bytes, shape, DType::F32))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[..self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.len >= LEAST {
            give_back(mem::take(&mut self.memory));
        }
    }
}

fn give_back(memory: Vec<f32>) {
    let mut pool = pool();
    pool.used -= memory.len();
    pool.kept += memory.len();
    pool.free.entry(memory.len()).or_default().push(memory);
    let surplus = pool.surplus();
    drop(pool);
    drop(surplus);
}

impl Pool {
    /// Free buffers to be given up, the largest first: with an eighth to spare, the pool holds no more than was in use at its
    /// peak.
    fn surplus(&mut self) -> Vec<Vec<f32>> {
        let mut surplus = Vec::new();
        while self.used + self.kept > self.peak + self.peak / 8 {
            let Some(mut largest) = self.free.last_entry() else { break };
            if let Some(memory) = largest.get_mut().pop() {
                self.kept -= memory.len();
                surplus.push(memory);
            } else {
                largest.remove();
            }
        }
        surplus
    }
}

/// The memory of a tensor.
struct Pooled(Vec<f32>);

impl Drop for Pooled {
    fn drop(&mut self) {
        give_back(mem::take(&mut self.0));
    }
}

impl AllocationController for Pooled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        // Not `Native`: whoever takes the memory out must copy it.
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let bytes = size_of_val(self.0.as_slice());
        // SAFETY: the vector's elements as bytes, borrowed as the vector is. By the trait's contract the caller writes
        // initialised data only, and every pattern of bits is an f32.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), bytes) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        // SAFETY: as above, for reading.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(self.0.as_slice())) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let mut buffer = Buffer::new(LEAST + 1);
        buffer.fill(3.0);
        let place = buffer.as_ptr();
        let tensor = buffer.into_tensor([LEAST + 1]);
        assert_eq!(tensor.as_slice::<f32>().unwrap().len(), LEAST + 1);
        assert_eq!(tensor.as_slice::<f32>().unwrap().as_ptr(), place);
        let copy = tensor.clone();
        drop(tensor);
        assert!(copy.as_slice::<f32>().unwrap().iter().all(|x| *x == 3.0));
    }

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for n in LEAST..LEAST * 4 {
            assert!(class(n) >= n && class(n) <= n + n / 8 + 1 && class(class(n)) == class(n), "{n}");
        }
    }
}
