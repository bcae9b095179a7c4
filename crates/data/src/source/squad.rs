//! SQuAD (Rajpurkar et al. 2016, 1606.05250) turned round: from a passage and an answer in it, a question.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::lines::{self, Lines};
use super::text::MAX_DOCUMENT_BYTES;
use super::{DataError, is_zst, quote};
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

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph<Question>>,
}

#[derive(Deserialize)]
struct Paragraph<Q> {
    context: String,
    qas: Vec<Q>,
}

#[derive(Deserialize)]
struct Question {
    question: String,
    answers: Vec<Answer>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
    /// In Unicode characters.
    answer_start: usize,
}

#[derive(Deserialize)]
struct FlatQuestion {
    question: String,
    answer: String,
}

/// Reads questions in the format that the extension names, compressed if `.zst` follows it.
///
/// - `.json`: the official one, `data[].paragraphs[]` with `context` and `qas[]` of `question`, `answers[]` of `text`
///   and `answer_start` (in characters), and `is_impossible` in version 2.0. The first answer counts; those of further
///   annotators do not. The file is parsed at once and has at most 256 MiB.
/// - `.jsonl`: a passage a line, with `context` and `qas[]` of `question` and `answer`. An answer stands where its text
///   first occurs.
///
/// # Errors
/// At the first place that is malformed; for an answer that does not stand where it should, a question without an
/// answer that is not marked as impossible, an empty question, answer or passage; for a file without a question that
/// has an answer.
pub fn read(path: &Path, from: &QuestionSource) -> Result<Questions, DataError> {
    let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
    let questions = match plain.extension().and_then(|extension| extension.to_str()) {
        Some("json") => official(path, from)?,
        Some("jsonl") => flat(path, from)?,
        _ => return Err(DataError::SquadFormat { path: path.to_path_buf() }),
    };
    match questions.pairs.is_empty() {
        true => Err(DataError::Empty { path: path.to_path_buf() }),
        false => Ok(questions),
    }
}

fn official(path: &Path, from: &QuestionSource) -> Result<Questions, DataError> {
    let mut bytes = lines::bytes(path)?.take(MAX_DOCUMENT_BYTES + 1);
    let file: Result<File, _> = serde_json::from_reader(&mut bytes);
    if bytes.limit() == 0 {
        let what = format!("the file holds more than {MAX_DOCUMENT_BYTES} bytes: divide it by articles");
        return Err(DataError::Row { path: path.to_path_buf(), line: 1, what });
    }
    let file = file.map_err(|cause| malformed(path, cause))?;

    let mut found = Questions { pairs: Vec::new(), impossible: 0 };
    for Paragraph { context, qas } in file.data.into_iter().flat_map(|article| article.paragraphs) {
        let passage = Passage::new(&context, from);
        for Question { question, answers, is_impossible } in qas {
            let pair = match answers.first() {
                None if is_impossible => {
                    found.impossible += 1;
                    continue;
                }
                None => Err("it has no answer, and is not marked as impossible".into()),
                Some(_) if is_impossible => Err("it is marked as impossible and has an answer".into()),
                Some(answer) => passage.place(answer).and_then(|place| passage.pair(place, &question)),
            };
            let wrong = |what| DataError::Question { path: path.to_path_buf(), question: quote(&question), what };
            found.pairs.push(pair.map_err(wrong)?);
        }
    }
    Ok(found)
}

fn malformed(path: &Path, cause: serde_json::Error) -> DataError {
    let (path, line) = (path.to_path_buf(), cause.line() as u64);
    match cause.is_io() {
        true => DataError::Read { path, line, cause: cause.into() },
        false => DataError::Row { path, line, what: format!("not SQuAD's JSON: {cause}") },
    }
}

fn flat(path: &Path, from: &QuestionSource) -> Result<Questions, DataError> {
    let mut lines = Lines::open(path)?;
    let mut found = Questions { pairs: Vec::new(), impossible: 0 };
    while let Some(line) = lines.next_line()? {
        let pairs = paragraph(line, from);
        found.pairs.extend(pairs.map_err(|what| lines.wrong(what))?);
    }
    Ok(found)
}

fn paragraph(line: &str, from: &QuestionSource) -> Result<Vec<Pair>, String> {
    // By way of a value, since a struct would be read out of an array too.
    let value = super::jsonl::object(line)?;
    let Paragraph::<FlatQuestion> { context, qas } =
        serde_json::from_value(Value::Object(value)).map_err(|cause| cause.to_string())?;
    let passage = Passage::new(&context, from);
    let pair = |FlatQuestion { question, answer }: FlatQuestion| {
        let start = context.find(&answer).ok_or_else(|| format!("{} is not in the passage", quote(&answer)));
        let pair = start.and_then(|start| passage.pair(start..start + answer.len(), &question));
        pair.map_err(|what| format!("question {}: {what}", quote(&question)))
    };
    qas.into_iter().map(pair).collect()
}

/// A passage with what its questions share.
struct Passage<'a> {
    context: &'a str,
    from: &'a QuestionSource,
    sentences: Vec<Range<usize>>,
}

impl<'a> Passage<'a> {
    fn new(context: &'a str, from: &'a QuestionSource) -> Passage<'a> {
        let sentences = match from {
            QuestionSource::Sentence => sentences(context),
            QuestionSource::Passage { .. } => Vec::new(),
        };
        Passage { context, from, sentences }
    }

    /// The bytes of an answer whose place is given in characters.
    fn place(&self, answer: &Answer) -> Result<Range<usize>, String> {
        let Answer { text, answer_start } = answer;
        let start = self.context.char_indices().nth(*answer_start).map(|(byte, _)| byte);
        let start = start.filter(|&start| self.context[start..].starts_with(text.as_str()));
        match start {
            Some(start) => Ok(start..start + text.len()),
            None => Err(format!("the passage has no {} at character {answer_start}", quote(text))),
        }
    }

    fn pair(&self, answer: Range<usize>, question: &str) -> Result<Pair, String> {
        let text = &self.context[answer.clone()];
        if text.trim().is_empty() {
            return Err("its answer is empty".into());
        }
        match self.from {
            QuestionSource::Sentence => {
                let holds = |sentence: &&Range<usize>| sentence.start < answer.end && answer.start < sentence.end;
                let mut holding = self.sentences.iter().filter(holds);
                // There is one: all but white space is in a sentence.
                let first = holding.next().cloned().unwrap_or(answer.clone());
                let end = holding.next_back().map_or(first.end, |last| last.end);
                Pair::new(&self.context[first.start..end], [question])
            }
            QuestionSource::Passage { separator } => {
                Pair::new(&format!("{text}{separator}{}", self.context), [question])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &str = "Ångström met Dr. Bo. They talked. Nobody heard. It ended at 9.";

    fn passage() -> QuestionSource {
        QuestionSource::Passage { separator: " | ".into() }
    }

    fn read_text(name: &str, text: &str, from: &QuestionSource) -> Result<Questions, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let packed = name.ends_with(".zst").then(|| zstd::encode_all(text.as_bytes(), 3).unwrap());
        std::fs::write(&path, packed.as_deref().unwrap_or(text.as_bytes())).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        read(&path, from).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn nested(qas: &str) -> String {
        format!("{{\"data\": [{{\"paragraphs\": [{{\"context\": \"{CONTEXT}\", \"qas\": [{qas}]}}]}}]}}")
    }

    fn line(qas: &str) -> String {
        format!("{{\"context\": \"{CONTEXT}\", \"qas\": [{qas}]}}\n")
    }

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
        for (name, text, impossible) in
            [("a.json", &official, 1), ("a.json.zst", &official, 1), ("a.jsonl.zst", &flat, 0)]
        {
            let questions = read_text(name, text, &QuestionSource::Sentence).unwrap();
            assert_eq!(sources(&questions), ["Ångström met Dr. Bo.", "They talked. Nobody heard."]);
            assert_eq!((questions.pairs[0].targets.join("/"), questions.impossible), ("Who?".into(), impossible));
            let questions = read_text(name, text, &passage()).unwrap();
            assert_eq!(sources(&questions), [format!("Bo | {CONTEXT}"), format!("talked. Nobody | {CONTEXT}")]);
        }
    }

    #[test]
    fn every_way_to_be_wrong_is_named() {
        let answer = |text: &str, start: usize| {
            nested(&format!(
                "{{\"question\": \"Q\", \"answers\": [{{\"text\": \"{text}\", \"answer_start\": {start}}}]}}"
            ))
        };
        let question = |rest: &str| nested(&format!("{{\"question\": \"Q\", \"answers\": [{rest}"));
        for (name, text, message) in [
            ("a.txt", String::new(), "a.txt: its name must end in .json or .jsonl, or in one of them with .zst added"),
            ("a.json", nested(""), "a.json holds no examples"),
            ("a.jsonl", String::new(), "a.jsonl holds no examples"),
            ("a.json", answer("Bo", 16), "a.json, question \"Q\": the passage has no \"Bo\" at character 16"),
            ("a.json", answer("Bo", 1000), "a.json, question \"Q\": the passage has no \"Bo\" at character 1000"),
            ("a.json", answer("", 3), "a.json, question \"Q\": its answer is empty"),
            ("a.json", answer(" ", 8), "a.json, question \"Q\": its answer is empty"),
            ("a.json", question("]}"), "a.json, question \"Q\": it has no answer, and is not marked as impossible"),
            ("a.json", answer("Bo", 17).replace("\"Q\"", "\" \""), "a.json, question \" \": the target is empty"),
            (
                "a.json",
                "{\n\"data\": [{}]}".into(),
                "a.json, line 2: not SQuAD's JSON: missing field `paragraphs` at line 2 column 11",
            ),
            (
                "a.json",
                "{\"data\": [".into(),
                "a.json, line 1: not SQuAD's JSON: EOF while parsing a list at line 1 column 10",
            ),
            (
                "a.jsonl",
                line("{\"question\": \"Q\", \"answer\": \"Ann\"}"),
                "a.jsonl, line 1: question \"Q\": \"Ann\" is not in the passage",
            ),
            (
                "a.jsonl",
                line("{\"question\": \"Q\", \"answer\": \" \"}"),
                "a.jsonl, line 1: question \"Q\": its answer is empty",
            ),
            ("a.jsonl", line("{\"question\": \"Q\"}"), "a.jsonl, line 1: missing field `answer`"),
            ("a.jsonl", "[\"a\", []]".into(), "a.jsonl, line 1: not a JSON object (column 0): \"[\\\"a\\\", []]\""),
        ] {
            assert_eq!(read_text(name, &text, &QuestionSource::Sentence).unwrap_err(), message);
        }
        let impossible = question("{\"text\": \"Bo\", \"answer_start\": 17}], \"is_impossible\": true}");
        assert!(read_text("a.json", &impossible, &passage()).unwrap_err().ends_with("impossible and has an answer"));
    }
}
