//! Learning rates as functions of the step.

use serde::{Deserialize, Serialize};

/// What becomes of the rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It falls to zero in a straight line.
    #[default]
    Linear,
    /// It falls to zero along half a wave of the cosine (Loshchilov and Hutter, 1608.03983, eq. 5).
    Cosine,
    /// It is a tenth after 40 % of all steps, and a hundredth after 80 %.
    Steps,
    /// It stays.
    Constant,
}

/// Linear warm-up to the peak, then decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The largest rate.
    pub peak: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// After the warm-up.
    #[serde(default)]
    pub decay: Decay,
}

impl Schedule {
    /// A warm-up over a share of the steps, between 0 and 1.
    pub fn new(peak: f64, warmup_share: f64, total: u64) -> Self {
        Self { peak, warmup: (total as f64 * warmup_share).round() as u64, total, decay: Decay::Linear }
    }

    /// The same with another decay.
    pub fn with_decay(self, decay: Decay) -> Self {
        Self { decay, ..self }
    }

    /// The rate of a step, counted from 0; warm-up and linear decay are `get_linear_schedule_with_warmup` of
    /// `transformers`.
    pub fn rate(&self, step: u64) -> f64 {
        let share = if step < self.warmup {
            step as f64 / self.warmup.max(1) as f64
        } else {
            let left =
                self.total.saturating_sub(step) as f64 / (self.total - self.warmup.min(self.total)).max(1) as f64;
            match self.decay {
                Decay::Linear => left,
                Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - left)).cos()),
                Decay::Steps if 10 * step >= 8 * self.total => 0.01,
                Decay::Steps if 10 * step >= 4 * self.total => 0.1,
                Decay::Steps | Decay::Constant => 1.0,
            }
        };
        self.peak * share
    }
}
