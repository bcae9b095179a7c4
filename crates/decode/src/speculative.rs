//! Token after token, several a pass: the model that repairs guesses what comes, the model that writes says whether it
//! would have written that. Both are the same weights under two masks.
//!
//! Draft and verify as in Leviathan et al., "Fast inference from transformers via speculative decoding" (2211.17192); here
//! the next draft is made in the very pass that verifies the last one. A pass reads the tokens that are certain and the
//! draft behind them, causally, and in the same products a canvas that begins right behind what is certain. How much of
//! the draft holds is known after the pass; whatever it is, the canvas reaches beyond it.

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::generate::most_likely;
use crate::packed_decoder::PackedDecoder;
use crate::pass::Part;

use lapidary_kernels::rng::Stream;

/// How much is guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeculativeOptions {
    /// Tokens of a draft.
    pub draft: usize,
    /// Places of the canvas that the next draft is taken from; those beyond the draft begin as noise.
    pub canvas: usize,
    /// Of the noise. Without a limit of passes the text does not depend on it.
    pub seed: u64,
    /// Passes at most, that over the prompt included. Each then settles its share of what seems to be left: where fewer
    /// tokens are verified, the next ones are taken from the canvas as they are (the minimum block size of Stern et al.,
    /// "Blockwise parallel decoding for deep autoregressive models", 1811.03115, section 5.3), and the text may be another
    /// than [`generate`](crate::generate)'s. `None`: as many as it takes, and the text is the same.
    pub passes: Option<usize>,
}

impl Default for SpeculativeOptions {
    fn default() -> Self {
        Self { draft: 3, canvas: 5, seed: 0, passes: None }
    }
}

/// A text and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speculated {
    /// Without a limit of passes the same as [`generate`](crate::generate) writes.
    pub tokens: Vec<u32>,
    /// Passes through the model, that over the prompt included.
    pub passes: usize,
    /// Tokens that were guessed and verified.
    pub drafted: usize,
    /// Of these, those that held.
    pub held: usize,
}

/// As [`generate`](crate::generate), with the same bits in every logit and so the same text, in fewer passes. `choose` is
/// asked the same questions in the same order; with a limit of passes it is also asked of each place of the canvas.
///
/// # Errors
/// As [`generate`](crate::generate), and no passes.
pub fn speculate(
    decoder: &PackedDecoder,
    prompt: &[u32],
    tokens: usize,
    cache: &mut KvCache,
    options: &SpeculativeOptions,
    mut choose: impl FnMut(&[f32]) -> Option<u32>,
) -> Result<Speculated, DecodeError> {
    if prompt.is_empty() {
        return Err(DecodeError::EmptyPrompt);
    }
    if options.passes == Some(0) {
        return Err(DecodeError::NoPasses);
    }
    let (vocabulary, width) = (decoder.vocabulary(), decoder.width);
    let mut done = Speculated { tokens: Vec::with_capacity(tokens), passes: 0, drafted: 0, held: 0 };
    let mut noise = Stream::new(options.seed, 0);
    let mut certain = prompt.to_vec();
    // What the canvas of the last pass says of the places behind the certain ones.
    let mut guess: Vec<u32> = Vec::new();
    while done.tokens.len() < tokens {
        decoder.check(&certain, cache)?;
        let left = tokens - done.tokens.len();
        let room = cache.capacity - cache.len - certain.len();
        // Of the draft, the last token is followed by one more that the pass writes.
        let draft = guess[..guess.len().min(options.draft).min(left - 1).min(room)].to_vec();
        // Which of the places left the next token takes is verified; all the others are to be settled by the last pass.
        let left = if options.passes.is_some() { left } else { left - 1 };
        let places = options.canvas.max(options.draft + 1).min(left).min(room);
        guess.resize_with(guess.len().max(places), || noise.below(vocabulary) as u32);
        let canvas = &guess[..places];

        let past = cache.len;
        // The token before a shifted canvas is part of it.
        let before = &certain[certain.len() - usize::from(decoder.shifted_canvas && places > 0)..];
        let ids = [&certain, draft.as_slice(), before, canvas].concat();
        let causal = Part { tokens: certain.len() + draft.len(), past, canvas: false };
        let begin = past + certain.len() - before.len();
        let repaired = Part { tokens: before.len() + places, past: begin, canvas: true };
        let parts = [causal, repaired];
        let parts = if places == 0 { &parts[..1] } else { &parts[..] };
        let x = decoder.hidden(&ids, None, &mut [(parts, &mut *cache)]);
        done.passes += 1;
        done.drafted += draft.len();
        // The last certain token and what follows it; the last place of a shifted canvas says what is beyond it.
        let said = &x[(certain.len() - 1) * width..x.len() - before.len() * width];
        let logits = decoder.logits(said);
        let (verified, repaired) = logits.split_at((draft.len() + 1) * vocabulary);

        let mut written = 0;
        for (place, logits) in verified.chunks_exact(vocabulary).enumerate() {
            let Some(token) = choose(logits) else {
                cache.len += certain.len() + place;
                return Ok(done);
            };
            done.tokens.push(token);
            written += 1;
            if draft.get(place) != Some(&token) {
                break;
            }
            done.held += 1;
        }
        // All but the last written token have been read.
        cache.len += certain.len() + written - 1;
        certain = done.tokens[done.tokens.len() - 1..].to_vec();
        let places = repaired.chunks_exact(vocabulary).skip(written);
        let Some(passes) = options.passes else {
            guess = places.filter_map(most_likely).collect();
            continue;
        };
        // Up to where the canvas ends the text, and beyond.
        let chosen: Vec<Option<u32>> = places.clone().map(&mut choose).collect();
        let text = chosen.iter().position(Option::is_none).unwrap_or(chosen.len());
        guess = chosen
            .into_iter()
            .zip(places)
            .filter_map(|(token, logits)| token.or_else(|| most_likely(logits)))
            .collect();
        let share = (written + text).div_ceil(passes.saturating_sub(done.passes) + 1);
        let taken = guess.drain(..share.saturating_sub(written).min(text));
        certain.extend(taken);
        done.tokens.extend(&certain[1..]);
        if done.passes >= passes {
            break;
        }
    }
    Ok(done)
}
