//! A question and its passage as rows of a fixed greatest length: windows over the passage, each behind the whole
//! question, so that a passage of any length can be read (Devlin et al. 2019, 1810.04805, section 4.2, and their code).

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokenizers::{Encoding, OffsetType, Offsets, PostProcessor, TruncationDirection};

use super::{Tokenizer, TokenizerError};
use crate::span::SpanQuestion;
use crate::{Encoded, Target};

/// How passages are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpanOptions {
    /// The most tokens of a window, special ones included.
    pub max_length: usize,
    /// How many tokens of the passage each window shares with the one before it. (The first BERT's `doc_stride` is
    /// how many it does not share; this is the stride of Hugging Face.)
    pub stride: usize,
    /// The most tokens of a question; its end is cut off.
    pub question_length: usize,
}

impl Default for SpanOptions {
    fn default() -> SpanOptions {
        SpanOptions { max_length: 384, stride: 128, question_length: 64 }
    }
}

/// A question with a part of its passage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanWindow {
    /// The index of the question in its set.
    pub question: usize,
    /// `[CLS] question [SEP] part of the passage [SEP]`. Its target is the places of the first answer's first and last
    /// token, which may hold more than the answer; or place 0, `[CLS]`, twice where the answer is not wholly in this
    /// part.
    pub row: Encoded,
    /// The places of the passage's tokens in the row.
    pub passage: Range<usize>,
    /// The bytes of the passage that each of these tokens stands for, `[passage.len()]`.
    pub bytes: Vec<Range<usize>>,
}

impl SpanWindow {
    /// The bytes of the passage that the token at this place of the row stands for, or `None` if it is no token of the
    /// passage.
    pub fn bytes_of(&self, place: usize) -> Option<&Range<usize>> {
        place.checked_sub(self.passage.start).and_then(|token| self.bytes.get(token))
    }

    /// Whether the answer is in this part of the passage.
    pub fn has_answer(&self) -> bool {
        matches!(self.row.target, Target::Span { start, .. } if start > 0)
    }
}

/// The windows of a set of questions, and what was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanSet {
    /// In the order of the questions, those of one question in the order of its passage. Each question has one at
    /// least.
    pub windows: Vec<SpanWindow>,
    /// How many questions were longer than the limit and were cut.
    pub cut_questions: usize,
    /// How many questions have no window that holds the whole of their first answer.
    pub unanswerable: usize,
}

impl SpanSet {
    /// The windows of one question.
    pub fn of(&self, question: usize) -> &[SpanWindow] {
        let start = self.windows.partition_point(|window| window.question < question);
        let end = self.windows.partition_point(|window| window.question <= question);
        &self.windows[start..end]
    }
}

impl Tokenizer {
    /// Cuts questions and passages into windows, on all threads; the result is the same on any number of them.
    ///
    /// The next window begins `stride` tokens before the end of the one before it, until one ends with the passage.
    /// Ids, types and windows are those of Hugging Face's tokenizers with `truncation="only_second"`, `stride` and
    /// `return_overflowing_tokens`, but that a text which quotes a special token holds none:
    /// [`encode_text`](Self::encode_text).
    ///
    /// The tokens of an answer are all that stand for any of its characters, and a window has it if it has them all.
    /// These are the places that Hugging Face's `run_qa.py` finds, with three differences, all of them to be sure to
    /// train on the answer: one that ends a window does not begin behind it; of a character that made several tokens
    /// all are the answer's; and a character at the answer's ends for which no token stands, such as an accent that
    /// was left out, does not draw in the next token or rule the answer out.
    ///
    /// # Errors
    /// For options that leave no window room to move on; a tokenizer that does not put a special token before the
    /// question, which stands for no answer; a text that has no ids in this vocabulary.
    pub fn span_windows(&self, questions: &[SpanQuestion], options: &SpanOptions) -> Result<SpanSet, TokenizerError> {
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let SpanOptions { max_length, stride, question_length } = *options;
        let room = max_length.checked_sub(special).and_then(|room| room.checked_sub(question_length));
        if question_length == 0 || room.is_none_or(|room| room <= stride) {
            return Err(TokenizerError::Windows { max_length, stride, question_length, special });
        }

        // Those of one passage come one after the other, and it is tokenised once.
        let groups: Vec<_> = questions.chunk_by(|a, b| a.passage == b.passage).collect();
        let starts = groups.iter().scan(0, |next, group| Some(std::mem::replace(next, *next + group.len())));
        let starts: Vec<usize> = starts.collect();
        let cut: Vec<_> =
            groups.into_par_iter().zip(starts).map(|(group, first)| self.cut(group, first, options)).collect();
        let mut set = SpanSet { windows: Vec::new(), cut_questions: 0, unanswerable: 0 };
        for group in cut {
            let group = group?;
            set.windows.extend(group.windows);
            set.cut_questions += group.cut_questions;
            set.unanswerable += group.unanswerable;
        }
        Ok(set)
    }

    /// The windows of questions on one passage, the first of them question `first` of the set.
    fn cut(&self, questions: &[SpanQuestion], first: usize, options: &SpanOptions) -> Result<SpanSet, TokenizerError> {
        let mut set = SpanSet { windows: Vec::new(), cut_questions: 0, unanswerable: 0 };
        let mut passage = None;
        for (index, asked) in questions.iter().enumerate() {
            let failed = |cause| TokenizerError::Example { index: first + index, cause: Box::new(cause) };
            let passage = match &passage {
                Some(passage) => passage,
                None => passage.insert(self.encoding(&asked.passage, OffsetType::Byte).map_err(failed)?),
            };
            let mut question = self.encoding(&asked.question, OffsetType::Byte).map_err(failed)?;
            set.cut_questions += usize::from(question.len() > options.question_length);
            question.truncate(options.question_length, 0, TruncationDirection::Right);
            question.take_overflowing();

            let answer = asked.answers.first().and_then(|answer| tokens_of(&answer.bytes(), passage.get_offsets()));
            let before = set.windows.len();
            for (start, part) in self.parts(passage, &question, options) {
                let end = start + part.len();
                let here = answer.filter(|&(first, last)| start <= first && last < end);
                let here = here.map(|(first, last)| (first - start, last - start));
                let window = self.window(first + index, asked, question.clone(), part, here);
                set.windows.push(window.map_err(failed)?);
            }
            set.unanswerable += usize::from(!set.windows[before..].iter().any(SpanWindow::has_answer));
        }
        Ok(set)
    }

    /// The parts of a passage that fit beside a question, and which of its tokens each begins with.
    fn parts(&self, passage: &Encoding, question: &Encoding, options: &SpanOptions) -> Vec<(usize, Encoding)> {
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let mut first = passage.clone();
        // More than the stride, which `span_windows` has checked for the longest question.
        let room = options.max_length.saturating_sub(special + question.len());
        first.truncate(room, options.stride, TruncationDirection::Right);
        let more = first.take_overflowing();
        let parts = [first].into_iter().chain(more).enumerate();
        parts.map(|(index, part)| (index * room.saturating_sub(options.stride), part)).collect()
    }

    /// One row. `answer` has the first and the last token of the answer, counted from the first of `part`.
    fn window(
        &self,
        index: usize,
        asked: &SpanQuestion,
        question: Encoding,
        part: Encoding,
        answer: Option<(usize, usize)>,
    ) -> Result<SpanWindow, TokenizerError> {
        let failed =
            |what: &str| TokenizerError::Encode { text: asked.question.chars().take(60).collect(), what: what.into() };
        let (asked_tokens, tokens) = (question.len(), part.len());
        let encoding =
            self.inner.post_process(question, Some(part), true).map_err(|cause| failed(&cause.to_string()))?;

        // Where the template has put the two.
        let texts = encoding.get_sequence_ids();
        let count = |text| texts.iter().filter(|&&found| found == Some(text)).count();
        let start = texts.iter().position(|&text| text == Some(1)).unwrap_or(texts.len());
        let together = texts[start..].iter().take(tokens).all(|&text| text == Some(1));
        if count(0) != asked_tokens || count(1) != tokens || !together {
            return Err(failed("the tokenizer's template for a pair does not hold each text once"));
        }
        if encoding.get_special_tokens_mask().first() != Some(&1) {
            return Err(failed("the tokenizer puts no special token before a pair, which would stand for no answer"));
        }
        let passage = start..start + tokens;
        let bytes: Vec<Range<usize>> = encoding.get_offsets()[passage.clone()].iter().map(|&(a, b)| a..b).collect();
        if bytes.iter().any(|bytes| asked.passage.get(bytes.clone()).is_none()) {
            return Err(failed("the tokenizer gives places that are no part of the passage"));
        }
        let (start, end) = answer.map_or((0, 0), |(first, last)| (passage.start + first, passage.start + last));
        let row = Encoded {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            image: None,
            target: Target::Span { start, end },
        };
        Ok(SpanWindow { question: index, row, passage, bytes })
    }
}

/// The first and the last token of a passage that stand for some byte of an answer, or `None` if none does.
fn tokens_of(answer: &Range<usize>, tokens: &[Offsets]) -> Option<(usize, usize)> {
    let first = tokens.iter().position(|&(_, end)| end > answer.start)?;
    let last = tokens.iter().rposition(|&(start, _)| start < answer.end)?;
    (first <= last).then_some((first, last))
}
