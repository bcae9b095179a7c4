//! Which places of a canvas take what a pass has chosen for them.

use std::fmt;
use std::str::FromStr;

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

/// What there is to decide by.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Of this pass, one a place.
    pub choices: &'a [Choice],
    /// Of the pass before, if there was one.
    pub previous: &'a [Choice],
    /// The pass, from 1 on.
    pub pass: usize,
    /// The most that there are.
    pub passes: usize,
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
    /// All after the first pass; from then on this share, those places of which the pass before was least sure. With
    /// temperature 0 that is decoding by unrolled argmax (SUNDAE): what is sure stays, the rest is worked
    /// out again from the canvas that it is part of.
    Unsure(f32),
    /// The least uncertain places, as long as their entropies, all but the greatest of them, sum to no more than so many
    /// nats: then the places depend on each other so little that they can be taken together (Ben-Hamu et al.,
    /// "Accelerated sampling from masked diffusion models via entropy bounded unmasking", 2505.24857, equation 8).
    Entropy(f32),
}

/// As people write it: `all`, `share=0.3`, `surest=0.2`, `threshold=0.9`, `top=8`, `unsure=0.3` or `entropy=0.5`.
impl FromStr for Acceptance {
    type Err = String;

    fn from_str(rule: &str) -> Result<Self, String> {
        let (name, value) = rule.split_once('=').unwrap_or((rule, ""));
        let number = || match value.parse::<f32>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(format!("{name} wants a number that is not negative, as in {name}=0.5")),
        };
        match name {
            "all" if value.is_empty() => Ok(Self::All),
            "share" => Ok(Self::Share(number()?)),
            "surest" => Ok(Self::Surest(number()?)),
            "threshold" => Ok(Self::Threshold(number()?)),
            "top" => value.parse().map(Self::Top).map_err(|_| "top wants a count, as in top=8".into()),
            "unsure" => Ok(Self::Unsure(number()?)),
            "entropy" => Ok(Self::Entropy(number()?)),
            _ => Err("give all, share=, surest=, threshold=, top=, unsure= or entropy=".into()),
        }
    }
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "all"),
            Self::Share(share) => write!(f, "share={share}"),
            Self::Surest(share) => write!(f, "surest={share}"),
            Self::Threshold(probability) => write!(f, "threshold={probability}"),
            Self::Top(count) => write!(f, "top={count}"),
            Self::Unsure(share) => write!(f, "unsure={share}"),
            Self::Entropy(bound) => write!(f, "entropy={bound}"),
        }
    }
}

impl Acceptance {
    /// Fills in which places take their choice. `stream` gives each place its random numbers.
    pub fn accept(&self, sight: &Sight, stream: impl Fn(usize) -> Stream, accepted: &mut [bool]) {
        let &Sight { choices, previous, pass, passes } = sight;
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
            Self::Unsure(_) if pass <= 1 => n,
            Self::Unsure(share) => {
                let order = sorted(previous, |choice| choice.log_probability);
                return mark(&order, (share * n as f32).ceil() as usize, accepted);
            }
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
        accept(acceptance, &choices(), &choices(), pass, &mut accepted);
        accepted
    }

    fn accept(acceptance: Acceptance, choices: &[Choice], previous: &[Choice], pass: usize, accepted: &mut [bool]) {
        let sight = Sight { choices, previous, pass, passes: 4 };
        acceptance.accept(&sight, |place| Stream::at_place(1, pass as u64, place as u64), accepted);
    }

    #[test]
    fn by_how_unsure_the_pass_before_was() {
        let (now, mut accepted) = (choices(), [false; 4]);
        accept(Acceptance::Unsure(0.5), &now, &[], 1, &mut accepted);
        assert_eq!(accepted, [true; 4], "there was none");
        let mut previous = now.clone();
        previous.swap(1, 2);
        accept(Acceptance::Unsure(0.5), &now, &previous, 2, &mut accepted);
        assert_eq!(accepted, [true, true, false, false]);
        accept(Acceptance::Unsure(0.0), &now, &previous, 2, &mut accepted);
        assert_eq!(accepted, [false; 4]);
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
    fn rules_are_read_as_they_are_written() {
        for rule in ["all", "share=0.3", "surest=0.2", "threshold=0.9", "top=8", "unsure=0.25", "entropy=0.5"] {
            assert_eq!(rule.parse::<Acceptance>().unwrap().to_string(), rule);
        }
        let error = |rule: &str| rule.parse::<Acceptance>().unwrap_err();
        assert_eq!(error("share=-1"), "share wants a number that is not negative, as in share=0.5");
        assert_eq!(error("share"), error("share=-1"));
        assert_eq!(error("top=2.5"), "top wants a count, as in top=8");
        assert!(error("most").starts_with("give all") && error("all=3") == error("most"));
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
        accept(Acceptance::Top(3), &choices, &[], 1, &mut accepted);
        assert_eq!(accepted, [true, false, true, true]);
    }
}
