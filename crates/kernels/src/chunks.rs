//! Parallel loops over chunks of a fixed size. A single chunk stays on the calling thread.

use std::marker::PhantomData;

use rayon::prelude::*;

/// Elements of a chunk of an elementwise kernel: 64 KiB, a few of which fit into a second-level cache.
pub(crate) const ELEMENTS: usize = 16 * 1024;

/// Rows of `width` elements that make up about [`ELEMENTS`].
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (ELEMENTS / width.max(1)).max(1)
}

/// Calls `f(start, chunk)` for each chunk of `size` elements of `y`; `start` is the index of its first element.
pub(crate) fn for_each_chunk<T: Send>(y: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if y.len() <= size {
        if !y.is_empty() {
            f(0, y);
        }
    } else {
        y.par_chunks_mut(size).enumerate().for_each(|(index, chunk)| f(index * size, chunk));
    }
}

/// `f(start, chunk)` of each chunk of `size` elements of `y`, in order.
pub(crate) fn map_chunks<T: Send, R: Send>(
    y: &mut [T],
    size: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    if y.len() <= size {
        if y.is_empty() { Vec::new() } else { vec![f(0, y)] }
    } else {
        y.par_chunks_mut(size).enumerate().map(|(index, chunk)| f(index * size, chunk)).collect()
    }
}

/// A slice that several threads write, each other parts of it.
pub(crate) struct Parts<'a, T> {
    data: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

/// The same of numbers, which is what kernels share.
pub(crate) type Shared<'a> = Parts<'a, f32>;

// SAFETY: it stands for the exclusive borrow of a slice whose elements may be sent to other threads; that they write
// different parts is the contract of `slice`.
unsafe impl<T: Send> Send for Parts<'_, T> {}
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// Where element `at` is or would be: not for reading.
    #[inline(always)]
    pub(crate) fn at(&self, at: usize) -> *const T {
        self.data.wrapping_add(at)
    }

    /// `len` elements from `start`.
    ///
    /// # Safety
    /// No other slice of the same elements may be alive.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part of the slice");
        // SAFETY: the part lies within the slice, which is borrowed mutably for 'a, and by the contract no other
        // reference to it exists.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}
