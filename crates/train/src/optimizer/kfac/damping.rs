//! How much damping there is at a step.

use serde::{Deserialize, Serialize};

/// What becomes of the damping from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub enum DampingRule {
    /// It stays.
    #[default]
    Constant,
    /// It is halved every so many steps.
    Decaying {
        /// These.
        half_life: f64,
        /// It is no less than this.
        #[serde(default = "least")]
        least: f64,
    },
    /// It follows how well the step before was foreseen, the reduction ratio `ρ`: it shrinks where that is above 3/4 and
    /// grows where it is below 1/4 (Martens and Grosse, 1503.05671, section 6.5).
    Adaptive {
        /// Steps from one look to the next; of the form `split` only those before an inversion count.
        #[serde(default = "every")]
        every: u64,
        /// It is multiplied by `factor^every`, or divided.
        #[serde(default = "factor")]
        factor: f64,
        /// It is no less than this.
        #[serde(default = "least")]
        least: f64,
        /// And no more.
        #[serde(default = "most")]
        most: f64,
    },
}

fn every() -> u64 {
    5
}

fn factor() -> f64 {
    0.95
}

fn least() -> f64 {
    1e-8
}

fn most() -> f64 {
    1e2
}

impl DampingRule {
    /// The damping of a step, counted from 0, that began as `first` and was `now` at the step before.
    pub(crate) fn at(self, step: u64, first: f64, now: f64) -> f64 {
        match self {
            Self::Constant | Self::Adaptive { .. } => now,
            Self::Decaying { half_life, least } => (first * (-(step as f64) / half_life).exp2()).max(least),
        }
    }

    /// Whether it wants to know what a step did, after so many of them.
    pub(crate) fn asks_at(self, steps: u64) -> bool {
        matches!(self, Self::Adaptive { every, .. } if steps.is_multiple_of(every.max(1)))
    }

    /// The damping after a step of the reduction ratio `ratio`. One that is no number, as of a step that was to do nothing
    /// or that led nowhere, counts as the worst.
    pub(crate) fn adapted(self, now: f64, ratio: f64) -> f64 {
        let Self::Adaptive { every, factor, least, most } = self else { return now };
        let change = factor.powf(every as f64);
        let next = match ratio {
            ratio if ratio > 0.75 => now * change,
            ratio if ratio >= 0.25 => now,
            _ => now / change,
        };
        next.clamp(least, most)
    }

    /// What of it cannot be, if anything.
    pub fn fault(self) -> Option<String> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        match self {
            Self::Constant => None,
            Self::Decaying { half_life, least } => {
                let fits = positive(half_life) && positive(least);
                (!fits).then(|| format!("half_life and least should be positive, are {half_life} and {least}"))
            }
            Self::Adaptive { every: 0, .. } => Some("every is 0".to_owned()),
            Self::Adaptive { factor, least, most, .. } => {
                let fits = factor > 0.0 && factor < 1.0 && positive(least) && most >= least && most.is_finite();
                (!fits).then(|| {
                    format!("factor should be between 0 and 1 and least positive and no more than most, are {factor}, {least} and {most}")
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_ratio() {
        let rule = DampingRule::Adaptive { every: 5, factor: 0.95, least: 1e-3, most: 1.0 };
        let change = 0.95f64.powi(5);
        for (ratio, expected) in [(0.9, 0.1 * change), (0.5, 0.1), (0.2, 0.1 / change), (-3.0, 0.1 / change)] {
            assert!((rule.adapted(0.1, ratio) - expected).abs() < 1e-12, "{ratio}");
        }
        assert!((rule.adapted(0.1, f64::NAN) - 0.1 / change).abs() < 1e-12);
        assert_eq!((rule.adapted(1e-3, 1.0), rule.adapted(1.0, 0.0)), (1e-3, 1.0));
        assert!(rule.asks_at(5) && !rule.asks_at(6) && !DampingRule::Constant.asks_at(5));
        assert_eq!(DampingRule::Constant.adapted(0.1, 0.0), 0.1);
    }

    #[test]
    fn it_is_halved() {
        let rule = DampingRule::Decaying { half_life: 10.0, least: 0.01 };
        assert_eq!((rule.at(0, 0.4, 9.0), rule.at(10, 0.4, 9.0), rule.at(1000, 0.4, 9.0)), (0.4, 0.2, 0.01));
        assert_eq!(DampingRule::Constant.at(10, 0.4, 0.3), 0.3);
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert_eq!(DampingRule::Constant.fault(), None);
        assert!(DampingRule::Decaying { half_life: 0.0, least: 1e-3 }.fault().is_some());
        let rule = |factor, least, most| DampingRule::Adaptive { every: 5, factor, least, most }.fault();
        assert!(rule(0.9, 1e-3, 1.0).is_none() && rule(1.0, 1e-3, 1.0).is_some() && rule(0.9, 2.0, 1.0).is_some());
    }
}
