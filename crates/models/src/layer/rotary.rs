//! How fast queries and keys turn with their positions, as published configurations say it.

use std::f64::consts::TAU;

use lapidary_kernels::rotary::Rotary;

/// The frequencies of a head's planes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryConfig {
    /// Of the angles, as in [`Rotary::new`].
    pub base: f64,
    /// What a longer context than that of the first training does to them.
    pub scaling: RotaryScaling,
}

/// See [`RotaryConfig`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// Nothing.
    None,
    /// All are divided by this (Chen et al., 2306.15595).
    Linear(f64),
    /// Llama 3.1's: the slow ones are divided by `factor`, the fast ones stay, those between are a mixture. Slow is what
    /// turns less than `low` times within the `original` context, fast what turns more than `high` times.
    Llama3 {
        /// What slow frequencies are divided by.
        factor: f64,
        /// Turns below which a frequency is slow.
        low: f64,
        /// Turns above which it is fast.
        high: f64,
        /// Tokens of the first training's context.
        original: f64,
    },
}

impl RotaryConfig {
    /// With nothing scaled.
    pub fn new(base: f64) -> Self {
        Self { base, scaling: RotaryScaling::None }
    }

    /// For heads of an even width.
    pub fn rotary(&self, head_width: usize) -> Rotary {
        let rotary = Rotary::new(self.base, head_width);
        match self.scaling {
            RotaryScaling::None => rotary,
            RotaryScaling::Linear(factor) => rotary.scaled(factor),
            RotaryScaling::Llama3 { factor, low, high, original } => {
                let scaled = |frequency: &f64| {
                    let turns = original * frequency / TAU;
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (kept + (1.0 - kept) / factor)
                };
                Rotary { frequencies: rotary.frequencies.iter().map(scaled).collect(), ..rotary }
            }
        }
    }
}
