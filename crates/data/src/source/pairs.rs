//! Pairs of texts in JSON Lines: one object a line; keys that were not asked for are passed over.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jsonl::{get, object};
use super::lines::Lines;
use super::{DataError, quote};
use crate::Pair;

/// Which keys of an object make a pair. Each holds a string or an array of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFields {
    /// What is read. An array is the parts of one text, such as its sentences: they are joined with one space.
    pub source: String,
    /// What is to be written.
    pub target: String,
    /// More keys of targets, which come after those of `target`. An empty array is no target here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What an array under `target` or one of `references` is.
    #[serde(default)]
    pub target_arrays: TargetArrays,
}

/// What an array of strings is that stands for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetArrays {
    /// Several targets.
    #[default]
    References,
    /// The parts of one target, which are joined as those of a source.
    Parts,
}

/// Reads pairs, compressed if the file's name ends in `.zst`.
///
/// # Errors
/// At the first malformed line: no JSON object, a key that is missing or of another type, an empty source or target,
/// no target, bytes that are not UTF-8; for a file without lines; for a key that is named twice.
pub fn read(path: &Path, fields: &PairFields) -> Result<Vec<Pair>, DataError> {
    fields.check(path)?;
    let mut lines = Lines::open(path)?;
    let mut pairs = Vec::new();
    while let Some(line) = lines.next_line()? {
        let pair = fields.pair(line);
        pairs.push(pair.map_err(|what| lines.wrong(what))?);
    }
    if pairs.is_empty() {
        return Err(lines.empty());
    }
    Ok(pairs)
}

impl PairFields {
    fn check(&self, path: &Path) -> Result<(), DataError> {
        let named: Vec<&String> = [&self.source, &self.target].into_iter().chain(&self.references).collect();
        match named.iter().enumerate().find(|(at, name)| named[..*at].contains(name)) {
            Some((_, twice)) => {
                let what = format!("key {} is used twice", quote(twice));
                Err(DataError::Columns { path: path.to_path_buf(), what })
            }
            None => Ok(()),
        }
    }

    fn pair(&self, line: &str) -> Result<Pair, String> {
        let object = object(line)?;
        let source = joined(&strings(&object, &self.source)?);
        let mut targets = Vec::new();
        for key in [&self.target].into_iter().chain(&self.references) {
            let found = strings(&object, key)?;
            match self.target_arrays {
                // The target that is trained on is never another key's.
                TargetArrays::References if found.is_empty() && *key == self.target => {
                    return Err(format!("{} is an empty array", quote(key)));
                }
                TargetArrays::References => targets.extend(found.into_iter().map(str::to_owned)),
                TargetArrays::Parts => targets.push(joined(&found)),
            }
        }
        Pair::new(&source, targets.iter().map(String::as_str))
    }
}

/// A string, or the strings of an array.
fn strings<'a>(object: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a str>, String> {
    let wrong = |what: &str, found: &Value| format!("{} {what} but {}", quote(key), quote(&found.to_string()));
    match get(object, key)? {
        Value::String(text) => Ok(vec![text]),
        Value::Array(texts) => {
            let text = |value: &'a Value| value.as_str().ok_or_else(|| wrong("holds no string", value));
            texts.iter().map(text).collect()
        }
        other => Err(wrong("is neither a string nor an array of strings", other)),
    }
}

/// The parts of a text with one space between each two. An empty part has no text.
fn joined(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(toml: &str) -> PairFields {
        toml::from_str(toml).unwrap()
    }

    fn read_text(text: &str, fields: &PairFields) -> Result<Vec<(String, Vec<String>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        let mut found = Vec::new();
        for (name, bytes) in
            [("set.jsonl", text.as_bytes().to_vec()), ("set.jsonl.zst", zstd::encode_all(text.as_bytes(), 3).unwrap())]
        {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let pairs = read(&path, fields).map_err(|error| error.to_string().replace(&prefix, "").replace(".zst", ""));
            found.push(pairs.map(|pairs| pairs.into_iter().map(|pair| (pair.source, pair.targets)).collect()));
        }
        assert_eq!(found[0], found[1]);
        found.remove(0)
    }

    fn pair(source: &str, targets: &[&str]) -> (String, Vec<String>) {
        (source.into(), targets.iter().map(|&target| target.into()).collect())
    }

    #[test]
    fn arrays_are_parts_of_a_source_and_references() {
        let lines =
            "{\"x\": [\"One.\", \"\", \" Two. \"], \"y\": [\"a\", \"b\"], \"z\": 1}\n{\"y\": \"c\", \"x\": \" 3\"}";
        let pairs = read_text(lines, &fields("source = 'x'\ntarget = 'y'")).unwrap();
        assert_eq!(pairs, [pair("One. Two.", &["a", "b"]), pair("3", &["c"])]);
        let pairs = read_text(lines, &fields("source = 'x'\ntarget = 'y'\ntarget_arrays = 'parts'")).unwrap();
        assert_eq!(pairs, [pair("One. Two.", &["a b"]), pair("3", &["c"])]);
    }

    #[test]
    fn further_keys_are_further_references() {
        let lines = "{\"x\": \"1\", \"y\": \"a\", \"z\": [\"b\", \"c\"]}\n{\"x\": \"1\", \"y\": \"a\", \"z\": []}\n";
        let pairs = read_text(lines, &fields("source = 'x'\ntarget = 'y'\nreferences = ['z']")).unwrap();
        assert_eq!(pairs, [pair("1", &["a", "b", "c"]), pair("1", &["a"])]);
    }

    #[test]
    fn every_malformed_line_is_named() {
        let one = fields("source = 'x'\ntarget = 'y'");
        let two = fields("source = 'x'\ntarget = 'y'\nreferences = ['z']");
        for (text, fields, message) in [
            ("", &one, "set.jsonl holds no examples"),
            ("[1]", &one, "set.jsonl, line 1: not a JSON object (column 0): \"[1]\""),
            ("{\"x\": \"1\"}", &one, "set.jsonl, line 1: there is no key \"y\""),
            ("{\"x\": \"1\", \"y\": \"a\"}", &two, "set.jsonl, line 1: there is no key \"z\""),
            (
                "{\"x\": \"1\", \"y\": null}",
                &one,
                "set.jsonl, line 1: \"y\" is neither a string nor an array of strings but \"null\"",
            ),
            ("{\"x\": [1], \"y\": \"a\"}", &one, "set.jsonl, line 1: \"x\" holds no string but \"1\""),
            ("{\"x\": [\" \"], \"y\": \"a\"}", &one, "set.jsonl, line 1: the source is empty"),
            ("{\"x\": \"1\", \"y\": []}", &one, "set.jsonl, line 1: \"y\" is an empty array"),
            ("{\"x\": \"1\", \"y\": [], \"z\": \"a\"}", &two, "set.jsonl, line 1: \"y\" is an empty array"),
            ("{\"x\": \"1\", \"y\": [\"a\", \"\"]}", &one, "set.jsonl, line 1: target 2 of 2 is empty"),
            ("{\"x\": \"1\", \"y\": \"a\"}\n\n", &one, "set.jsonl, line 2: not a JSON object (column 0): \"\""),
        ] {
            assert_eq!(read_text(text, fields).unwrap_err(), message);
        }
        let twice = fields("source = 'x'\ntarget = 'y'\nreferences = ['x']");
        assert!(read_text("", &twice).unwrap_err().ends_with("key \"x\" is used twice"));
    }
}
