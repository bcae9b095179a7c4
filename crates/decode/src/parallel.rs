//! Writing a whole canvas in a few passes: it starts as random tokens, and each pass repairs it.
//!
//! Every pass makes a [`Choice`] for each place of the canvas. What becomes of the choices is put together from small
//! parts: the [`Schedule`] says how many passes there are and how warm each is, the [`Acceptance`] which places take
//! their choice, the [`Rest`] what happens to the others, the [`Length`] where the text ends, and the [`Stop`] when it
//! is enough.

mod acceptance;
mod blocks;
mod candidates;
mod length;
mod schedule;
mod stop;
mod verified;

pub use acceptance::{Acceptance, Rest};
pub use blocks::write_blocks;
pub use candidates::{Candidates, Rerank, rerank};
pub use length::{Ending, Length};
pub use schedule::Schedule;
pub use stop::Stop;
pub use verified::{VerifiedOptions, write_verified};

use std::borrow::BorrowMut;

use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::rng::Stream;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::PackedDecoder;
use acceptance::Sight;

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
    /// Where the text ends.
    pub length: Length,
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
}

/// Draws of these kinds come from places of their own.
const START: u64 = 1 << 40;
const SHARE: u64 = 2 << 40;
const NOISE: u64 = 3 << 40;
const LENGTH: u64 = 4 << 40;

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
    let mut written = write_all(decoder, &mut [cache], options, &[options.seed], |_, canvas| watch(canvas))?;
    Ok(written.remove(0))
}

/// Writes a canvas behind the prompt of each cache, the draws of each from a seed of its own, which takes the place of
/// the options'. Each is what [`write`] makes of its cache and seed alone; together they read the weights once a pass.
///
/// # Errors
/// As [`write`], and another number of seeds than of caches.
pub fn write_all(
    decoder: &PackedDecoder,
    caches: &mut [impl BorrowMut<KvCache>],
    options: &ParallelOptions,
    seeds: &[u64],
    mut watch: impl FnMut(usize, &Canvas),
) -> Result<Vec<Written>, DecodeError> {
    if options.canvas == 0 {
        return Err(DecodeError::EmptyCanvas);
    }
    if options.schedule.passes == 0 {
        return Err(DecodeError::NoPasses);
    }
    if caches.len() != seeds.len() {
        return Err(DecodeError::Caches { sequences: seeds.len(), caches: caches.len() });
    }
    let mut caches: Vec<&mut KvCache> = caches.iter_mut().map(BorrowMut::borrow_mut).collect();
    let mut drafts: Vec<Draft> = seeds.iter().map(|seed| Draft::new(decoder.vocabulary(), options, *seed)).collect();
    drafts.iter().enumerate().for_each(|(row, draft)| watch(row, &draft.canvas()));
    // Those that are not finished, by row.
    let mut open: Vec<usize> = (0..drafts.len()).collect();
    while !open.is_empty() {
        let tokens: Vec<&[u32]> = open.iter().map(|row| drafts[*row].tokens.as_slice()).collect();
        let mut of_open: Vec<&mut KvCache> = caches
            .iter_mut()
            .enumerate()
            .filter(|(row, _)| open.contains(row))
            .map(|(_, cache)| &mut **cache)
            .collect();
        // All open canvases have had as many passes.
        let said: Vec<f32> = open.iter().flat_map(|row| &drafts[*row].expected).copied().collect();
        let mut logits = match said.is_empty() {
            true => decoder.repair_all(&tokens, &mut of_open)?,
            false => decoder.repair_again(&tokens, &said, &mut of_open)?,
        };
        if let Some(expected) = decoder.expected(&logits) {
            let of_rows = expected.chunks_exact(expected.len() / open.len());
            open.iter().zip(of_rows).for_each(|(row, expected)| drafts[*row].expected = expected.to_vec());
        }
        let each = options.canvas * decoder.vocabulary();
        let mut of_row = logits.chunks_exact_mut(each);
        open.retain(|&row| {
            let draft = &mut drafts[row];
            let goes_on = of_row.next().is_some_and(|logits| draft.advance(logits, options));
            watch(row, &draft.canvas());
            goes_on
        });
    }
    Ok(drafts.into_iter().map(Draft::finish).collect())
}

/// A canvas on its way.
struct Draft {
    vocabulary: usize,
    seed: u64,
    pass: usize,
    tokens: Vec<u32>,
    choices: Vec<Choice>,
    accepted: Vec<bool>,
    /// Tokens of the text, once that is decided.
    length: Option<usize>,
    /// What the pass before said of each place, for models that read it.
    expected: Vec<f32>,
}

impl Draft {
    fn new(vocabulary: usize, options: &ParallelOptions, seed: u64) -> Self {
        let n = options.canvas;
        let mut start = Stream::at_place(seed, 0, START);
        Self {
            vocabulary,
            seed,
            pass: 0,
            tokens: (0..n).map(|_| start.below(vocabulary) as u32).collect(),
            choices: vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; n],
            accepted: vec![false; n],
            length: None,
            expected: Vec::new(),
        }
    }

    fn canvas(&self) -> Canvas<'_> {
        Canvas { pass: self.pass, tokens: &self.tokens, choices: &self.choices, accepted: &self.accepted }
    }

    /// A pass, given the logits of the canvas; whether there is to be another.
    fn advance(&mut self, logits: &mut [f32], options: &ParallelOptions) -> bool {
        self.pass += 1;
        if self.pass == 1 {
            self.length = options.length.decide(logits, self.vocabulary, Stream::at_place(self.seed, 1, LENGTH));
        }
        if let Some(length) = self.length {
            options.length.hold(logits, self.vocabulary, length);
        }
        let (pass, passes, step) = (self.pass, options.schedule.passes, self.pass as u64);
        let of_place = |kind: u64| {
            let seed = self.seed;
            move |place: usize| Stream::at_place(seed, step, kind + place as u64)
        };
        let uniform: Vec<f32> = (0..self.tokens.len()).map(|place| of_place(0)(place).uniform()).collect();
        let previous = self.choices.clone();
        choose(logits, self.vocabulary, options.schedule.temperature(pass), &uniform, &mut self.choices);
        let sight = Sight { choices: &self.choices, previous: &previous, pass, passes };
        options.acceptance.accept(&sight, of_place(SHARE), &mut self.accepted);
        let before = self.tokens.clone();
        for (place, token) in self.tokens.iter_mut().enumerate() {
            match options.rest {
                _ if self.accepted[place] => *token = self.choices[place].token,
                Rest::Keep => (),
                // Nothing comes after the last pass that could repair noise.
                Rest::Noise if pass == passes => *token = self.choices[place].token,
                Rest::Noise => *token = of_place(NOISE)(place).below(self.vocabulary) as u32,
            }
        }
        pass < passes && !options.stop.is_enough(&before, &self.tokens, &self.choices)
    }

    fn finish(self) -> Written {
        Written { tokens: self.tokens, passes: self.pass }
    }
}
