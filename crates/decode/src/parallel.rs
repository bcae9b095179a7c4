//! Writing a whole canvas in a few passes: it starts as random tokens, and each pass repairs it.
//!
//! Every pass makes a [`Choice`] for each place of the canvas. What becomes of the choices is put together from small
//! parts: the [`Schedule`] says how many passes there are and how warm each is, the [`Acceptance`] which places take
//! their choice, the [`Rest`] what happens to the others, and the [`Stop`] when it is enough.

mod acceptance;
mod schedule;
mod stop;

pub use acceptance::{Acceptance, Rest};
pub use schedule::Schedule;
pub use stop::Stop;

use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::rng::Stream;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;

/// How a canvas is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ParallelOptions {
    /// Places of the canvas.
    pub canvas: usize,
    /// How many passes, and how warm.
    pub schedule: Schedule,
    /// Which places take their choice.
    pub acceptance: Acceptance,
    /// What happens to the others.
    pub rest: Rest,
    /// When it is enough before the last pass.
    pub stop: Stop,
    /// Of all draws.
    pub seed: u64,
}

/// A canvas after a pass.
#[derive(Clone, Debug)]
pub struct Canvas<'a> {
    /// The pass, from 1 on; 0: before the first.
    pub pass: usize,
    /// Its tokens.
    pub tokens: &'a [u32],
    /// The choices of the pass, one a place.
    pub choices: &'a [Choice],
    /// Which places took theirs.
    pub accepted: &'a [bool],
}

/// A written canvas.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// All of its tokens, the padding included.
    pub tokens: Vec<u32>,
    /// Passes that it took.
    pub passes: usize,
    /// The sum of `log p(token)` of the last pass, in nats: how likely the model finds its own text.
    pub log_likelihood: f64,
}

/// Draws of these kinds come from places of their own.
const START: u64 = 1 << 40;
const SHARE: u64 = 2 << 40;
const NOISE: u64 = 3 << 40;

/// Writes a canvas behind the prompt that the cache holds; `watch` sees it before the first pass and after each. The
/// cache holds the same tokens afterwards.
///
/// # Errors
/// An empty canvas, no passes, a canvas that does not fit into the cache.
pub fn write(
    decoder: &PackedDecoder,
    cache: &mut KvCache,
    options: &ParallelOptions,
    mut watch: impl FnMut(&Canvas),
) -> Result<Written, DecodeError> {
    if options.canvas == 0 {
        return Err(DecodeError::EmptyCanvas);
    }
    let passes = options.schedule.passes;
    if passes == 0 {
        return Err(DecodeError::NoPasses);
    }
    let (vocabulary, n) = (decoder.vocabulary(), options.canvas);
    let mut start = Stream::at_place(options.seed, 0, START);
    let mut tokens: Vec<u32> = (0..n).map(|_| start.below(vocabulary) as u32).collect();
    let mut choices = vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; n];
    let mut accepted = vec![false; n];
    watch(&Canvas { pass: 0, tokens: &tokens, choices: &choices, accepted: &accepted });
    let mut pass = 0;
    loop {
        pass += 1;
        let step = pass as u64;
        let logits = decoder.repair(&tokens, cache)?;
        let uniform: Vec<f32> =
            (0..n).map(|place| Stream::at_place(options.seed, step, place as u64).uniform()).collect();
        choose(&logits, vocabulary, options.schedule.temperature(pass), &uniform, &mut choices);
        let of_place = |kind: u64| move |place| Stream::at_place(options.seed, step, kind + place as u64);
        options.acceptance.accept(&choices, pass, passes, of_place(SHARE), &mut accepted);
        let before = tokens.clone();
        for (place, token) in tokens.iter_mut().enumerate() {
            match options.rest {
                _ if accepted[place] => *token = choices[place].token,
                Rest::Keep => (),
                // Nothing comes after the last pass that could repair noise.
                Rest::Noise if pass == passes => *token = choices[place].token,
                Rest::Noise => *token = of_place(NOISE)(place).below(vocabulary) as u32,
            }
        }
        watch(&Canvas { pass, tokens: &tokens, choices: &choices, accepted: &accepted });
        if pass == passes || options.stop.is_enough(&before, &tokens, &choices) {
            break;
        }
    }
    let log_likelihood = choices.iter().map(|choice| f64::from(choice.log_probability)).sum();
    Ok(Written { tokens, passes: pass, log_likelihood })
}
