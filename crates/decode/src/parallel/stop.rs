//! When a canvas is written.

use lapidary_kernels::choice::Choice;

/// What ends the passes before the last.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Stop {
    /// Nothing.
    #[default]
    Never,
    /// A pass that changes no token and would not have changed one: with the likeliest tokens, no pass after it would.
    Stable,
    /// The same, and a mean entropy of the choices below so many nats.
    Sure(f32),
}

impl Stop {
    /// Whether a pass that has led from one canvas to another was the last that is needed.
    pub fn is_enough(&self, before: &[u32], after: &[u32], choices: &[Choice]) -> bool {
        let agrees = |((before, after), choice): ((&u32, &u32), &Choice)| before == after && *after == choice.token;
        // Places that were left alone count as settled only if the choice is what they hold.
        let stable = || before.iter().zip(after).zip(choices).all(agrees);
        match self {
            Self::Never => false,
            Self::Stable => stable(),
            Self::Sure(bound) => {
                let entropy = choices.iter().map(|choice| f64::from(choice.entropy)).sum::<f64>();
                entropy < f64::from(*bound) * choices.len() as f64 && stable()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_is_when_nothing_changes_and_nothing_would() {
        let choices = [1, 2].map(|token| Choice { token, log_probability: -0.1, entropy: 0.2 });
        for stop in [Stop::Stable, Stop::Sure(0.3)] {
            assert!(stop.is_enough(&[1, 2], &[1, 2], &choices));
            assert!(!stop.is_enough(&[1, 3], &[1, 2], &choices), "a place has changed");
            assert!(!stop.is_enough(&[1, 3], &[1, 3], &choices), "a place would change");
        }
        assert!(!Stop::Sure(0.1).is_enough(&[1, 2], &[1, 2], &choices), "too unsure");
        assert!(!Stop::Never.is_enough(&[1, 2], &[1, 2], &choices));
    }
}
