//! Several texts for one prompt, and which of them is best.

use std::borrow::BorrowMut;

use super::Written;
use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::likelihood::log_likelihoods;
use crate::packed_decoder::PackedDecoder;

/// Who judges candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Rerank {
    /// The pass that repairs: how likely each token of the finished canvas is where all others are seen.
    #[default]
    Own,
    /// The causal pass: the likelihood of the text, token after token, which the model must have been trained for.
    Autoregressive,
}

/// Texts for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    /// As they were written.
    pub written: Vec<Written>,
    /// Mean log-likelihood of a token of each text, in nats, with the token that ends it.
    pub scores: Vec<f64>,
}

impl Candidates {
    /// The likeliest, of equal ones the first; a score that is no number is the worst. `None` if there are none.
    pub fn best(&self) -> Option<&Written> {
        let key = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score };
        let better = |a: usize, b: usize| if key(self.scores[b]) > key(self.scores[a]) { b } else { a };
        (0..self.scores.len().min(self.written.len())).reduce(better).map(|best| &self.written[best])
    }
}

/// Judges texts behind the prompts in the caches, whose last tokens are `last`. A text reaches to the first token that
/// `ends` it, which counts, or is the whole canvas. The caches hold the same tokens afterwards.
///
/// # Errors
/// Another number of caches or last tokens than of texts, an empty prompt for [`Rerank::Autoregressive`].
pub fn rerank(
    decoder: &PackedDecoder,
    written: Vec<Written>,
    last: &[u32],
    caches: &mut [impl BorrowMut<KvCache>],
    by: Rerank,
    ends: impl Fn(u32) -> bool,
) -> Result<Candidates, DecodeError> {
    let length =
        |text: &Written| text.tokens.iter().position(|token| ends(*token)).map_or(text.tokens.len(), |end| end + 1);
    let lengths: Vec<usize> = written.iter().map(length).collect();
    let sums: Vec<f64> = match by {
        Rerank::Own => {
            let canvases: Vec<&[u32]> = written.iter().map(|text| text.tokens.as_slice()).collect();
            let logits = decoder.repair_all(&canvases, caches)?;
            let all = decoder.log_probabilities(&logits, &canvases.concat());
            let mut rest = all.as_slice();
            let sum = |(canvas, length): (&&[u32], &usize)| {
                let (of_canvas, behind) = rest.split_at(canvas.len());
                rest = behind;
                of_canvas[..*length].iter().map(|log_probability| f64::from(*log_probability)).sum()
            };
            canvases.iter().zip(&lengths).map(sum).collect()
        }
        Rerank::Autoregressive => {
            let texts: Vec<&[u32]> =
                written.iter().zip(&lengths).map(|(text, length)| &text.tokens[..*length]).collect();
            log_likelihoods(decoder, last, &texts, caches)?
        }
    };
    let scores = sums.iter().zip(&lengths).map(|(sum, length)| sum / (*length).max(1) as f64).collect();
    Ok(Candidates { written, scores })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_likeliest() {
        let written = |token| Written { tokens: vec![token], passes: 1 };
        let best = |scores: &[f64]| {
            let candidates =
                Candidates { written: (0..scores.len() as u32).map(written).collect(), scores: scores.into() };
            candidates.best().map(|best| best.tokens[0])
        };
        assert_eq!(best(&[-2.0, -1.0, -3.0, -1.0]), Some(1));
        assert_eq!(best(&[f64::NAN, -9.0]), Some(1));
        assert_eq!(best(&[f64::NAN, f64::NAN]), Some(0));
        assert_eq!(best(&[]), None);
    }
}
