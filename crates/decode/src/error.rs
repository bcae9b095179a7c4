//! What can be wrong with a request.

/// An error of packing a model or of writing with it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A token that the model does not have.
    #[error("token {id} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token's id.
        id: u32,
        /// Number of tokens that there are.
        vocabulary: usize,
    },
    /// More tokens than the model has positions, or than the cache has room for.
    #[error("{tokens} tokens do not fit: there is room for {capacity}")]
    TooLong {
        /// All tokens, those in the cache included.
        tokens: usize,
        /// The most that there may be.
        capacity: usize,
    },
    /// Each sequence has a cache of its own.
    #[error("{sequences} sequences need as many caches, not {caches}")]
    Caches {
        /// Sequences that were to be read.
        sequences: usize,
        /// Caches that were given.
        caches: usize,
    },
    /// What a pass said of other places than there are.
    #[error("what a pass said of {expected} places is not of the {places} of these canvases")]
    Expected {
        /// Of the canvases.
        places: usize,
        /// That something was said of.
        expected: usize,
    },
    /// Nothing to go on from.
    #[error("the prompt is empty: give one token at least")]
    EmptyPrompt,
    /// A canvas without places.
    #[error("the canvas is empty: give one place at least")]
    EmptyCanvas,
    /// No passes over the canvas.
    #[error("a canvas takes one pass at least, not 0")]
    NoPasses,
    /// A model that has been cut, whose activations or tables are rounded on the way.
    #[error(
        "{what} of this model is rounded to few bits, which decoding does not do yet: use the model before the cut"
    )]
    Cut {
        /// The part of the model.
        what: &'static str,
    },
}
