//! SQuAD (Rajpurkar et al. 2016, 1606.05250): questions whose answers are spans of a passage. [`read_spans`] gives them
//! as they are, for a model that finds the answer; [`read`] turns them round, for one that writes the question.

mod generation;

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

pub use generation::{QuestionSource, Questions, read};

use super::lines::{self, Lines};
use super::text::MAX_DOCUMENT_BYTES;
use super::{DataError, is_zst, quote};
use crate::span::{SpanAnswer, SpanQuestion};

/// What a file of questions gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanQuestions {
    /// The questions that have an answer, in the order of the file; those of one passage share it.
    pub questions: Vec<SpanQuestion>,
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
    id: Option<String>,
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
/// - `.json`: the official one, `data[].paragraphs[]` with `context` and `qas[]` of `id`, `question`, `answers[]` of
///   `text` and `answer_start` (in characters), and `is_impossible` in version 2.0. The answers of all annotators are
///   kept. The file is parsed at once and has at most 256 MiB.
/// - `.jsonl`: a passage a line, with `context` and `qas[]` of `question` and `answer`. An answer stands where its text
///   first occurs.
///
/// A question without an id has its number in the file, from 0.
///
/// # Errors
/// At the first place that is malformed; for an answer that does not stand where it should, a question without an
/// answer that is not marked as impossible, an empty question or answer, an id that occurs twice; for a file without a
/// question that has an answer.
pub fn read_spans(path: &Path) -> Result<SpanQuestions, DataError> {
    let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
    let found = match plain.extension().and_then(|extension| extension.to_str()) {
        Some("json") => official(path)?,
        Some("jsonl") => flat(path)?,
        _ => return Err(DataError::SquadFormat { path: path.to_path_buf() }),
    };
    match found.questions.is_empty() {
        true => Err(DataError::Empty { path: path.to_path_buf() }),
        false => Ok(found),
    }
}

fn official(path: &Path) -> Result<SpanQuestions, DataError> {
    let mut bytes = lines::bytes(path)?.take(MAX_DOCUMENT_BYTES + 1);
    let file: Result<File, _> = serde_json::from_reader(&mut bytes);
    if bytes.limit() == 0 {
        let what = format!("the file holds more than {MAX_DOCUMENT_BYTES} bytes: divide it by articles");
        return Err(DataError::Row { path: path.to_path_buf(), line: 1, what });
    }
    let file = file.map_err(|cause| malformed(path, cause))?;

    let mut found = SpanQuestions { questions: Vec::new(), impossible: 0 };
    let mut ids = HashSet::new();
    for Paragraph { context, qas } in file.data.into_iter().flat_map(|article| article.paragraphs) {
        let passage: Arc<str> = context.into();
        for asked in qas {
            let wrong = |question: &str, what| {
                let (path, question) = (path.to_path_buf(), quote(question));
                DataError::Question { path, question, what }
            };
            let number = found.questions.len() as u64 + found.impossible;
            let id = asked.id.unwrap_or_else(|| number.to_string());
            if !ids.insert(id.clone()) {
                return Err(wrong(&asked.question, format!("its id {} occurs twice", quote(&id))));
            }
            if asked.answers.is_empty() && asked.is_impossible {
                found.impossible += 1;
                continue;
            }
            let answers = match asked.is_impossible {
                true => Err("it is marked as impossible and has an answer".into()),
                false => asked.answers.into_iter().map(|answer| place(&passage, answer)).collect(),
            };
            let question = answers.and_then(|answers| question(id, &asked.question, &passage, answers));
            found.questions.push(question.map_err(|what| wrong(&asked.question, what))?);
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

fn flat(path: &Path) -> Result<SpanQuestions, DataError> {
    let mut lines = Lines::open(path)?;
    let mut questions = Vec::new();
    while let Some(line) = lines.next_line()? {
        let more = paragraph(line, questions.len());
        questions.extend(more.map_err(|what| lines.wrong(what))?);
    }
    Ok(SpanQuestions { questions, impossible: 0 })
}

/// The questions of a line, `before` of which came before it.
fn paragraph(line: &str, before: usize) -> Result<Vec<SpanQuestion>, String> {
    // By way of a value, since a struct would be read out of an array too.
    let value = super::jsonl::object(line)?;
    let Paragraph::<FlatQuestion> { context, qas } =
        serde_json::from_value(Value::Object(value)).map_err(|cause| cause.to_string())?;
    let passage: Arc<str> = context.into();
    let one = |(place, asked): (usize, FlatQuestion)| {
        let start =
            passage.find(&asked.answer).ok_or_else(|| format!("{} is not in the passage", quote(&asked.answer)));
        let answer = start.map(|start_byte| SpanAnswer { text: asked.answer, start_byte });
        let id = (before + place).to_string();
        let question = answer.and_then(|answer| question(id, &asked.question, &passage, vec![answer]));
        question.map_err(|what| format!("question {}: {what}", quote(&asked.question)))
    };
    qas.into_iter().enumerate().map(one).collect()
}

/// An answer whose place is given in characters.
fn place(passage: &str, Answer { text, answer_start }: Answer) -> Result<SpanAnswer, String> {
    // The end of the last character is where an empty answer could still stand, and is told as one.
    let start = passage.char_indices().map(|(byte, _)| byte).chain([passage.len()]).nth(answer_start);
    match start.filter(|&start| passage[start..].starts_with(text.as_str())) {
        Some(start_byte) => Ok(SpanAnswer { text, start_byte }),
        None => Err(format!("the passage has no {} at character {answer_start}", quote(&text))),
    }
}

fn question(id: String, question: &str, passage: &Arc<str>, answers: Vec<SpanAnswer>) -> Result<SpanQuestion, String> {
    if question.trim().is_empty() {
        return Err("it is empty".into());
    }
    if answers.is_empty() {
        return Err("it has no answer, and is not marked as impossible".into());
    }
    if answers.iter().any(|answer| answer.text.trim().is_empty()) {
        return Err("its answer is empty".into());
    }
    Ok(SpanQuestion { id, question: question.to_owned(), passage: passage.clone(), answers })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const CONTEXT: &str = "Ångström met Dr. Bo. They talked. Nobody heard. It ended at 9.";

    pub(super) fn nested(qas: &str) -> String {
        format!("{{\"data\": [{{\"paragraphs\": [{{\"context\": \"{CONTEXT}\", \"qas\": [{qas}]}}]}}]}}")
    }

    pub(super) fn line(qas: &str) -> String {
        format!("{{\"context\": \"{CONTEXT}\", \"qas\": [{qas}]}}\n")
    }

    /// What `read` makes of a file with this name and text.
    pub(super) fn read_text<T>(
        name: &str,
        text: &str,
        read: impl Fn(&Path) -> Result<T, DataError>,
    ) -> Result<T, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let packed = name.ends_with(".zst").then(|| zstd::encode_all(text.as_bytes(), 3).unwrap());
        std::fs::write(&path, packed.as_deref().unwrap_or(text.as_bytes())).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        read(&path).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn all_answers_stand_where_they_should() {
        let official = nested(
            "{\"id\": \"a1\", \"question\": \" Who? \", \"answers\": [{\"text\": \"Bo\", \"answer_start\": 17}, \
             {\"text\": \"Dr. Bo\", \"answer_start\": 13}]}, \
             {\"id\": \"a2\", \"question\": \"Why?\", \"answers\": [], \"is_impossible\": true}, \
             {\"question\": \"When?\", \"answers\": [{\"text\": \"9\", \"answer_start\": 60}]}",
        );
        let flat = line("{\"question\": \" Who? \", \"answer\": \"Bo\"}, {\"question\": \"When?\", \"answer\": \"9\"}")
            .repeat(2);
        let answer = |text: &str, start_byte| SpanAnswer { text: text.into(), start_byte };
        for (name, text, impossible, ids) in [
            ("a.json", &official, 1, &["a1", "2"][..]),
            ("a.json.zst", &official, 1, &["a1", "2"]),
            ("a.jsonl", &flat, 0, &["0", "1", "2", "3"]),
        ] {
            let found = read_text(name, text, read_spans).unwrap();
            assert_eq!(found.impossible, impossible);
            assert_eq!(found.questions.iter().map(|question| question.id.as_str()).collect::<Vec<_>>(), ids);
            let (who, when) = (&found.questions[0], &found.questions[1]);
            assert_eq!((who.question.as_str(), &*who.passage), (" Who? ", CONTEXT));
            assert!(Arc::ptr_eq(&who.passage, &when.passage));
            assert_eq!(who.answers[0], answer("Bo", 19));
            assert_eq!(who.answers.get(1), (impossible == 1).then(|| answer("Dr. Bo", 15)).as_ref());
            assert_eq!(when.answers, [answer("9", 62)]);
            for answer in who.answers.iter().chain(&when.answers) {
                assert_eq!(&CONTEXT[answer.bytes()], answer.text);
            }
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
        let twice = "{\"id\": \"7\", \"question\": \"Q\", \"answers\": [], \"is_impossible\": true}";
        for (name, text, message) in [
            ("a.txt", String::new(), "a.txt: its name must end in .json or .jsonl, or in one of them with .zst added"),
            ("a.json", nested(""), "a.json holds no examples"),
            ("a.jsonl", String::new(), "a.jsonl holds no examples"),
            ("a.json", answer("Bo", 16), "a.json, question \"Q\": the passage has no \"Bo\" at character 16"),
            ("a.json", answer("Bo", 1000), "a.json, question \"Q\": the passage has no \"Bo\" at character 1000"),
            (
                "a.json",
                question("{\"text\": \"Bo\", \"answer_start\": 17}, {\"text\": \"Bo\", \"answer_start\": 3}]}"),
                "a.json, question \"Q\": the passage has no \"Bo\" at character 3",
            ),
            ("a.json", answer("", 3), "a.json, question \"Q\": its answer is empty"),
            ("a.json", answer(" ", 8), "a.json, question \"Q\": its answer is empty"),
            ("a.json", question("]}"), "a.json, question \"Q\": it has no answer, and is not marked as impossible"),
            ("a.json", answer("Bo", 17).replace("\"Q\"", "\" \""), "a.json, question \" \": it is empty"),
            ("a.json", nested(&[twice; 2].join(",")), "a.json, question \"Q\": its id \"7\" occurs twice"),
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
            assert_eq!(read_text(name, &text, read_spans).unwrap_err(), message);
        }
        let impossible = question("{\"text\": \"Bo\", \"answer_start\": 17}], \"is_impossible\": true}");
        assert!(read_text("a.json", &impossible, read_spans).unwrap_err().ends_with("impossible and has an answer"));
    }
}
