//! Threads that work in step: each does its part of one small piece of work after another, and none begins the next
//! piece before all have finished the one before.
//!
//! Writing a token takes some forty products of a few microseconds each. Handing every one of them to a thread pool
//! costs as much as the product; a barrier of threads that wait awake costs a tenth of a microsecond.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{hint, panic, thread};

/// One of the threads of a team.
pub struct Member<'a> {
    index: usize,
    barrier: &'a Barrier,
}

struct Barrier {
    size: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// A member panicked: the others would wait for it for ever.
    failed: AtomicBool,
}

/// Turns of a waiting thread before it offers its core to others: some ten microseconds.
const AWAKE: usize = 4096;

/// Calls `f` on `size` threads at once, of which this is one, and returns what it returned here.
///
/// # Panics
/// Where a member panics, all do.
pub fn work_in_step<R>(size: usize, f: impl Fn(&Member) -> R + Sync) -> R {
    let size = size.max(1);
    let barrier =
        Barrier { size, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0), failed: AtomicBool::new(false) };
    let (f, barrier) = (&f, &barrier);
    thread::scope(|scope| {
        for index in 1..size {
            scope.spawn(move || {
                Guarded(barrier).run(|| f(&Member { index, barrier }));
            });
        }
        Guarded(barrier).run(|| f(&Member { index: 0, barrier }))
    })
}

/// Tells the others if the thread panics.
struct Guarded<'a>(&'a Barrier);

impl Guarded<'_> {
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
}

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::Release);
        }
    }
}

impl Member<'_> {
    /// 0 on the thread that called [`work_in_step`].
    pub fn index(&self) -> usize {
        self.index
    }

    /// This member's part of `n` pieces of work: consecutive, and as many as the others' but for one.
    pub fn share(&self, n: usize) -> Range<usize> {
        let size = self.barrier.size;
        self.index * n / size..(self.index + 1) * n / size
    }

    /// Returns when every member has called it; what each wrote before is then seen by all.
    pub fn wait(&self) {
        let Barrier { size, arrived, round, failed } = self.barrier;
        let current = round.load(Ordering::Relaxed);
        if arrived.fetch_add(1, Ordering::AcqRel) + 1 == *size {
            arrived.store(0, Ordering::Relaxed);
            round.store(current.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut turns = 0;
        while round.load(Ordering::Acquire) == current {
            if failed.load(Ordering::Acquire) {
                panic::panic_any("another thread of the team panicked");
            }
            turns += 1;
            if turns < AWAKE {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_runs_ahead() {
        let done = AtomicUsize::new(0);
        let rounds = work_in_step(3, |member| {
            for round in 0..200 {
                done.fetch_add(1, Ordering::Relaxed);
                member.wait();
                assert_eq!(done.load(Ordering::Relaxed), 3 * (round + 1));
                member.wait();
            }
            200
        });
        assert_eq!(rounds, 200);
    }

    #[test]
    fn shares_cover_everything_once() {
        for size in 1..5 {
            let covered = std::sync::Mutex::new(Vec::new());
            work_in_step(size, |member| covered.lock().unwrap().extend(member.share(7)));
            let mut covered = covered.into_inner().unwrap();
            covered.sort();
            assert_eq!(covered, (0..7).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_all() {
        let outcome = panic::catch_unwind(|| {
            work_in_step(2, |member| {
                assert!(member.index() == 0, "the second member fails");
                member.wait();
            })
        });
        assert!(outcome.is_err());
    }
}
