//! Tagged words as rows of tokens: the first token of a word has its tag (Devlin et al. 2019, 1810.04805, section 5.3),
//! and no word is lost, since a word without a prediction would change the scores of entities.

use std::ops::Range;

use lapidary_kernels::cross_entropy::IGNORED;
use rayon::prelude::*;
use tokenizers::{Encoding, OffsetType, PostProcessor, TruncationDirection};

use super::{Tokenizer, TokenizerError};
use crate::tag::{TagError, TagSet, TaggedSentence};
use crate::{Encoded, Target};

/// A sentence or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedRow {
    /// The index of the sentence in its set.
    pub sentence: usize,
    /// Which of the sentence's words are in this row.
    pub words: Range<usize>,
    /// The tokens of the words; its target has at the first token of each word the index of its tag.
    pub row: Encoded,
    /// Where the first token of each word is, `[words.len()]`; `None` for a word of which the tokenizer makes nothing,
    /// such as a control character.
    pub places: Vec<Option<usize>>,
}

/// A tokenised set of tagged sentences, and what happened to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedSet {
    /// In the order of the sentences, those of one sentence in the order of its words. Each word is in one row.
    pub rows: Vec<TaggedRow>,
    /// The number of sentences.
    pub sentences: usize,
    /// How many of them were longer than the limit, and were divided.
    pub divided: usize,
    /// How many words had more tokens than a row has room for, and lost the last of them.
    pub cut_words: usize,
    /// How many words have no token. They are not trained on, and no tag is predicted for them.
    pub tokenless: usize,
    outside: u32,
}

impl TaggedSet {
    /// One tag a word from one tag a token, by sentences: the tag of each word's first token, and O for a word that
    /// has none. `predicted` has for each row a tag index for each of its tokens, padding left out.
    ///
    /// # Panics
    /// When there is not exactly one tag per token.
    pub fn join<T: AsRef<[u32]>>(&self, predicted: &[T]) -> Vec<Vec<u32>> {
        assert_eq!(predicted.len(), self.rows.len(), "one list of tags per row");
        let mut joined = vec![Vec::new(); self.sentences];
        for (row, tags) in self.rows.iter().zip(predicted) {
            let tags = tags.as_ref();
            assert_eq!(tags.len(), row.row.ids.len(), "one tag per token");
            joined[row.sentence].extend(row.places.iter().map(|place| place.map_or(self.outside, |place| tags[place])));
        }
        joined
    }
}

impl Tokenizer {
    /// Tokenises tagged sentences on all threads; the result is the same on any number of them.
    ///
    /// Each word is tokenised by itself. A sentence of more than `max_length` tokens, special ones included, is
    /// divided between words, into rows of as many words as fit.
    ///
    /// # Errors
    /// At the first sentence whose words and tags differ in number, with a tag that is not listed, or with a word that
    /// has no ids in this vocabulary; when `max_length` has no room for any text.
    pub fn encode_tagged(
        &self,
        sentences: &[TaggedSentence],
        tags: &TagSet,
        max_length: usize,
    ) -> Result<TaggedSet, TokenizerError> {
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_length <= special {
            return Err(TokenizerError::Length { max_length, special });
        }
        let room = max_length - special;
        let cut = |(index, sentence)| {
            let failed = |cause| TokenizerError::Example { index, cause: Box::new(cause) };
            self.cut_sentence(index, sentence, tags, room).map_err(failed)
        };
        let cut: Vec<_> = sentences.par_iter().enumerate().map(cut).collect();
        let (sentences, outside) = (sentences.len(), tags.outside());
        let mut set = TaggedSet { rows: Vec::new(), sentences, divided: 0, cut_words: 0, tokenless: 0, outside };
        for rows in cut {
            let (rows, cut_words) = rows?;
            set.divided += usize::from(rows.len() > 1);
            set.cut_words += cut_words;
            set.tokenless += rows.iter().flat_map(|row| &row.places).filter(|place| place.is_none()).count();
            set.rows.extend(rows);
        }
        Ok(set)
    }

    /// The rows of a sentence, and how many of its words lost tokens.
    fn cut_sentence(
        &self,
        index: usize,
        sentence: &TaggedSentence,
        tags: &TagSet,
        room: usize,
    ) -> Result<(Vec<TaggedRow>, usize), TokenizerError> {
        let (words, tagged) = (sentence.words.len(), sentence.tags.len());
        if words != tagged {
            return Err(TokenizerError::Tagged { words, tags: tagged });
        }
        let mut cut_words = 0;
        let mut encodings = Vec::with_capacity(words);
        for word in &sentence.words {
            let mut encoding = self.encoding(word, OffsetType::None)?;
            cut_words += usize::from(encoding.len() > room);
            encoding.truncate(room, 0, TruncationDirection::Right);
            encoding.take_overflowing();
            encodings.push(encoding);
        }
        let tag = |(word, tag): (usize, &String)| {
            let unlisted = || TagError::Unlisted { tag: tag.clone(), word };
            tags.index(tag).map(i64::from).ok_or_else(unlisted)
        };
        let tags: Result<Vec<i64>, TagError> = sentence.tags.iter().enumerate().map(tag).collect();
        let tags = tags.map_err(TokenizerError::Tag)?;

        let mut rows = Vec::new();
        let mut start = 0;
        while start < words {
            let mut used = 0;
            let fits = encodings[start..].iter().take_while(|word| {
                used += word.len();
                used <= room
            });
            // No word has more tokens than there is room for, so one fits at least.
            let end = start + fits.count().max(1);
            rows.push(self.tagged_row(index, start..end, &encodings[start..end], &tags[start..end])?);
            start = end;
        }
        Ok((rows, cut_words))
    }

    fn tagged_row(
        &self,
        sentence: usize,
        words: Range<usize>,
        encodings: &[Encoding],
        tags: &[i64],
    ) -> Result<TaggedRow, TokenizerError> {
        let failed = |what: String| TokenizerError::Encode { text: format!("words {words:?} of a sentence"), what };
        let text = Encoding::merge(encodings.iter().cloned(), false);
        let tokens = text.len();
        let encoding = self.inner.post_process(text, None, true).map_err(|cause| failed(cause.to_string()))?;
        // The template may put special tokens before and behind; all others are those of the words, in their order.
        let special = encoding.get_special_tokens_mask();
        let head = special.iter().take_while(|&&special| special == 1).count();
        if special.len() - special.iter().filter(|&&special| special == 1).count() != tokens
            || special[head..].iter().take(tokens).any(|&special| special == 1)
        {
            return Err(failed("the tokenizer's template for a text does not hold it once".into()));
        }

        let mut target = vec![IGNORED; encoding.len()];
        let mut places = Vec::with_capacity(words.len());
        let mut next = head;
        for (word, &tag) in encodings.iter().zip(tags) {
            let place = (!word.is_empty()).then_some(next);
            if let Some(place) = place {
                target[place] = tag;
            }
            places.push(place);
            next += word.len();
        }
        let row = Encoded {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            image: None,
            target: Target::Tags(target),
        };
        Ok(TaggedRow { sentence, words, row, places })
    }
}
