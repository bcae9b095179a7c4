//! Which places of a canvas take what a pass has chosen for them.

use lapidary_kernels::choice::Choice;
use lapidary_kernels::rng::Stream;

/// What happens to places that do not take their choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rest {
    /// They stay as they are.
    #[default]
    Keep,
    /// They become random tokens again, except after the last pass, where they take their choice.
    Noise,
}

/// Which places take their choice.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Acceptance {
    /// All of them.
    #[default]
    All,
    /// Each with this probability, whatever its choice (SUNDAE, 2112.06749, section 2.3: a share of the places, so that
    /// not all change at once).
    Share(f32),
    /// The surest places: of the canvas this share after the first pass, all after the last, in equal steps between.
    Surest(f32),
    /// Choices of at least this probability, and the surest one in any case.
    Threshold(f32),
    /// So many of the surest.
    Top(usize),
    /// The least uncertain places, as long as their entropies, all but the greatest of them, sum to no more than so many
    /// nats: then the places depend on each other so little that they can be taken together (Ben-Hamu et al.,
    /// "Accelerated sampling from masked diffusion models via entropy bounded unmasking", 2505.24857, equation 8).
    Entropy(f32),
}

impl Acceptance {
    /// Fills in which places of pass `pass` of `passes` take their choice. `stream` gives each place its random numbers.
    pub fn accept(
        &self,
        choices: &[Choice],
        pass: usize,
        passes: usize,
        stream: impl Fn(usize) -> Stream,
        accepted: &mut [bool],
    ) {
        let n = choices.len();
        let count = match *self {
            Self::All => n,
            Self::Share(share) => {
                accepted
                    .iter_mut()
                    .enumerate()
                    .for_each(|(place, accepted)| *accepted = stream(place).uniform() < share);
                return;
            }
            Self::Surest(first) => {
                let way = (pass.max(1) - 1) as f32 / (passes.max(2) - 1) as f32;
                let share = if pass == passes { 1.0 } else { first + (1.0 - first) * way };
                (share * n as f32).ceil() as usize
            }
            Self::Threshold(probability) => {
                choices.iter().filter(|choice| choice.log_probability.exp() >= probability).count().max(1)
            }
            Self::Top(count) => count,
            Self::Entropy(bound) => {
                let order = sorted(choices, |choice| choice.entropy);
                let mut sum = 0.0;
                let within = |&&place: &&usize| {
                    // The sum of all before this one, which is the greatest so far.
                    let fits = sum <= bound;
                    sum += choices[place].entropy;
                    fits
                };
                let count = order.iter().take_while(within).count();
                return mark(&order, count, accepted);
            }
        };
        mark(&sorted(choices, |choice| -choice.log_probability), count, accepted);
    }
}

/// Places in the order of a number, of equal ones the earlier first, those without a number last.
fn sorted(choices: &[Choice], number: impl Fn(&Choice) -> f32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    let key = |place: &usize| {
        let number = number(&choices[*place]);
        if number.is_nan() { f32::INFINITY } else { number }
    };
    order.sort_by(|a, b| key(a).total_cmp(&key(b)));
    order
}

/// The first `count` of an order.
fn mark(order: &[usize], count: usize, accepted: &mut [bool]) {
    accepted.fill(false);
    order.iter().take(count).for_each(|place| accepted[*place] = true);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Vec<Choice> {
        let of = |probability: f32, entropy| Choice { token: 0, log_probability: probability.ln(), entropy };
        vec![of(0.5, 0.3), of(0.95, 0.05), of(0.2, 0.9), of(0.91, 0.1)]
    }

    fn accepted(acceptance: Acceptance, pass: usize) -> Vec<bool> {
        let mut accepted = vec![true; 4];
        acceptance.accept(&choices(), pass, 4, |place| Stream::at_place(1, pass as u64, place as u64), &mut accepted);
        accepted
    }

    #[test]
    fn by_how_sure_the_choice_is() {
        assert_eq!(accepted(Acceptance::All, 1), [true; 4]);
        assert_eq!(accepted(Acceptance::Top(2), 1), [false, true, false, true]);
        assert_eq!(accepted(Acceptance::Top(9), 1), [true; 4]);
        assert_eq!(accepted(Acceptance::Threshold(0.9), 1), [false, true, false, true]);
        assert_eq!(accepted(Acceptance::Threshold(0.99), 1), [false, true, false, false], "one in any case");
        assert_eq!(accepted(Acceptance::Surest(0.25), 1), [false, true, false, false]);
        assert_eq!(accepted(Acceptance::Surest(0.25), 2), [false, true, false, true]);
        assert_eq!(accepted(Acceptance::Surest(0.25), 4), [true; 4]);
    }

    #[test]
    fn by_the_sum_of_entropies() {
        assert_eq!(accepted(Acceptance::Entropy(0.0), 1), [false, true, false, false]);
        assert_eq!(accepted(Acceptance::Entropy(0.1), 1), [false, true, false, true]);
        assert_eq!(accepted(Acceptance::Entropy(0.2), 1), [true, true, false, true]);
        assert_eq!(accepted(Acceptance::Entropy(9.0), 1), [true; 4]);
    }

    #[test]
    fn a_share_by_chance() {
        assert_eq!(accepted(Acceptance::Share(0.0), 1), [false; 4]);
        assert_eq!(accepted(Acceptance::Share(1.0), 1), [true; 4]);
        let count: usize =
            (0..500).map(|pass| accepted(Acceptance::Share(0.3), pass).iter().filter(|a| **a).count()).sum();
        assert!((500..700).contains(&count), "{count} of 2000");
        assert_eq!(accepted(Acceptance::Share(0.3), 7), accepted(Acceptance::Share(0.3), 7));
    }

    #[test]
    fn places_without_a_number_come_last() {
        let mut choices = choices();
        choices[1] = Choice { token: 0, log_probability: f32::NAN, entropy: f32::NAN };
        let mut accepted = [false; 4];
        Acceptance::Top(3).accept(&choices, 1, 2, |_| Stream::new(0, 0), &mut accepted);
        assert_eq!(accepted, [true, false, true, true]);
    }
}
