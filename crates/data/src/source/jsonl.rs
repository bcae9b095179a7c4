//! JSON Lines: one object a line; keys that were not asked for are passed over.

use std::path::Path;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::{Columns, DataError, Labels, quote};
use crate::Example;

/// Reads a labelled set, compressed if its name ends in `.zst`.
///
/// Texts are strings; a label is an integer where the set is [`Labels::Count`], a string where it is
/// [`Labels::Names`].
///
/// # Errors
/// At the first malformed line: no JSON object, a key that is missing or of another type, an empty text, a label
/// outside the set, bytes that are not UTF-8; for a file without lines.
pub fn read(path: &Path, columns: &Columns) -> Result<Vec<Example>, DataError> {
    columns.check(path)?;
    let mut lines = Lines::open(path)?;
    let mut examples = Vec::new();
    while let Some(line) = lines.next_line()? {
        let example = row(line, columns);
        examples.push(example.map_err(|what| lines.wrong(what))?);
    }
    if examples.is_empty() {
        return Err(lines.empty());
    }
    Ok(examples)
}

/// The text of an unlabelled line.
pub(super) fn text(line: &str, key: &str) -> Result<String, String> {
    string(&object(line)?, key).map(str::to_owned)
}

pub(super) fn object(line: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(line)
        .map_err(|cause| format!("not a JSON object (column {}): {}", cause.column(), quote(line)))
}

pub(super) fn get<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    object.get(key).ok_or_else(|| format!("there is no key {}", quote(key)))
}

fn string<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    match get(object, key)? {
        Value::String(text) => Ok(text.as_str()),
        other => Err(format!("{} is not a string but {}", quote(key), quote(&other.to_string()))),
    }
}

fn row(line: &str, columns: &Columns) -> Result<Example, String> {
    let object = object(line)?;
    let text = |key: &str| string(&object, key);
    let label = match (get(&object, &columns.label)?, &columns.labels) {
        (Value::Number(number), Labels::Count(_)) => {
            let index = number.as_u64().and_then(|index| u32::try_from(index).ok());
            columns.labels.check_index(index).ok_or_else(|| columns.labels.outside(&number.to_string()))?
        }
        (Value::String(name), Labels::Names(_)) if name.is_empty() => {
            return Err(format!("the label ({}) is empty", quote(&columns.label)));
        }
        (Value::String(name), Labels::Names(_)) => columns.labels.index_of_name(name)?,
        (other, _) => return Err(columns.labels.outside(&other.to_string())),
    };
    columns.example(text(&columns.text)?, columns.pair.as_deref().map(text).transpose()?, label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Part;

    fn columns(labels: Labels) -> Columns {
        Columns { text: "a".into(), pair: Some("b".into()), label: "y".into(), labels }
    }

    fn names() -> Columns {
        columns(Labels::Names(vec!["no".into(), "yes".into()]))
    }

    fn read_text(text: &str, columns: &Columns) -> Result<Vec<Example>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        read(&path, columns).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn rows_become_examples() {
        let examples = read_text("{\"y\":\"yes\",\"b\":\"two\",\"z\":[1],\"a\":\"one\\t\"}\n", &names()).unwrap();
        assert_eq!(examples[0].parts, [Part::Text("one\t".into()), Part::Text("two".into())]);
        assert_eq!(examples[0].label, Some(1));
        let examples = read_text("{\"a\":\"one\",\"b\":\"two\",\"y\":2}", &columns(Labels::Count(3))).unwrap();
        assert_eq!(examples[0].label, Some(2));
    }

    #[test]
    fn every_malformed_line_is_named() {
        for (text, message) in [
            ("", "set.jsonl holds no examples"),
            ("{\"a\":\"x\"", "set.jsonl, line 1: not a JSON object (column 8): \"{\\\"a\\\":\\\"x\\\"\""),
            ("[1]", "set.jsonl, line 1: not a JSON object (column 0): \"[1]\""),
            ("{\"a\":\"x\",\"b\":\"x\",\"y\":\"no\"}\n\n", "set.jsonl, line 2: not a JSON object (column 0): \"\""),
            ("{\"a\":\"x\",\"y\":\"no\"}", "set.jsonl, line 1: there is no key \"b\""),
            ("{\"a\":1,\"b\":\"x\",\"y\":\"no\"}", "set.jsonl, line 1: \"a\" is not a string but \"1\""),
            ("{\"a\":\"x\",\"b\":\"\",\"y\":\"no\"}", "set.jsonl, line 1: column \"b\" is empty"),
            ("{\"a\":\"x\",\"b\":\"x\",\"y\":\"\"}", "set.jsonl, line 1: the label (\"y\") is empty"),
            ("{\"a\":\"x\",\"b\":\"x\",\"y\":null}", "set.jsonl, line 1: label \"null\" is not one of \"no\", \"yes\""),
            ("{\"a\":\"x\",\"b\":\"x\",\"y\":\"on\"}", "set.jsonl, line 1: label \"on\" is not one of \"no\", \"yes\""),
            ("{\"a\":\"x\",\"b\":\"x\",\"y\":1}", "set.jsonl, line 1: label \"1\" is not one of \"no\", \"yes\""),
        ] {
            assert_eq!(read_text(text, &names()).unwrap_err(), message);
        }
        for label in ["3", "-1", "0.5", "\"1\"", "1e30", "true"] {
            let line = format!("{{\"a\":\"x\",\"b\":\"x\",\"y\":{label}}}");
            let message = read_text(&line, &columns(Labels::Count(3))).unwrap_err();
            assert!(message.ends_with("is not an integer of 0..=2"), "{message}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let line = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(read_text(&line, &names()).unwrap_err().contains("not a JSON object"));
    }
}
