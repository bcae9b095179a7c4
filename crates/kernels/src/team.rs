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
use crate::simd::prefetch;

/// The calling thread and its helpers.
pub struct Team<'a> {
    post: &'a Post,
    helpers: usize,
    /// Rounds so far.
    round: usize,
}

/// Memory that a thread is about to read, which it asks for while it waits for the others.
///
/// The memory's rate is what limits the writing of a token. While threads wait for each other, nothing would come from
/// it.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// Where the next line is asked for, and how far behind it that of the next place is.
    next: *const u8,
    apart: usize,
    places: usize,
    /// The place that is next, and the lines that it and those behind it still have to ask for.
    place: usize,
    lines: usize,
}

impl Ahead {
    /// No memory.
    pub const NOTHING: Self = Self { next: std::ptr::null(), apart: 0, places: 0, place: 0, lines: 0 };

    /// `x`, which is read in several places at once, each `apart` elements behind the last: the first of every place, as
    /// much as does not drive anything else from the cache.
    pub fn of<T>(x: &[T], apart: usize) -> Self {
        const MOST: usize = 32 << 10;
        let apart = apart.min(x.len()).max(1);
        let places = x.len().div_ceil(apart);
        let lines = (apart * size_of::<T>()).div_ceil(LINE).min(MOST / LINE / places.max(1));
        Self { next: x.as_ptr().cast(), apart: apart * size_of::<T>(), places, place: 0, lines }
    }

    /// Asks for a line more; whether there was one.
    fn ask(&mut self) -> bool {
        if self.lines == 0 || self.places == 0 {
            return false;
        }
        prefetch(self.next.wrapping_add(self.place * self.apart));
        self.place += 1;
        if self.place == self.places {
            (self.place, self.lines, self.next) = (0, self.lines - 1, self.next.wrapping_add(LINE));
        }
        true
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

type Work<'a> = dyn Fn(usize) -> Ahead + Sync + 'a;

/// Where helpers look for work.
#[derive(Default)]
struct Post {
    call: Apart<Call>,
    /// Parts that helpers have finished, of all rounds so far.
    finished: Apart<AtomicUsize>,
    /// What a helper panicked with.
    panic: Apart<Mutex<Option<Box<dyn Any + Send>>>>,
}

/// What the owner writes.
#[derive(Default)]
struct Call {
    /// Counts the pieces of work; a change is what helpers wait for.
    round: AtomicUsize,
    /// This round's work; nothing: the team is dissolved.
    work: UnsafeCell<Option<*const Work<'static>>>,
}

/// In cache lines of its own, so that writing it does not take from other threads what they are looking at. Two, since
/// processors fetch pairs.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

// SAFETY: `call.work` is written by the team's owner while no round is under way and read by helpers during one; the changes
// of `round` and `finished` order the two. What it points to is `Sync`.
unsafe impl Sync for Post {}

/// Turns of a waiting thread before it offers its core to others: some ten microseconds.
const AWAKE: usize = 4096;

/// Waits until `ready`, and asks for what is `ahead` meanwhile.
fn wait(mut ahead: Ahead, ready: impl Fn() -> bool) {
    for _ in 0..AWAKE {
        if ready() {
            return;
        }
        if !ahead.ask() {
            hint::spin_loop();
        }
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
            unsafe { *self.0.call.0.work.get() = None };
            self.0.call.0.round.fetch_add(1, Ordering::Release);
        }
    }

    let post = &Post::default();
    let helpers = size.saturating_sub(1);
    thread::scope(|scope| {
        for index in 1..=helpers {
            scope.spawn(move || help(post, index));
        }
        let _dissolve = Dissolve(post);
        f(&mut Team { post, helpers, round: 0 })
    })
}

/// A helper's life.
fn help(post: &Post, index: usize) {
    let mut ahead = Ahead::NOTHING;
    for round in 1.. {
        wait(ahead, || post.call.0.round.load(Ordering::Acquire) == round);
        // SAFETY: the owner wrote it before the round began and writes again only after this helper has finished.
        let Some(work) = (unsafe { *post.call.0.work.get() }) else { return };
        // SAFETY: the owner keeps what it points to alive until all have finished.
        ahead = catch_unwind(AssertUnwindSafe(|| unsafe { (*work)(index) })).unwrap_or_else(|panic| {
            *post.panic.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
            Ahead::NOTHING
        });
        post.finished.0.fetch_add(1, Ordering::Release);
    }
}

impl Team<'_> {
    /// Threads, the calling one included.
    pub fn size(&self) -> usize {
        self.helpers + 1
    }

    /// Calls `work(index)` on every thread at once, with indices below [`size`](Team::size), and returns when all have
    /// returned. What `work` returns is what its thread reads in the next call.
    ///
    /// # Panics
    /// Where one of the calls does.
    pub fn all(&mut self, work: impl Fn(usize) -> Ahead + Sync) {
        let post = self.post;
        let pointer: *const Work = &work;
        // SAFETY: only the lifetime changes, and no helper uses the pointer after this call, which waits for them.
        let pointer = unsafe { std::mem::transmute::<*const Work, *const Work<'static>>(pointer) };
        // SAFETY: no round is under way: all helpers had finished when this was last called.
        unsafe { *post.call.0.work.get() = Some(pointer) };
        self.round += 1;
        post.call.0.round.store(self.round, Ordering::Release);
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait(*own.as_ref().unwrap_or(&Ahead::NOTHING), || {
            post.finished.0.load(Ordering::Acquire) == self.round * self.helpers
        });
        let of_helper = post.panic.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        if let Some(panic) = own.err().or(of_helper) {
            resume_unwind(panic);
        }
    }

    /// Calls `work(range, part)` for consecutive parts of `y`, one a thread and about equally many `unit`s long; `range`
    /// is where the part is in `y`. `ahead(index)` is what thread `index` reads in the next call.
    pub fn split<T: Send>(
        &mut self,
        y: &mut [T],
        unit: usize,
        ahead: impl Fn(usize) -> Ahead + Sync,
        work: impl Fn(Range<usize>, &mut [T]) + Sync,
    ) {
        let (size, len) = (self.size(), y.len());
        let y = Parts::new(y);
        self.all(|index| {
            let range = part(len, unit, index, size);
            if !range.is_empty() {
                // SAFETY: the threads' parts have no element in common.
                work(range.clone(), unsafe { y.slice(range.start, range.len()) });
            }
            ahead(index)
        });
    }
}

/// The part of `len` things that thread `index` of `size` takes in [`Team::split`].
pub fn part(len: usize, unit: usize, index: usize, size: usize) -> Range<usize> {
    let units = len.div_ceil(unit.max(1));
    let [start, end] = [index, index + 1].map(|index| (index * units / size.max(1) * unit).min(len));
    start..end
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
                    team.split(
                        &mut total,
                        4,
                        |_| Ahead::NOTHING,
                        |range, part| {
                            assert!(range.start % 4 == 0 && range.len() == part.len());
                            part.iter_mut().zip(range).for_each(|(total, place)| *total += place * round);
                        },
                    );
                }
                assert!(total.iter().enumerate().all(|(place, total)| *total == place * 199 * 100));
                team.split(&mut [0; 0], 4, |_| Ahead::NOTHING, |_, _| unreachable!("nothing to split"));
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_goes_on() {
        with_team(3, |team| {
            for culprit in 0..3 {
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    team.all(|index| {
                        assert!(index != culprit, "thread {index} fails");
                        Ahead::NOTHING
                    });
                }));
                let message = panic.expect_err("a panic");
                assert_eq!(message.downcast_ref::<String>(), Some(&format!("thread {culprit} fails")));
            }
            team.all(|_| Ahead::NOTHING);
        });
        let panic = catch_unwind(|| with_team(2, |_| panic!("outside of a piece")));
        assert!(panic.is_err());
    }
}
