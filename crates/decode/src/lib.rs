//! Writing with a trained model: its weights packed for inference, its keys and values kept, token after token.
//!
//! Nothing here goes through Burn but the reading of the weights. A step of one token is some thirty products that
//! memory's rate limits; whatever stands between two of them would show.

mod cache;
mod error;
mod generate;
mod packed_decoder;
pub mod parallel;
mod step;

pub use cache::KvCache;
pub use error::DecodeError;
pub use generate::{generate, most_likely};
pub use packed_decoder::{PackedDecoder, Positions};
pub use step::Stepper;
