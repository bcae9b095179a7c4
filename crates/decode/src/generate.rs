//! Token after token.

use std::borrow::BorrowMut;

use lapidary_kernels::team::with_team;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;
use crate::pass::Positions;
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

/// Writes behind each prompt at once, `choose` being told whose logits it sees: each text is what [`generate`] writes
/// behind its prompt alone. The weights are read once for a token of all of them, so that many texts come faster together
/// than one after another.
///
/// # Errors
/// As [`generate`], and another number of caches than of prompts.
pub fn generate_all(
    decoder: &PackedDecoder,
    prompts: &[&[u32]],
    tokens: usize,
    caches: &mut [impl BorrowMut<KvCache>],
    mut choose: impl FnMut(usize, &[f32]) -> Option<u32>,
) -> Result<Vec<Vec<u32>>, DecodeError> {
    if prompts.iter().any(|prompt| prompt.is_empty()) {
        return Err(DecodeError::EmptyPrompt);
    }
    let mut written = vec![Vec::new(); prompts.len()];
    if tokens == 0 {
        return Ok(written);
    }
    let mut caches: Vec<&mut KvCache> = caches.iter_mut().map(BorrowMut::borrow_mut).collect();
    let mut open: Vec<usize> = (0..prompts.len()).collect();
    let mut inputs: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.to_vec()).collect();
    while !open.is_empty() {
        let rows: Vec<&[u32]> = open.iter().map(|row| inputs[*row].as_slice()).collect();
        let of_open = caches.iter_mut().enumerate().filter(|(row, _)| open.contains(row));
        let mut of_open: Vec<&mut KvCache> = of_open.map(|(_, cache)| &mut **cache).collect();
        let logits = decoder.read_all(&rows, &mut of_open, Positions::Last)?;
        let mut logits = logits.chunks_exact(decoder.vocabulary());
        open.retain(|&row| {
            let Some(token) = logits.next().and_then(|logits| choose(row, logits)) else { return false };
            written[row].push(token);
            inputs[row] = vec![token];
            written[row].len() < tokens
        });
    }
    Ok(written)
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
