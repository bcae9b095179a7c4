//! Softmax cross-entropy and its gradient in one pass over the logits.

use rayon::prelude::*;
use thiserror::Error;

use crate::chunks::rows_per_chunk;
use crate::math::{exp, max, sum};
use crate::simd::{Simd, dispatch};

/// The target that leaves a row out of the loss.
pub const IGNORED: i64 = -100;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CrossEntropyError {
    #[error(
        "target {target} of row {row} is outside the vocabulary of {vocab}: give a class in 0..{vocab}, or {IGNORED} \
         to leave the row out"
    )]
    TargetOutOfRange { row: usize, target: i64, vocab: usize },
    #[error("{targets} targets for {rows} rows of logits: give one target a row")]
    TargetCount { targets: usize, rows: usize },
}

/// Whether `targets` fit logits `[rows, vocab]`.
///
/// # Errors
/// Another number of targets than rows; a target that is neither in `0..vocab` nor [`IGNORED`].
pub fn check(targets: &[i64], rows: usize, vocab: usize) -> Result<(), CrossEntropyError> {
    if targets.len() != rows {
        return Err(CrossEntropyError::TargetCount { targets: targets.len(), rows });
    }
    let fits = |target: i64| target == IGNORED || usize::try_from(target).is_ok_and(|target| target < vocab);
    match targets.iter().position(|&target| !fits(target)) {
        None => Ok(()),
        Some(row) => Err(CrossEntropyError::TargetOutOfRange { row, target: targets[row], vocab }),
    }
}

/// `Σ_rows -log softmax(logits)[target] / normalizer`, in nats, summed in `f64` in the order of the rows; with
/// `dlogits`, also its gradient `(softmax - onehot) / normalizer`.
///
/// `logits` and `dlogits` `[n, vocab]`, `targets` `[n]`. Rows whose target is [`IGNORED`] count nothing and get a
/// gradient of 0.
///
/// # Errors
/// As [`check`]; nothing has been written then.
pub fn cross_entropy(
    logits: &[f32],
    targets: &[i64],
    vocab: usize,
    normalizer: f32,
    dlogits: Option<&mut [f32]>,
) -> Result<f64, CrossEntropyError> {
    check(targets, logits.len().checked_div(vocab).unwrap_or(0), vocab)?;
    let rows = rows_per_chunk(vocab);
    let inputs = || logits.par_chunks(rows * vocab.max(1)).zip(targets.par_chunks(rows));
    let losses: Vec<f64> = match dlogits {
        Some(dlogits) => {
            assert_eq!(dlogits.len(), logits.len(), "a gradient per logit");
            inputs()
                .zip(dlogits.par_chunks_mut(rows * vocab.max(1)))
                .map(|((logits, targets), dlogits)| gradient(logits, targets, vocab, 1.0 / normalizer, dlogits))
                .collect()
        }
        None => inputs().map(|(logits, targets)| loss(logits, targets, vocab)).collect(),
    };
    Ok(losses.iter().sum::<f64>() / f64::from(normalizer))
}

dispatch!(
    gradient = gradient_body(
        logits: &[f32],
        targets: &[i64],
        vocab: usize,
        inverse_normalizer: f32,
        dlogits: &mut [f32],
    ) -> f64
);

/// The unnormalised loss of some rows, and their gradient.
#[inline(always)]
fn gradient_body<S: Simd>(
    logits: &[f32],
    targets: &[i64],
    vocab: usize,
    inverse_normalizer: f32,
    dlogits: &mut [f32],
) -> f64 {
    let mut total = 0.0;
    for ((logits, dlogits), &target) in logits.chunks_exact(vocab).zip(dlogits.chunks_exact_mut(vocab)).zip(targets) {
        if target == IGNORED {
            dlogits.fill(0.0);
            continue;
        }
        let largest = max(logits);
        for (e, logit) in dlogits.iter_mut().zip(logits) {
            *e = exp::<S>(logit - largest);
        }
        let sum = sum(dlogits);
        let factor = inverse_normalizer / sum;
        for e in dlogits.iter_mut() {
            *e *= factor;
        }
        dlogits[target as usize] -= inverse_normalizer;
        total += f64::from(sum).ln() + f64::from(largest) - f64::from(logits[target as usize]);
    }
    total
}

dispatch!(loss = loss_body(logits: &[f32], targets: &[i64], vocab: usize) -> f64);

/// The unnormalised loss of some rows.
#[inline(always)]
fn loss_body<S: Simd>(logits: &[f32], targets: &[i64], vocab: usize) -> f64 {
    /// Exponentials are taken in a buffer of this many, so that both loops vectorise; their sums are added in order.
    const BUFFER: usize = 512;
    let mut buffer = [0.0; BUFFER];
    let mut total = 0.0;
    for (logits, &target) in logits.chunks_exact(vocab).zip(targets) {
        if target == IGNORED {
            continue;
        }
        let largest = max(logits);
        let mut denominator = 0f64;
        for logits in logits.chunks(BUFFER) {
            let buffer = &mut buffer[..logits.len()];
            for (e, logit) in buffer.iter_mut().zip(logits) {
                *e = exp::<S>(logit - largest);
            }
            denominator += f64::from(sum(buffer));
        }
        total += denominator.ln() + f64::from(largest) - f64::from(logits[target as usize]);
    }
    total
}
