//! Rules for written English: where a [sentence](mod@sentence) ends, and the one form in which tokenised and raw text
//! [read the same](mod@ptb).

mod abbreviation;
pub mod ptb;
pub mod sentence;

pub use ptb::ptb_words;
pub use sentence::sentences;
