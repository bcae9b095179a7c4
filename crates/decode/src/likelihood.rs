//! How likely texts are, token after token.

use std::borrow::BorrowMut;

use lapidary_kernels::choice::log_probabilities;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;
use crate::pass::Positions;

impl PackedDecoder {
    /// `log p` of one token for each row of `logits [N, V]`, in nats.
    pub(crate) fn log_probabilities(&self, logits: &[f32], tokens: &[u32]) -> Vec<f32> {
        let mut out = vec![0.0; tokens.len()];
        log_probabilities(logits, self.vocabulary(), tokens, &mut out);
        out
    }
}

/// `Σ log p(token | prompt, tokens before it)` of each text, in nats, behind the prompt of its cache, of which `last` has
/// the last token. The caches hold the same tokens afterwards.
///
/// # Errors
/// Another number of caches or last tokens than of texts, an empty prompt, a text that does not fit.
pub fn log_likelihoods(
    decoder: &PackedDecoder,
    last: &[u32],
    texts: &[&[u32]],
    caches: &mut [impl BorrowMut<KvCache>],
) -> Result<Vec<f64>, DecodeError> {
    if texts.len() != last.len() || texts.len() != caches.len() {
        return Err(DecodeError::Caches { sequences: texts.len(), caches: caches.len().min(last.len()) });
    }
    let mut caches: Vec<&mut KvCache> = caches.iter_mut().map(BorrowMut::borrow_mut).collect();
    if caches.iter().any(|cache| cache.is_empty()) {
        return Err(DecodeError::EmptyPrompt);
    }
    // What predicts a text's first token is the prompt's last, which is read again.
    let inputs: Vec<Vec<u32>> = last
        .iter()
        .zip(texts)
        .map(|(last, text)| if text.is_empty() { vec![] } else { [&[*last], &text[..text.len() - 1]].concat() })
        .collect();
    let lengths: Vec<usize> = caches.iter().map(|cache| cache.len).collect();
    caches.iter_mut().zip(&inputs).filter(|(_, input)| !input.is_empty()).for_each(|(cache, _)| cache.len -= 1);
    let rows: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
    let logits = decoder.read_all(&rows, &mut caches, Positions::All);
    caches.iter_mut().zip(lengths).for_each(|(cache, len)| cache.len = len);
    let all = decoder.log_probabilities(&logits?, &texts.concat());
    let mut rest = all.as_slice();
    let sum = |text: &&[u32]| {
        let (of_text, behind) = rest.split_at(text.len());
        rest = behind;
        of_text.iter().map(|log_probability| f64::from(*log_probability)).sum()
    };
    Ok(texts.iter().map(sum).collect())
}
