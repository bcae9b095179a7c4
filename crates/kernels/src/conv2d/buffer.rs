//! Memory that a thread keeps, and windows of images in it.

use std::cell::Cell;

/// Gives `f` a buffer of `len` numbers that the thread keeps from one kernel to the next: fresh pages cost as much as
/// filling them.
pub(super) fn with_buffer<R>(
    buffer: &'static std::thread::LocalKey<Cell<Vec<f32>>>,
    len: usize,
    f: impl FnOnce(&mut [f32]) -> R,
) -> R {
    // Taken, not borrowed: while `f` waits for other threads this one may start on another task.
    let mut memory = buffer.take();
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    let result = f(&mut memory[..len]);
    buffer.set(memory);
    result
}

/// Copies the window that begins at `origin` of an image `[height, width, depth]`, zero outside, to `window`, in rows of
/// `pitch` numbers; what is left of a row behind its last pixel is not to be read.
#[inline(always)]
pub(super) fn copy_window(
    image: &[f32],
    [height, width, depth]: [usize; 3],
    origin: [isize; 2],
    pitch: usize,
    window: &mut [f32],
) {
    if pitch == 0 {
        return;
    }
    // The columns of the image that the window shows, and where it shows them.
    let left = origin[1].clamp(0, width as isize);
    let right = (origin[1] + (pitch / depth) as isize).clamp(left, width as isize);
    let at = if left == right { 0 } else { (left - origin[1]) as usize * depth };
    let (left, len) = (left as usize, (right - left) as usize * depth);
    for (row, window) in window.chunks_exact_mut(pitch).enumerate() {
        match usize::try_from(origin[0] + row as isize) {
            Ok(row) if row < height => {
                window[..at].fill(0.0);
                window[at..at + len].copy_from_slice(&image[(row * width + left) * depth..][..len]);
                window[at + len..].fill(0.0);
            }
            _ => window.fill(0.0),
        }
    }
}
