//! Learning rates as functions of the step.

use serde::{Deserialize, Serialize};

/// Linear warm-up to the peak, then linear decay to zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The largest rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all; the rate after the last is zero.
    pub total: u64,
}

impl Schedule {
    /// A warm-up over a share of the steps, between 0 and 1.
    pub fn new(peak: f64, warmup_share: f64, total: u64) -> Self {
        Self { peak, warmup: (total as f64 * warmup_share).round() as u64, total }
    }

    /// The rate of a step, counted from 0: `get_linear_schedule_with_warmup` of `transformers`.
    pub fn rate(&self, step: u64) -> f64 {
        let share = if step < self.warmup {
            step as f64 / self.warmup.max(1) as f64
        } else {
            self.total.saturating_sub(step) as f64 / (self.total - self.warmup.min(self.total)).max(1) as f64
        };
        self.peak * share
    }
}
