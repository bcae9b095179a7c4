//! Progress of long work: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// Shows how far a piece of work is and how long it will take.
pub struct Progress {
    bar: ProgressBar,
    name: String,
    begun: Instant,
    first: u64,
    last_line: Instant,
    terminal: bool,
}

impl Progress {
    /// Work of `total` steps of which `done` were done before.
    pub fn new(name: &str, total: u64, done: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_position(done);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {msg} {eta} left") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        let now = Instant::now();
        Self { bar, name: name.to_owned(), begun: now, first: done, last_line: now, terminal }
    }

    /// `done` steps are done; `message` says where things stand.
    pub fn set(&mut self, done: u64, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.set_position(done);
        if !self.terminal && self.last_line.elapsed() >= LINE_EVERY {
            self.line(done, message);
        }
    }

    /// The work is done.
    pub fn finish(mut self, message: &str) {
        self.bar.finish_and_clear();
        let total = self.bar.length().unwrap_or_default();
        self.line(total, message);
    }

    fn line(&mut self, done: u64, message: &str) {
        self.last_line = Instant::now();
        let total = self.bar.length().unwrap_or_default();
        let elapsed = self.begun.elapsed();
        let left = if done > self.first && done < total {
            let seconds = elapsed.as_secs_f64() / (done - self.first) as f64 * (total - done) as f64;
            format!(", {} left", clock(seconds))
        } else {
            String::new()
        };
        eprintln!("{} {done}/{total} {message} [{}{left}]", self.name, clock(elapsed.as_secs_f64()));
    }
}

/// Minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}
