//! Canvases whose text is verified from the left by the pass that writes token after token.

use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::rng::Stream;

use super::{Ending, Written};
use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;
use crate::speculative::{SpeculativeOptions, speculate};

/// How a canvas is written and verified.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerifiedOptions {
    /// Places of the canvas.
    pub canvas: usize,
    /// Passes at most: see [`SpeculativeOptions::passes`].
    pub passes: usize,
    /// 0 takes the likeliest tokens.
    pub temperature: f32,
    /// What ends a text, and fills the canvas behind it.
    pub ending: Ending,
    /// Of all draws.
    pub seed: u64,
}

/// Writes a canvas behind the prompt that the cache holds: [`speculate`] with a limit of passes, for models that were
/// trained both to repair and to write token after token. The cache holds the same tokens afterwards.
///
/// # Errors
/// As [`write`](super::write); an empty prompt.
pub fn write_verified(
    decoder: &PackedDecoder,
    cache: &mut KvCache,
    options: &VerifiedOptions,
) -> Result<Written, DecodeError> {
    let &VerifiedOptions { canvas, passes, temperature, ending, seed } = options;
    if canvas == 0 {
        return Err(DecodeError::EmptyCanvas);
    }
    let (prompt, last) = (cache.len(), cache.last().ok_or(DecodeError::EmptyPrompt)?);
    if prompt + canvas > cache.capacity() {
        return Err(DecodeError::TooLong { tokens: prompt + canvas, capacity: cache.capacity() });
    }
    // The last token of the prompt is read again with the first canvas, so that the passes are those of any other canvas.
    cache.truncate(prompt - 1);
    let mut stream = Stream::new(seed, 0);
    let next = |logits: &[f32]| {
        let mut choice = [Choice { token: 0, log_probability: 0.0, entropy: 0.0 }];
        choose(logits, logits.len(), temperature, &[stream.uniform()], &mut choice);
        Some(choice[0].token).filter(|token| *token != ending.end && *token != ending.padding)
    };
    let settings = SpeculativeOptions { draft: canvas, canvas, seed, passes: Some(passes) };
    let text = speculate(decoder, &[last], canvas, cache, &settings, next);
    // A cache reads its last token anew as part of what follows; what it holds of it is what it held.
    cache.len = prompt;
    let text = text?;
    let mut tokens = text.tokens;
    if tokens.len() < canvas {
        tokens.push(ending.end);
    }
    tokens.resize(canvas, ending.padding);
    Ok(Written { tokens, passes: text.passes })
}
