//! Text as a user wrote it, of any length, to ids: whatever it holds, it makes no special tokens.
//!
//! `tokenizers` looks for special tokens in every text, so that a document which quotes `<eos>` would end there. Here
//! they are told apart: [`Tokenizer::encode_text`] reads all of a text as text, and
//! [`Tokenizer::encode_with_special`] is for templates, whose special tokens are meant.

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{AddedVocabulary, Encoding, Model, OffsetType, PreTokenizer};

use super::{Tokenizer, TokenizerError};

/// Bytes after which a long text is cut at the next place where that changes no token.
const PIECE_BYTES: usize = 64 << 10;

/// How a tokenizer reads text without looking for special tokens in it.
#[derive(Debug, Clone)]
pub(super) struct PlainText {
    /// The tokens that are no part of the model, the special ones among them passed over.
    added: AddedVocabulary,
    /// Whether a text may be [cut](pieces) without a change of its ids.
    divisible: bool,
}

impl PlainText {
    pub(super) fn new(inner: &tokenizers::Tokenizer, file: &Value) -> PlainText {
        let mut added = inner.get_added_vocabulary().clone();
        added.set_encode_special_tokens(true);
        // The regex of ByteLevel takes white space only to the front of a word, never to its end; and nothing else
        // that could look beyond a cut has a part in it.
        let before = &file["pre_tokenizer"];
        let divisible = before["type"] == "ByteLevel"
            && before["add_prefix_space"] == false
            && before["use_regex"] != false
            && file["normalizer"].is_null()
            && added.get_added_tokens_decoder().values().all(|token| token.special);
        PlainText { added, divisible }
    }
}

impl Tokenizer {
    /// The ids of a text, none added and none special: `"<eos>"` in it becomes the ids of its characters.
    ///
    /// With a vocabulary made by [`Tokenizer::train`], [`decode`](Self::decode) gives exactly this text back, and a
    /// long text is encoded on all threads, with ids that do not depend on their number.
    ///
    /// # Errors
    /// When the text has no ids in this vocabulary, which bytes always have.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if !self.plain.divisible {
            return self.encode_piece(text);
        }
        let pieces: Vec<&str> = pieces(text, PIECE_BYTES).collect();
        let ids: Result<Vec<_>, _> = pieces.par_iter().map(|piece| self.encode_piece(piece)).collect();
        Ok(ids?.concat())
    }

    /// The ids of a text in which special tokens stand by their names, as in a template for a conversation. Never for
    /// text of a user.
    ///
    /// # Errors
    /// When the text has no ids in this vocabulary.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|cause| failed(text, cause))?;
        Ok(encoding.get_ids().to_vec())
    }

    fn encode_piece(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.encoding(text, OffsetType::None)?.get_ids().to_vec())
    }

    /// The tokens of a text, none added and none special, with the places in it that they stand for.
    pub(super) fn encoding(&self, text: &str, offsets: OffsetType) -> Result<Encoding, TokenizerError> {
        let encoding = || {
            let mut pieces = self.plain.added.extract_and_normalize(self.inner.get_normalizer(), text);
            if let Some(before) = self.inner.get_pre_tokenizer() {
                before.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get()))?;
            pieces.into_encoding(None, 0, offsets)
        };
        encoding().map_err(|cause| failed(text, cause))
    }
}

pub(super) fn failed(text: &str, cause: tokenizers::Error) -> TokenizerError {
    TokenizerError::Encode { text: text.chars().take(60).collect(), what: cause.to_string() }
}

/// A text in pieces of at least `bytes`, the last excepted, cut where white space follows something else: there the
/// regex of ByteLevel always begins a new word.
pub(super) fn pieces(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut in_word = false;
        let cut = rest.char_indices().skip_while(|&(at, _)| at + char::MAX.len_utf8() < bytes).find(|&(_, next)| {
            let found = in_word && next.is_whitespace();
            in_word = !next.is_whitespace();
            found
        });
        let (piece, after) = rest.split_at(cut.map_or(rest.len(), |(at, _)| at));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_lose_nothing(text in r"[a \n\u{a0}é😀]{0,80}", bytes in 0usize..30) {
            let found: Vec<&str> = pieces(&text, bytes).collect();
            prop_assert_eq!(found.concat(), text.as_str());
            for pair in found.windows(2) {
                prop_assert!(pair[0].len() + char::MAX.len_utf8() >= bytes);
                prop_assert!(pair[0].ends_with(|end: char| !end.is_whitespace()));
                prop_assert!(pair[1].starts_with(char::is_whitespace));
            }
        }
    }
}
