//! What can be wrong with a model, and what to do about it.

use lapidary_ops::CrossEntropyError;

use crate::checkpoint::CheckpointError;

/// An error of building, loading or evaluating a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The checkpoint folder could not be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A target that does not fit the logits.
    #[error(transparent)]
    Target(#[from] CrossEntropyError),
    /// A tensor that no parameter takes.
    #[error("{folder}: tensor {name} belongs to no parameter of this model")]
    Unknown {
        /// Checkpoint folder.
        folder: String,
        /// Tensor.
        name: String,
    },
    /// A token that the model does not have.
    #[error("token {id} is outside the vocabulary of {vocabulary}: is this the model's tokenizer?")]
    Token {
        /// The token's id.
        id: u32,
        /// Tokens that there are.
        vocabulary: usize,
    },
    /// A residual network of a depth that its plan does not have.
    #[error("a residual network for CIFAR-10 has 6n + 2 layers, such as 20, 32, 44 or 56, and not {0}")]
    Layers(usize),
    /// Unrolled denoising without a step.
    #[error("denoising has no steps: give a weight for each, one at least")]
    NoSteps,
    /// More tokens than the model has positions.
    #[error("an input has {length} tokens, the model has {positions} positions: set max_length to {positions} or less")]
    TooLong {
        /// Tokens of the input.
        length: usize,
        /// Positions of the model.
        positions: usize,
    },
}
