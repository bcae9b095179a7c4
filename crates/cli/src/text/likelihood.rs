//! How well a model knows a text: its exact log-likelihood, token by token, and for models that repair a bound on it.

use std::ops::Range;

use lapidary_data::TokenStore;
use lapidary_data::store::StoreError;
use lapidary_kernels::choice::log_probabilities;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::Decoder;
use lapidary_models::objective::{denoising_bound, own_odds};
use lapidary_models::{ModelError, Pass};
use rayon::prelude::*;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum LikelihoodError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Model(#[from] ModelError),

    #[error("stopped while reading the held-out text; run the same command again to go on")]
    Stopped,
}

/// `-log p` of a text, in nats, and how many tokens it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    pub nats: f64,
    pub tokens: u64,
}

impl Likelihood {
    /// Bits that an arithmetic coder with this model would need a byte.
    pub fn bits_a_byte(&self, bytes: u64) -> f64 {
        self.nats / std::f64::consts::LN_2 / bytes as f64
    }

    /// `exp` of the mean.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

/// The place that corruption of canvases draws from.
const BOUND: u64 = 1 << 59;

/// Windows that are evaluated together.
const ROWS: usize = 8;

/// The likelihood of a part of a store under a decoder with a causal mask. Windows of `length` positions overlap by a
/// quarter, which does not count again, so that a token has a quarter of a window before it at least, or all there is.
/// The part's first token is predicted from the token that ends documents. `go_on` is told the share that is done, and
/// whether it is to go on.
///
/// # Errors
/// A store that cannot be read, tokens that the model does not have; [`LikelihoodError::Stopped`].
pub fn autoregressive(
    model: &Decoder,
    store: &TokenStore,
    part: Range<u64>,
    length: usize,
    pass: &Pass,
    mut go_on: impl FnMut(f64) -> bool,
) -> Result<Likelihood, LikelihoodError> {
    let fresh = (length - length / 4).max(1) as u64;
    let mut total = Likelihood { nats: 0.0, tokens: part.end - part.start };
    // A window is named by where what counts in it begins.
    let first = part.start + length as u64;
    let starts: Vec<u64> = std::iter::once(part.start).chain((first..part.end).step_by(fresh as usize)).collect();
    let batches = starts.len().div_ceil(ROWS);
    for (batch, starts) in starts.chunks(ROWS).enumerate() {
        if !go_on(batch as f64 / batches as f64) {
            return Err(LikelihoodError::Stopped);
        }
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for &start in starts {
            let end = part.end.min(if start == part.start { first } else { start + fresh });
            // As many inputs as fit before the last target.
            let begin = end.saturating_sub(length as u64).max(part.start);
            let mut window = if begin == part.start { vec![store.end()] } else { store.read(begin - 1..begin)? };
            window.extend(store.read(begin..end)?);
            let inputs = window.len() - 1;
            ids.extend(&window[..inputs]);
            ids.extend(std::iter::repeat_n(store.end(), length - inputs));
            let counts = |place: u64| place >= start;
            targets.extend(
                (begin..end).zip(&window[1..]).map(|(place, id)| if counts(place) { i64::from(*id) } else { IGNORED }),
            );
            targets.extend(std::iter::repeat_n(IGNORED, length - inputs));
        }
        let loss = model.loss(&ids, &targets, starts.len(), &Mask::causal(), 1.0, pass)?;
        total.nats += f64::from(loss.into_scalar::<f32>());
    }
    Ok(total)
}

/// What the logits of a place are taken for, by which the bound is tighter or looser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// What the model says from all other places: nothing is taken off.
    Left,
    /// What it says from all places at the rate of corruption that it itself sees, so that what it has from the token of
    /// the place is taken off again.
    TakenOff,
}

/// An upper bound on `-log p` of a part of a store under a decoder that repairs: see [`denoising_bound`]. Canvases of
/// three quarters of `length` lie one behind the other, each with the quarter before it as its prompt. Each is corrupted
/// once, at rates that are spread evenly over all of them: an estimate of the bound, whose error falls with the number of
/// canvases.
///
/// # Errors
/// As [`autoregressive`].
pub fn denoising(
    model: &Decoder,
    store: &TokenStore,
    part: Range<u64>,
    length: usize,
    own: Own,
    seed: u64,
    mut go_on: impl FnMut(f64) -> bool,
) -> Result<Likelihood, LikelihoodError> {
    let shifted = model.has_shifted_canvas();
    // With the token before the first canvas a window is no longer than the model's positions.
    let length = length - usize::from(shifted);
    let (prompt, canvas) = (length / 4, (length - length / 4) as u64);
    let mut total = Likelihood { nats: 0.0, tokens: part.end - part.start };
    let starts: Vec<u64> = part.clone().step_by(canvas as usize).collect();
    let batches = starts.len().div_ceil(ROWS);
    for (batch, starts) in starts.chunks(ROWS).enumerate() {
        if !go_on(batch as f64 / batches as f64) {
            return Err(LikelihoodError::Stopped);
        }
        let mut rows = Vec::new();
        for (row, &start) in starts.iter().enumerate() {
            let begin = start.saturating_sub(prompt as u64).max(part.start);
            let mut ids = store.read(begin..part.end.min(start + canvas))?;
            let mut prompt = (start - begin) as usize;
            // A shifted canvas wants a token before it: the one that ends documents, as token after token.
            if shifted && prompt == 0 {
                ids.insert(0, store.end());
                prompt = 1;
            }
            let number = (batch * ROWS + row) as u64;
            rows.push(Row::corrupt(ids, prompt, model.vocabulary(), seed, number));
        }
        let ends: Vec<usize> = rows.iter().map(|row| row.noisy.len()).collect();
        let longest = ends.iter().copied().max().unwrap_or(0);
        let mut ids = Vec::new();
        for row in &rows {
            ids.extend(&row.noisy);
            ids.extend(std::iter::repeat_n(store.end(), longest - row.noisy.len()));
        }
        let begins: Vec<usize> = rows.iter().map(|row| row.prompt - usize::from(shifted)).collect();
        let mask = Mask::canvas(begins).with_lengths(ends);
        let logits = model.logits(&ids, rows.len(), &mask, &Pass::evaluation())?;
        let mut logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let each = longest * model.vocabulary();
        total.nats += rows
            .iter()
            .zip(logits.chunks_exact_mut(each))
            .map(|(row, logits)| row.bound(logits, own, shifted))
            .sum::<f64>();
    }
    Ok(total)
}

/// A prompt and a canvas behind it that has been corrupted.
struct Row {
    text: Vec<u32>,
    noisy: Vec<u32>,
    prompt: usize,
    vocabulary: usize,
    rate: f64,
}

impl Row {
    /// The `number`-th row of all.
    fn corrupt(text: Vec<u32>, prompt: usize, vocabulary: usize, seed: u64, number: u64) -> Self {
        // Multiples of the golden ratio lie evenly in [0, 1), however many there are.
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let rate = (0.5 + number as f64 * GOLDEN).fract().clamp(1e-6, 1.0 - 1e-6);
        let mut stream = Stream::at_place(seed, number, BOUND);
        let mut noisy = text.clone();
        for id in &mut noisy[prompt..] {
            if f64::from(stream.uniform()) < rate {
                *id = stream.below(vocabulary) as u32;
            }
        }
        Self { text, noisy, prompt, vocabulary, rate }
    }

    /// The bound's integrand over the canvas, in nats, given the logits of all of the row.
    fn bound(&self, logits: &mut [f32], own: Own, shifted: bool) -> f64 {
        let vocabulary = self.vocabulary;
        let canvas = self.prompt..self.text.len();
        let said = canvas.start - usize::from(shifted)..canvas.end - usize::from(shifted);
        let logits = &mut logits[said.start * vocabulary..said.end * vocabulary];
        if own == Own::TakenOff {
            let noisy = &self.noisy[canvas.clone()];
            let mut says = vec![0.0; noisy.len()];
            log_probabilities(logits, vocabulary, noisy, &mut says);
            let changed: f64 = says.iter().map(|log_p| 1.0 - f64::from(*log_p).exp()).sum();
            // A token that corruption draws is the text's own once in a vocabulary.
            let rate = changed / noisy.len() as f64 * vocabulary as f64 / (vocabulary - 1) as f64;
            let odds = own_odds(vocabulary, rate.clamp(0.5 / noisy.len() as f64, 1.0));
            for (logits, noisy) in logits.chunks_exact_mut(vocabulary).zip(noisy) {
                logits[*noisy as usize] -= odds as f32;
            }
        }
        let places: Vec<(usize, usize)> =
            canvas.map(|place| (self.text[place] as usize, self.noisy[place] as usize)).collect();
        let at =
            |(logits, (token, noisy)): (&[f32], &(usize, usize))| denoising_bound(logits, *token, *noisy, self.rate);
        let each: Vec<f64> = logits.par_chunks_exact(vocabulary).zip(&places).map(at).collect();
        // In their order, so that the sum is the same on any number of threads.
        each.iter().sum()
    }
}
