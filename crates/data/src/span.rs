//! Answers that are spans of a passage: the question that asks for one, and the best span by a model's logits.
//!
//! The way of a question: [`source::squad`](crate::source::squad::read_spans) reads it,
//! [`Tokenizer::span_windows`](crate::Tokenizer::span_windows) cuts it into rows for a model, [`best_span`] joins what
//! the model says of them, and [`metric::spans`](crate::metric::spans) compares the text with the annotators' answers.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::tokenizer::SpanWindow;

/// A question whose answer stands in a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanQuestion {
    /// What tells it from the others of its set.
    pub id: String,
    /// The question as it stood in the file.
    pub question: String,
    /// The text that holds the answer, shared by all questions on it.
    pub passage: Arc<str>,
    /// The answers of all annotators, at least one. The first is the one trained on, all are what an evaluation
    /// compares with.
    pub answers: Vec<SpanAnswer>,
}

/// A part of a passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanAnswer {
    pub text: String,
    /// Where it begins in the passage, in bytes.
    pub start_byte: usize,
}

impl SpanAnswer {
    /// The bytes of the passage that it stands in.
    pub fn bytes(&self) -> Range<usize> {
        self.start_byte..self.start_byte.saturating_add(self.text.len())
    }
}

/// What a model says of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanLogits<'a> {
    /// For each token of the window, padding left out, that the answer begins with it: `[length]`.
    pub start: &'a [f32],
    /// That it ends with it: `[length]`.
    pub end: &'a [f32],
}

/// Which spans come into question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanSearch {
    /// How many of a window's tokens with the greatest logits are tried as start, and as end; those of the question
    /// count among them.
    pub n_best: usize,
    /// The most tokens that an answer has.
    pub max_tokens: usize,
}

impl Default for SpanSearch {
    fn default() -> SpanSearch {
        SpanSearch { n_best: 20, max_tokens: 30 }
    }
}

/// The answer that a model gives.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanPrediction {
    /// Where it stands in the passage, and its text.
    pub answer: SpanAnswer,
    /// The sum of its two logits.
    pub score: f32,
    /// The window that it was found in, among those of its question.
    pub window: usize,
}

/// Why there is no answer to be had from logits.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SpanError {
    /// Windows and logits are not of one set.
    #[error("logits of {logits} windows for {windows} windows of passages")]
    Windows { windows: usize, logits: usize },
    /// A window and its logits are not of one length.
    #[error("window {window} has {tokens} tokens and {start} logits of starts and {end} of ends")]
    Length { window: usize, tokens: usize, start: usize, end: usize },
    /// The model has diverged.
    #[error("a logit of window {window} is {value}")]
    NotANumber { window: usize, value: f32 },
    /// The window is not of this passage.
    #[error("window {window} speaks of the bytes {start}..{end}, which are no part of the passage")]
    Passage { window: usize, start: usize, end: usize },
}

/// The best span of a passage by the logits of all its windows, or `None` where no span comes into question: no token
/// of the passage is among the best of its window, or none that ends an answer follows one that begins it closely
/// enough. A logit of -infinity rules a token out.
///
/// Of the spans that begin and end with tokens of the passage among the window's `n_best`, and have at most
/// `max_tokens`, it is the one with the greatest sum of start and end logit, in `f32`. Where several are equal it is
/// the one of the first window, with the greatest start logit, with the greatest end logit, that stands first: but for
/// such ties the answer is that of `postprocess_qa_predictions` of Hugging Face's `run_qa.py`, without answers that
/// are null, where that function has one at all.
///
/// # Errors
/// When windows and logits do not fit each other or the passage, or a logit is NaN or infinity.
pub fn best_span(
    passage: &str,
    windows: &[SpanWindow],
    logits: &[SpanLogits<'_>],
    search: &SpanSearch,
) -> Result<Option<SpanPrediction>, SpanError> {
    if windows.len() != logits.len() {
        return Err(SpanError::Windows { windows: windows.len(), logits: logits.len() });
    }
    let mut best: Option<(f32, usize, Range<usize>)> = None;
    for (window, (cut, logits)) in windows.iter().zip(logits).enumerate() {
        let (tokens, start, end) = (cut.row.ids.len(), logits.start.len(), logits.end.len());
        if start != tokens || end != tokens {
            return Err(SpanError::Length { window, tokens, start, end });
        }
        // A token can be ruled out with -infinity; with infinity, sums would be no numbers.
        let wrong = |logit: &&f32| logit.is_nan() || **logit == f32::INFINITY;
        if let Some(&value) = logits.start.iter().chain(logits.end).find(wrong) {
            return Err(SpanError::NotANumber { window, value });
        }
        let ends = largest(logits.end, search.n_best);
        for start in largest(logits.start, search.n_best) {
            for &end in &ends {
                let (Some(first), Some(last)) = (cut.bytes_of(start), cut.bytes_of(end)) else { continue };
                if end < start || end - start >= search.max_tokens {
                    continue;
                }
                let score = logits.start[start] + logits.end[end];
                if score > best.as_ref().map_or(f32::NEG_INFINITY, |(best, ..)| *best) {
                    best = Some((score, window, first.start..last.end));
                }
            }
        }
    }
    let prediction = |(score, window, bytes): (f32, usize, Range<usize>)| {
        let Range { start, end } = bytes.clone();
        let text = passage.get(bytes).ok_or(SpanError::Passage { window, start, end })?;
        Ok(SpanPrediction { answer: SpanAnswer { text: text.to_owned(), start_byte: start }, score, window })
    };
    best.map(prediction).transpose()
}

/// The places of the `n` greatest logits, the greatest first, of equal ones the first.
fn largest(logits: &[f32], n: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..logits.len()).collect();
    // Stable; and without NaN, so that -0 and 0 are equal as everywhere.
    places.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(std::cmp::Ordering::Equal));
    places.truncate(n);
    places
}
