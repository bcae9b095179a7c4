//! What a softmax over a vocabulary says about one place of a text: a token, how sure of it, how sure at all.

use rayon::prelude::*;

use crate::math::{exp, exponentials, max, sum as total, sum_of_exponentials};
use crate::simd::{Simd, dispatch};

/// Logits that are summed together.
const BLOCK: usize = 256;

/// A token chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub token: u32,
    /// `log p(token)` at temperature 1, in nats.
    pub log_probability: f32,
    /// Of the distribution at temperature 1, in nats.
    pub entropy: f32,
}

/// One choice for each row of `logits [n, vocabulary]`, drawn from `softmax(logits / temperature)` by the row's number of
/// `uniform [n]`, each in `[0, 1)`. A temperature of 0 takes the likeliest, of equal ones the first.
///
/// Logits that are not numbers give a token of the vocabulary all the same, and a `log_probability` that is not a number.
pub fn choose(logits: &[f32], vocabulary: usize, temperature: f32, uniform: &[f32], choices: &mut [Choice]) {
    assert!(vocabulary > 0, "a vocabulary to choose from");
    assert_eq!(logits.len(), choices.len() * vocabulary, "a row of logits for each choice");
    assert_eq!(uniform.len(), choices.len(), "a number for each choice");
    let rows = logits.par_chunks_exact(vocabulary).zip(uniform);
    rows.zip(choices).for_each(|((logits, uniform), choice)| *choice = of_row(logits, temperature, *uniform));
}

/// Each row of `logits [n, vocabulary]` to its softmax.
pub fn softmax(logits: &mut [f32], vocabulary: usize) {
    assert!(vocabulary > 0 && logits.len().is_multiple_of(vocabulary), "rows of a vocabulary");
    logits.par_chunks_exact_mut(vocabulary).for_each(softmax_row);
}

dispatch!(softmax_row = softmax_row_body(row: &mut [f32]));

#[inline(always)]
fn softmax_row_body<S: Simd>(row: &mut [f32]) {
    let largest = max(row);
    let sum: f64 = row.chunks_mut(BLOCK).map(|block| f64::from(exponentials::<S>(block, largest))).sum();
    let inverse = (1.0 / sum) as f32;
    row.iter_mut().for_each(|p| *p *= inverse);
}

/// `log softmax(logits)[token]` for each row of `logits [n, vocabulary]`, in nats.
pub fn log_probabilities(logits: &[f32], vocabulary: usize, tokens: &[u32], out: &mut [f32]) {
    assert!(vocabulary > 0, "a vocabulary to choose from");
    assert!(logits.len() == tokens.len() * vocabulary && out.len() == tokens.len(), "a row of logits for each token");
    assert!(tokens.iter().all(|token| (*token as usize) < vocabulary), "tokens of the vocabulary");
    let rows = logits.par_chunks_exact(vocabulary).zip(tokens);
    rows.zip(out).for_each(|((logits, token), out)| *out = of_token(logits, *token as usize));
}

dispatch!(of_token = of_token_body(logits: &[f32], token: usize) -> f32);

#[inline(always)]
fn of_token_body<S: Simd>(logits: &[f32], token: usize) -> f32 {
    let largest = max(logits);
    let sum: f64 = logits.chunks(BLOCK).map(|logits| f64::from(sum_of_exponentials::<S>(logits, largest))).sum();
    (f64::from(logits[token] - largest) - sum.ln()) as f32
}

dispatch!(of_row = of_row_body(logits: &[f32], temperature: f32, uniform: f32) -> Choice);

#[inline(always)]
fn of_row_body<S: Simd>(logits: &[f32], temperature: f32, uniform: f32) -> Choice {
    let largest = max(logits);
    // No logit is equal to a largest that is not a number.
    let best = logits.iter().position(|logit| *logit == largest).unwrap_or(0);
    let (mut sum, mut mean) = (0.0, 0.0);
    for logits in logits.chunks(BLOCK) {
        let mut products = [0.0; BLOCK];
        // What has no probability counts nothing, and minus infinity times nothing would.
        let shifted = |logit: f32| (logit - largest).max(-100.0);
        products.iter_mut().zip(logits).for_each(|(product, logit)| {
            let shifted = shifted(*logit);
            *product = exp::<S>(shifted) * shifted;
        });
        mean += f64::from(total(&products));
        sum += f64::from(sum_of_exponentials::<S>(logits, largest));
    }
    // -Σ p log p = log Σ exp(l - m) - Σ p (l - m).
    let entropy = (sum.ln() - mean / sum) as f32;
    let token = if temperature > 0.0 { draw::<S>(logits, largest, 1.0 / temperature, uniform) } else { best };
    let log_probability = (f64::from(logits[token] - largest) - sum.ln()) as f32;
    Choice { token: token as u32, log_probability, entropy }
}

/// The first token up to which the probabilities sum to more than `uniform`, else the last that has any.
#[inline(always)]
fn draw<S: Simd>(logits: &[f32], largest: f32, inverse: f32, uniform: f32) -> usize {
    let mut weights = [0.0; BLOCK];
    let mut all = 0.0;
    for logits in logits.chunks(BLOCK) {
        all += weigh::<S>(logits, largest, inverse, &mut weights);
    }
    let wanted = f64::from(uniform) * all;
    let (mut sum, mut last) = (0.0, 0);
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        let of_block = weigh::<S>(logits, largest, inverse, &mut weights);
        // Only blocks that the sum may end in are looked at one by one; the last with any weight is one of them, since
        // rounding may have put what is wanted behind it.
        if sum + of_block > wanted {
            for (column, weight) in weights[..logits.len()].iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                last = block * BLOCK + column;
                sum += f64::from(*weight);
                if sum > wanted {
                    return last;
                }
            }
        } else if of_block > 0.0 {
            let column = weights[..logits.len()].iter().rposition(|weight| *weight > 0.0);
            last = block * BLOCK + column.unwrap_or(0);
            sum += of_block;
        }
    }
    last
}

/// `weights = exp((logits - largest) * inverse)`, and their sum.
#[inline(always)]
fn weigh<S: Simd>(logits: &[f32], largest: f32, inverse: f32, weights: &mut [f32; BLOCK]) -> f64 {
    for (weight, logit) in weights.iter_mut().zip(logits) {
        *weight = exp::<S>((logit - largest) * inverse);
    }
    f64::from(total(&weights[..logits.len()]))
}
