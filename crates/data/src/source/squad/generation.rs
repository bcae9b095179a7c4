//! Questions turned round: from a passage and an answer in it, a question.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{DataError, SpanQuestion, SpanQuestions, quote, read_spans};
use crate::Pair;
use crate::english::sentences;

/// What a question is written from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionSource {
    /// The sentence of the passage that holds the answer, and all of them where it spans several: Du et al. 2017
    /// (1705.00106), section 5.1. The sentences are those of [`sentences`].
    Sentence,
    /// The answer, this separator as it stands, and the passage.
    Passage { separator: String },
}

/// What a file of questions gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Questions {
    /// One for each question that has an answer, with the question as its only target. Equal sources are not
    /// [grouped](crate::pair::group).
    pub pairs: Vec<Pair>,
    /// Questions that were left out because the file says that they have no answer in their passage (`is_impossible`,
    /// SQuAD 2.0).
    pub impossible: u64,
}

/// Reads questions to be written, from a file of either format of [`read_spans`]. The first answer counts; those of
/// further annotators do not.
///
/// # Errors
/// As [`read_spans`].
pub fn read(path: &Path, from: &QuestionSource) -> Result<Questions, DataError> {
    let SpanQuestions { questions, impossible } = read_spans(path)?;
    let mut pairs = Vec::with_capacity(questions.len());
    let mut passage: Option<Passage<'_>> = None;
    for asked in &questions {
        // Those of one passage come one after the other.
        let known = passage.take().filter(|known| Arc::ptr_eq(known.text, &asked.passage));
        let here = known.unwrap_or_else(|| Passage::new(&asked.passage, from));
        let pair = here.pair(asked, from);
        let wrong = |what| DataError::Question { path: path.to_path_buf(), question: quote(&asked.question), what };
        pairs.push(pair.map_err(wrong)?);
        passage = Some(here);
    }
    Ok(Questions { pairs, impossible })
}

/// A passage with what its questions share.
struct Passage<'a> {
    text: &'a Arc<str>,
    sentences: Vec<Range<usize>>,
}

impl<'a> Passage<'a> {
    fn new(text: &'a Arc<str>, from: &QuestionSource) -> Passage<'a> {
        let sentences = match from {
            QuestionSource::Sentence => sentences(text),
            QuestionSource::Passage { .. } => Vec::new(),
        };
        Passage { text, sentences }
    }

    fn pair(&self, asked: &SpanQuestion, from: &QuestionSource) -> Result<Pair, String> {
        let first = asked.answers.first().ok_or("it has no answer")?;
        let (text, answer) = (self.text, first.bytes());
        match from {
            QuestionSource::Sentence => {
                let holds = |sentence: &&Range<usize>| sentence.start < answer.end && answer.start < sentence.end;
                let mut holding = self.sentences.iter().filter(holds);
                // There is one: all but white space is in a sentence.
                let first = holding.next().cloned().unwrap_or(answer.clone());
                let end = holding.next_back().map_or(first.end, |last| last.end);
                Pair::new(&text[first.start..end], [asked.question.as_str()])
            }
            QuestionSource::Passage { separator } => {
                Pair::new(&format!("{}{separator}{text}", first.text), [asked.question.as_str()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{CONTEXT, line, nested, read_text};
    use super::*;

    fn sources(questions: &Questions) -> Vec<&str> {
        questions.pairs.iter().map(|pair| pair.source.as_str()).collect()
    }

    #[test]
    fn a_source_is_the_sentences_of_the_answer_or_the_passage() {
        let official = nested(
            "{\"question\": \" Who? \", \"answers\": [{\"text\": \"Bo\", \"answer_start\": 17}, \
             {\"text\": \"9\", \"answer_start\": 60}]}, \
             {\"question\": \"What?\", \"answers\": [{\"text\": \"talked. Nobody\", \"answer_start\": 26}]}, \
             {\"question\": \"Why?\", \"answers\": [], \"is_impossible\": true}",
        );
        let flat = line(
            "{\"question\": \"Who?\", \"answer\": \"Bo\"}, {\"question\": \"What?\", \"answer\": \"talked. Nobody\"}",
        );
        let passage = QuestionSource::Passage { separator: " | ".into() };
        for (name, text, impossible) in
            [("a.json", &official, 1), ("a.json.zst", &official, 1), ("a.jsonl.zst", &flat, 0)]
        {
            let questions = read_text(name, text, |path| read(path, &QuestionSource::Sentence)).unwrap();
            assert_eq!(sources(&questions), ["Ångström met Dr. Bo.", "They talked. Nobody heard."]);
            assert_eq!((questions.pairs[0].targets.join("/"), questions.impossible), ("Who?".into(), impossible));
            let questions = read_text(name, text, |path| read(path, &passage)).unwrap();
            assert_eq!(sources(&questions), [format!("Bo | {CONTEXT}"), format!("talked. Nobody | {CONTEXT}")]);
        }
    }
}
