//! How well a model knows a text: its exact log-likelihood, token by token.

use std::ops::Range;

use lapidary_data::TokenStore;
use lapidary_data::store::StoreError;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::mask::Mask;
use lapidary_models::decoder::Decoder;
use lapidary_models::{ModelError, Pass};

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
