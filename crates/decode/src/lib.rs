//! Writing with a trained model: its weights packed for inference, its keys and values kept, token after token.
//!
//! Nothing here goes through Burn but the reading of the weights. A step of one token is some thirty products that
//! memory's rate limits; whatever stands between two of them would show.

mod cache;
mod error;
mod generate;
mod likelihood;
mod packed_decoder;
pub mod parallel;
mod pass;
mod speculative;
mod step;

pub use cache::KvCache;
pub use error::DecodeError;
pub use generate::{generate, generate_all, most_likely};
pub use likelihood::log_likelihoods;
pub use packed_decoder::PackedDecoder;
pub use pass::Positions;
pub use speculative::{Speculated, SpeculativeOptions, speculate};
pub use step::Stepper;
