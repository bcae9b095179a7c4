//! How many passes, and how warm.

/// Passes whose temperature goes in equal steps from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The most that there are.
    pub passes: usize,
    /// Temperature of the first pass; 0: the likeliest token.
    pub first: f32,
    /// Of the last.
    pub last: f32,
}

impl Schedule {
    /// The same temperature all along.
    pub fn constant(passes: usize, temperature: f32) -> Self {
        Self { passes, first: temperature, last: temperature }
    }

    /// Of a pass, the first of which is 1.
    pub fn temperature(&self, pass: usize) -> f32 {
        let way = (pass.max(1) - 1) as f32 / (self.passes.max(2) - 1) as f32;
        self.first + (self.last - self.first) * way.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_first_to_the_last() {
        let schedule = Schedule { passes: 5, first: 0.8, last: 0.4 };
        let all: Vec<f32> = (1..=5).map(|pass| schedule.temperature(pass)).collect();
        assert!(all.iter().zip([0.8, 0.7, 0.6, 0.5, 0.4]).all(|(found, wanted)| (found - wanted).abs() < 1e-6));
        assert_eq!(Schedule::constant(1, 0.3).temperature(1), 0.3);
        assert_eq!(Schedule { passes: 1, first: 0.8, last: 0.4 }.temperature(1), 0.8);
    }
}
