//! How long the text on a canvas is to be.
//!
//! A text ends with a token of its own, and padding fills the canvas. Where each place takes its likeliest token, so does
//! the end: a model that gives ten lengths a tenth each, and padding six tenths at the fifth place, writes four words, for
//! any text. The first pass knows better. Its probability that a place belongs to the text is that the text is longer than
//! the place's number, so that these sum to the length that is to be expected.

use lapidary_kernels::rng::Stream;

/// The tokens that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Stands behind the last token of the text.
    pub end: u32,
    /// Stands at all places behind that.
    pub padding: u32,
}

/// What decides where a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Length {
    /// Each pass anew, as with any other token.
    #[default]
    Written,
    /// The first pass: it is the mean of the lengths by their probability.
    Expected(Ending),
    /// The first pass: it is drawn from the lengths by their probability, another one for each seed.
    Drawn(Ending),
}

impl Length {
    /// Tokens of the text by the logits `[N, V]` of the first pass, `None` if that is not for it to say. `N`: the text
    /// does not end on this canvas.
    pub fn decide(&self, logits: &[f32], vocabulary: usize, mut stream: Stream) -> Option<usize> {
        let (ending, drawn) = match self {
            Self::Written => return None,
            Self::Expected(ending) => (ending, false),
            Self::Drawn(ending) => (ending, true),
        };
        let places = logits.chunks_exact(vocabulary);
        let of_text = places.map(|place| 1.0 - probability(place, &[ending.end, ending.padding]));
        if !drawn {
            return Some(of_text.sum::<f64>().round() as usize);
        }
        // A length is greater than a place's number with the probability of the place: places above a uniform draw.
        let draw = f64::from(stream.uniform());
        Some(of_text.filter(|longer| *longer > draw).count())
    }

    /// Leaves each place the tokens that it can have in a text of so many: none that ends it before, only such behind.
    pub fn hold(&self, logits: &mut [f32], vocabulary: usize, length: usize) {
        let (Self::Expected(ending) | Self::Drawn(ending)) = self else { return };
        for (place, logits) in logits.chunks_exact_mut(vocabulary).enumerate() {
            if place < length {
                [ending.end, ending.padding].iter().for_each(|token| logits[*token as usize] = f32::NEG_INFINITY);
            } else {
                logits.fill(f32::NEG_INFINITY);
                logits[if place == length { ending.end } else { ending.padding } as usize] = 0.0;
            }
        }
    }
}

/// Of some tokens together, by the logits of a place.
fn probability(logits: &[f32], tokens: &[u32]) -> f64 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weight = |logit: f32| (f64::from(logit) - highest).exp();
    let of_tokens: f64 =
        tokens.iter().filter_map(|token| logits.get(*token as usize)).map(|logit| weight(*logit)).sum();
    of_tokens / logits.iter().map(|logit| weight(*logit)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDING: Ending = Ending { end: 1, padding: 2 };

    /// Logits of places that are text with these probabilities, and else the end or padding in equal parts.
    fn places(of_text: &[f32]) -> Vec<f32> {
        of_text
            .iter()
            .flat_map(|text| [text / 2.0, (1.0 - text) / 2.0, (1.0 - text) / 2.0, text / 2.0])
            .map(f32::ln)
            .collect()
    }

    #[test]
    fn the_mean_is_the_sum_over_the_places() {
        let stream = || Stream::new(1, 0);
        let logits = places(&[1.0, 0.9, 0.6, 0.45, 0.4, 0.3]);
        assert_eq!(Length::Expected(ENDING).decide(&logits, 4, stream()), Some(4), "3.65, where argmax ends after 3");
        assert_eq!(Length::Expected(ENDING).decide(&places(&[1.0; 3]), 4, stream()), Some(3));
        assert_eq!(Length::Written.decide(&logits, 4, stream()), None);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = places(&[1.0, 0.75, 0.75, 0.25]);
        let mut counts = [0_i32; 5];
        (0..4000).for_each(|seed| counts[Length::Drawn(ENDING).decide(&logits, 4, Stream::new(seed, 0)).unwrap()] += 1);
        assert_eq!((counts[0], counts[2]), (0, 0));
        for (length, wanted) in [(1, 1000), (3, 2000), (4, 1000)] {
            assert!((counts[length] - wanted).abs() < 120, "{counts:?}");
        }
    }

    #[test]
    fn places_can_have_what_the_length_says() {
        let mut logits = vec![0.5; 4 * 4];
        Length::Drawn(ENDING).hold(&mut logits, 4, 2);
        let open = |place: usize| (0..4).filter(|token| logits[place * 4 + token].is_finite()).collect::<Vec<usize>>();
        assert_eq!([open(0), open(1), open(2), open(3)], [vec![0, 3], vec![0, 3], vec![1], vec![2]]);
        let before = logits.clone();
        Length::Written.hold(&mut logits, 4, 2);
        assert_eq!(logits, before);
    }
}
