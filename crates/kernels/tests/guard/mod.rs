//! Kernels on slices between pages that may not be touched: what reads or writes beyond its slices does not live.
//!
//! Results are compared with those on ordinary memory, which also shows that they do not depend on alignment.

use std::ops::{Deref, DerefMut};
use std::ptr::{NonNull, null_mut};

mod images;
mod tokens;

/// Where a slice meets a page that may not be touched.
#[derive(Clone, Copy, Debug)]
enum Edge {
    /// The page before it.
    Start,
    /// The page after it.
    End,
}

/// A slice with a guard page at one of its edges.
struct Guarded<T> {
    mapping: NonNull<libc::c_void>,
    bytes: usize,
    slice: NonNull<T>,
    len: usize,
}

impl<T: Copy> Guarded<T> {
    fn new(values: &[T], edge: Edge) -> Self {
        // SAFETY: it asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size");
        let size = size_of_val(values);
        let room = size.next_multiple_of(page).max(page);
        let bytes = room + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANON;
        // SAFETY: new memory, wherever the system likes; without access, until some of it is given below.
        let mapping = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        assert!(mapping != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let start = match edge {
            Edge::Start => page,
            Edge::End => page + room - size,
        };
        // SAFETY: all pages of the mapping but the first and the last may be used, and `size` bytes from `start` are
        // on them. The alignment is right, since pages and the size are multiples of it.
        unsafe {
            let answer = libc::mprotect(mapping.byte_add(page), room, libc::PROT_READ | libc::PROT_WRITE);
            assert!(answer == 0, "{}", std::io::Error::last_os_error());
            let slice = mapping.byte_add(start).cast::<T>();
            slice.copy_from_nonoverlapping(values.as_ptr(), values.len());
            let [mapping, slice] = [mapping, slice.cast()].map(|at| NonNull::new(at).expect("mapped memory"));
            Self { mapping, bytes, slice: slice.cast(), len: values.len() }
        }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, which nothing borrows any more.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.bytes) };
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` has written so many values there.
        unsafe { std::slice::from_raw_parts(self.slice.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.slice.as_ptr(), self.len) }
    }
}

/// Runs `kernel(inputs, outputs)`, outputs of the lengths `lens`, on ordinary and on guarded memory.
#[track_caller]
fn check<const I: usize, const O: usize>(
    what: &str,
    inputs: [&[f32]; I],
    lens: [usize; O],
    kernel: impl Fn([&[f32]; I], [&mut [f32]; O]),
) {
    let mut expected = lens.map(|len| vec![0.5f32; len]);
    kernel(inputs, expected.each_mut().map(|output| &mut output[..]));
    for edge in [Edge::Start, Edge::End] {
        let guarded = inputs.map(|input| Guarded::new(input, edge));
        let mut outputs = lens.map(|len| Guarded::new(&vec![0.5f32; len], edge));
        kernel(guarded.each_ref().map(|input| &input[..]), outputs.each_mut().map(|output| &mut output[..]));
        for (output, expected) in outputs.iter().zip(&expected) {
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(output) == bits(expected), "{what} at the {edge:?} of its memory");
        }
    }
}

#[test]
fn a_touch_beyond_the_edge_would_be_noticed() {
    let guarded = Guarded::new(&[1.0f32; 5], Edge::End);
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    assert!((guarded.as_ptr() as usize + 20).is_multiple_of(page));
    let guarded = Guarded::new(&[1.0f32; 5], Edge::Start);
    assert!((guarded.as_ptr() as usize).is_multiple_of(page));
}
