//! Token after token.

use lapidary_kernels::team::with_team;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::{PackedDecoder, Positions};
use crate::step::Stepper;

/// Reads `prompt` after what the cache holds, then writes at most `tokens` tokens, each chosen by `choose` from the
/// logits `[V]` of its place; `None` ends the text. The cache then holds all but the last.
///
/// # Errors
/// An empty prompt, a token outside the vocabulary, more tokens than there is room for.
pub fn generate(
    decoder: &PackedDecoder,
    prompt: &[u32],
    tokens: usize,
    cache: &mut KvCache,
    mut choose: impl FnMut(&[f32]) -> Option<u32>,
) -> Result<Vec<u32>, DecodeError> {
    if prompt.is_empty() {
        return Err(DecodeError::EmptyPrompt);
    }
    let mut written = Vec::with_capacity(tokens);
    if tokens == 0 {
        return Ok(written);
    }
    let logits = decoder.read(prompt, cache, Positions::Last)?;
    let Some(mut last) = choose(&logits) else { return Ok(written) };
    written.push(last);
    with_team(rayon::current_num_threads(), |team| {
        let mut stepper = Stepper::new(decoder);
        while written.len() < tokens {
            let Some(next) = choose(stepper.step(last, cache, team)?) else { break };
            written.push(next);
            last = next;
        }
        Ok(written)
    })
}

/// The token of the greatest logit, of equal ones the first; `None` for no logits. A choice for [`generate`].
pub fn most_likely(logits: &[f32]) -> Option<u32> {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    (!logits.is_empty()).then_some(best as u32)
}
