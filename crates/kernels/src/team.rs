//! Threads that wait awake for small pieces of work.
//!
//! Writing a token takes some thirty products of a few microseconds each. Waking a thread pool for every one of them
//! costs as much as the product; handing it to threads that watch for it costs some tenths of a microsecond. The price
//! is that these threads keep their cores busy for as long as the team lives.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{hint, thread};

use crate::chunks::Parts;

/// The calling thread and its helpers.
pub struct Team<'a> {
    post: &'a Post,
    helpers: usize,
}

type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Where helpers look for work.
#[derive(Default)]
struct Post {
    /// Counts the pieces of work; a change is what helpers wait for.
    round: AtomicUsize,
    /// Helpers that have finished their part of this round.
    finished: AtomicUsize,
    /// This round's work; nothing: the team is dissolved.
    work: UnsafeCell<Option<*const Work<'static>>>,
    /// What a helper panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the team's owner while no round is under way and read by helpers during one; the changes
// of `round` and `finished` order the two. What it points to is `Sync`.
unsafe impl Sync for Post {}

/// Turns of a waiting thread before it offers its core to others: some ten microseconds.
const AWAKE: usize = 4096;

/// Waits until `ready`.
fn wait(ready: impl Fn() -> bool) {
    for _ in 0..AWAKE {
        if ready() {
            return;
        }
        hint::spin_loop();
    }
    while !ready() {
        thread::yield_now();
    }
}

/// Calls `f` with a team of `size` threads, of which this is one.
pub fn with_team<R>(size: usize, f: impl FnOnce(&mut Team) -> R) -> R {
    /// Dissolves the team when `f` ends, in whatever way.
    struct Dissolve<'a>(&'a Post);
    impl Drop for Dissolve<'_> {
        fn drop(&mut self) {
            // SAFETY: no round is under way, since `Team::all` waits for its end even where it panics.
            unsafe { *self.0.work.get() = None };
            self.0.round.fetch_add(1, Ordering::Release);
        }
    }

    let post = &Post::default();
    let helpers = size.saturating_sub(1);
    thread::scope(|scope| {
        for index in 1..=helpers {
            scope.spawn(move || help(post, index));
        }
        let _dissolve = Dissolve(post);
        f(&mut Team { post, helpers })
    })
}

/// A helper's life.
fn help(post: &Post, index: usize) {
    for round in 1.. {
        wait(|| post.round.load(Ordering::Acquire) == round);
        // SAFETY: the owner wrote it before the round began and writes again only after this helper has finished.
        let Some(work) = (unsafe { *post.work.get() }) else { return };
        // SAFETY: the owner keeps what it points to alive until all have finished.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(index) })) {
            *post.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
        }
        post.finished.fetch_add(1, Ordering::Release);
    }
}

impl Team<'_> {
    /// Threads, the calling one included.
    pub fn size(&self) -> usize {
        self.helpers + 1
    }

    /// Calls `work(index)` on every thread at once, with indices below [`size`](Team::size), and returns when all have
    /// returned.
    ///
    /// # Panics
    /// Where one of the calls does.
    pub fn all(&mut self, work: impl Fn(usize) + Sync) {
        let post = self.post;
        let pointer: *const Work = &work;
        // SAFETY: only the lifetime changes, and no helper uses the pointer after this call, which waits for them.
        let pointer = unsafe { std::mem::transmute::<*const Work, *const Work<'static>>(pointer) };
        post.finished.store(0, Ordering::Relaxed);
        // SAFETY: no round is under way: all helpers had finished when this was last called.
        unsafe { *post.work.get() = Some(pointer) };
        post.round.fetch_add(1, Ordering::Release);
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait(|| post.finished.load(Ordering::Acquire) == self.helpers);
        let of_helper = post.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(panic) = own.err().or(of_helper) {
            resume_unwind(panic);
        }
    }

    /// Calls `work(range, part)` for consecutive parts of `y`, one a thread and about equally many `unit`s long; `range`
    /// is where the part is in `y`.
    pub fn split<T: Send>(&mut self, y: &mut [T], unit: usize, work: impl Fn(Range<usize>, &mut [T]) + Sync) {
        let (size, len, units) = (self.size(), y.len(), y.len().div_ceil(unit.max(1)));
        let y = Parts::new(y);
        self.all(|index| {
            let [start, end] = [index, index + 1].map(|index| (index * units / size * unit).min(len));
            if start < end {
                // SAFETY: the threads' parts have no element in common.
                work(start..end, unsafe { y.slice(start, end - start) });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_takes_its_part_of_every_piece() {
        for size in [0, 1, 2, 5] {
            with_team(size, |team| {
                assert_eq!(team.size(), size.max(1));
                let mut total = vec![0usize; 37];
                for round in 0..200 {
                    team.split(&mut total, 4, |range, part| {
                        assert!(range.start % 4 == 0 && range.len() == part.len());
                        part.iter_mut().zip(range).for_each(|(total, place)| *total += place * round);
                    });
                }
                assert!(total.iter().enumerate().all(|(place, total)| *total == place * 199 * 100));
                team.split(&mut [0; 0], 4, |_, _| unreachable!("nothing to split"));
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        with_team(3, |team| {
            for culprit in 0..3 {
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    team.all(|index| assert!(index != culprit, "thread {index} fails"));
                }));
                let message = panic.expect_err("a panic");
                assert_eq!(message.downcast_ref::<String>(), Some(&format!("thread {culprit} fails")));
            }
            team.all(|_| ());
        });
        let panic = catch_unwind(|| with_team(2, |_| panic!("outside of a piece")));
        assert!(panic.is_err());
    }
}
