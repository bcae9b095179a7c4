use lapidary_kernels::choice::{Choice, choose, log_probabilities, softmax as softmax_of_rows};
use proptest::prelude::*;

use super::random;

const NONE: Choice = Choice { token: u32::MAX, log_probability: 0.0, entropy: 0.0 };

fn all(logits: &[f32], vocabulary: usize, temperature: f32, uniform: &[f32]) -> Vec<Choice> {
    let mut choices = vec![NONE; uniform.len()];
    choose(logits, vocabulary, temperature, uniform, &mut choices);
    choices
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| (f64::from(l - largest) / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_f64(
        vocabulary in 1usize..900,
        temperature in prop_oneof![Just(0.0f32), 0.1f32..2.0],
        scale in 0.1f32..9.0,
        uniform in prop::collection::vec(0.0f32..1.0, 0..6),
    ) {
        let logits: Vec<f32> = random(vocabulary * uniform.len(), 1).iter().map(|x| x * scale).collect();
        let choices = all(&logits, vocabulary, temperature, &uniform);
        for ((logits, uniform), choice) in logits.chunks(vocabulary).zip(&uniform).zip(choices) {
            let (plain, token) = (softmax(logits, 1.0), choice.token as usize);
            let tokens: Vec<u32> = (0..vocabulary as u32).collect();
            let mut each = vec![f32::NAN; vocabulary];
            log_probabilities(&logits.repeat(vocabulary), vocabulary, &tokens, &mut each);
            let mut probabilities = logits.to_vec();
            softmax_of_rows(&mut probabilities, vocabulary);
            for (found, p) in probabilities.iter().zip(&plain) {
                prop_assert!((f64::from(*found) - p).abs() < 1e-6, "{found} of {p}");
            }
            for (found, p) in each.iter().zip(&plain) {
                prop_assert!((f64::from(*found) - p.ln()).abs() < 2e-5, "{found} of {p}");
            }
            let entropy: f64 = plain.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
            prop_assert!((f64::from(choice.entropy) - entropy).abs() < 1e-5 * (1.0 + entropy), "{choice:?}: {entropy}");
            prop_assert!((f64::from(choice.log_probability) - plain[token].ln()).abs() < 2e-5, "{choice:?}");
            if temperature == 0.0 {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(token, logits.iter().position(|l| *l == largest).unwrap());
            } else {
                // The number lies within the token's share of [0, 1).
                let p = softmax(logits, temperature.into());
                let before: f64 = p[..token].iter().sum();
                let uniform = f64::from(*uniform);
                prop_assert!(before - 1e-5 <= uniform && uniform <= before + p[token] + 1e-5, "{choice:?} of {uniform}");
            }
        }
    }
}

#[test]
fn what_has_no_probability_is_never_chosen() {
    let nothing = f32::NEG_INFINITY;
    let logits = [nothing, 3.0, nothing, 3.0, nothing];
    for step in 0..100 {
        for temperature in [0.0, 1.0] {
            let choice = all(&logits, 5, temperature, &[step as f32 / 100.0])[0];
            let first = temperature == 0.0 || step < 50;
            assert_eq!(choice.token, if first { 1 } else { 3 });
            assert!((choice.log_probability + 2f32.ln()).abs() < 1e-6 && (choice.entropy - 2f32.ln()).abs() < 1e-6);
        }
    }
}

#[test]
fn logits_that_are_no_numbers_choose_within_the_vocabulary() {
    for logits in [[f32::NAN; 300], [f32::NEG_INFINITY; 300], [f32::INFINITY; 300]] {
        for temperature in [0.0, 0.7] {
            let choice = all(&logits, 300, temperature, &[0.999])[0];
            assert!(choice.token < 300 && choice.log_probability.is_nan(), "{choice:?}");
        }
    }
}
