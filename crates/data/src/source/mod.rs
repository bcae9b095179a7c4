//! File formats: one a file, each from a path to [`Example`]s, each row checked; plain [text] by the document;
//! [`Pair`](crate::Pair)s of texts, from JSON Lines ([pairs]), [parallel] files and [SQuAD](squad); questions whose
//! answers are spans, from SQuAD too; tagged words, from the files of [CoNLL](conll); and [pictures](PictureSet) in
//! classes.
//!
//! A file may be compressed with Zstandard (`.zst` after its format's extension); it is decompressed as it is read and
//! never held whole. Every malformed row is an error that names the file, the line and what was wrong: a set is read
//! completely or not at all.

pub mod conll;
pub mod jsonl;
mod lines;
pub mod pairs;
pub mod parallel;
mod pictures;
pub mod squad;
mod tar;
pub mod text;
pub mod tsv;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use conll::ConllColumns;
pub use lines::{MAX_FILE_BYTES, MAX_LINE_BYTES};
pub use pairs::{PairFields, TargetArrays};
pub use pictures::PictureSet;
pub use squad::{QuestionSource, Questions, SpanQuestions};
pub use text::{Document, TextSource};

use crate::{Example, Part};

/// Why a data file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It is missing, or may not be read.
    #[error("cannot open {path}: {cause}")]
    Open { path: PathBuf, cause: std::io::Error },
    /// Its bytes end early or are damaged.
    #[error("{path}: cannot read on after line {line}: {cause}")]
    Read { path: PathBuf, line: u64, cause: std::io::Error },
    /// Its name says no known format.
    #[error("{path}: its name must end in .tsv or .jsonl, or in one of them with .zst added")]
    Format { path: PathBuf },
    /// One line is not what the format and the columns ask for. Lines count from 1, a header included.
    #[error("{path}, line {line}: {what}")]
    Row { path: PathBuf, line: u64, what: String },
    /// There is no row at all.
    #[error("{path} holds no examples")]
    Empty { path: PathBuf },
    /// Its name says no format of plain text.
    #[error("{path}: its name must end in .txt, .md, .jsonl or .tar, or in one of them with .zst added")]
    TextFormat { path: PathBuf },
    /// Bytes of a document of plain text are not text.
    #[error("{path}, document {document:?}: the byte at offset {offset} is not UTF-8")]
    NotText { path: PathBuf, document: String, offset: u64 },
    /// A file or archive of plain text cannot be read on.
    #[error("cannot read {path}: {cause}")]
    Text { path: PathBuf, cause: std::io::Error },
    /// A folder or file has no document at all.
    #[error("{path} holds no documents")]
    NoDocuments { path: PathBuf },
    /// Two files that belong together line by line do not.
    #[error("{sources} has {source_lines} lines and {targets} {target_lines}: line by line they must belong together")]
    Unequal { sources: PathBuf, source_lines: u64, targets: PathBuf, target_lines: u64 },
    /// Its name says no format of questions and answers.
    #[error("{path}: its name must end in .json or .jsonl, or in one of them with .zst added")]
    SquadFormat { path: PathBuf },
    /// A question, here in quotation marks, that cannot be asked of its passage.
    #[error("{path}, question {question}: {what}")]
    Question { path: PathBuf, question: String, what: String },
    /// Its name says no format of pictures.
    #[error("{path} must be a folder, or its name end in .tar or .bin, or in one of them with .zst added")]
    PictureFormat { path: PathBuf },
    /// One picture, here in quotation marks, cannot be read.
    #[error("{path}, picture {picture}: {what}")]
    Picture { path: PathBuf, picture: String, what: String },
    /// A file, folder or archive of pictures cannot be read on.
    #[error("cannot read {path}: {cause}")]
    Pictures { path: PathBuf, cause: std::io::Error },
    /// Nothing in it is a picture of the part.
    #[error("{path} holds no pictures PART/CLASS/NAME.png or .jpg with PART {part:?}")]
    NoPictures { path: PathBuf, part: String },
    /// The columns that were asked for contradict themselves.
    #[error("cannot read {path} with these columns: {what}")]
    Columns { path: PathBuf, what: String },
}

/// The classes of a set, and how its file writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "labels must be a number of classes or a list of class names")]
pub enum Labels {
    /// The file holds class indices, `0..count`.
    Count(u32),
    /// The file holds names; a class's index is its place in this list.
    Names(Vec<String>),
}

/// Which columns (of a table) or keys (of JSON objects) make an example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// The text, or the first of a pair.
    pub text: String,
    /// The second text of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// The label.
    pub label: String,
    /// The labels that may occur.
    pub labels: Labels,
}

/// Reads a labelled set, in the format that the extension names: `.tsv`, `.jsonl`, `.tsv.zst` or `.jsonl.zst`.
///
/// # Errors
/// At the first row that is malformed, and for a set without rows; see [`DataError`].
pub fn read(path: &Path, columns: &Columns) -> Result<Vec<Example>, DataError> {
    let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
    match plain.extension().and_then(|extension| extension.to_str()) {
        Some("tsv") => tsv::read(path, columns),
        Some("jsonl") => jsonl::read(path, columns),
        _ => Err(DataError::Format { path: path.to_path_buf() }),
    }
}

fn is_zst(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

impl Labels {
    /// The number of classes.
    pub fn classes(&self) -> u32 {
        match self {
            Labels::Count(count) => *count,
            Labels::Names(names) => u32::try_from(names.len()).unwrap_or(u32::MAX),
        }
    }

    /// The name of a class: its index where the file has no names.
    pub fn name(&self, class: u32) -> String {
        match self {
            Labels::Names(names) if (class as usize) < names.len() => names[class as usize].clone(),
            _ => class.to_string(),
        }
    }

    fn index_of_name(&self, cell: &str) -> Result<u32, String> {
        match self {
            Labels::Count(_) => {
                // `u32::from_str` would take a plus sign too.
                let digits = !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
                let index = cell.parse().ok().filter(|_| digits);
                self.check_index(index).ok_or_else(|| self.outside(cell))
            }
            Labels::Names(names) => {
                let index = names.iter().position(|name| name == cell);
                index.map(|index| index as u32).ok_or_else(|| self.outside(cell))
            }
        }
    }

    fn check_index(&self, index: Option<u32>) -> Option<u32> {
        index.filter(|&index| index < self.classes())
    }

    fn outside(&self, found: &str) -> String {
        match self {
            Labels::Count(count) => {
                format!("label {} is not an integer of 0..={}", quote(found), count.saturating_sub(1))
            }
            Labels::Names(names) => {
                let names: Vec<_> = names.iter().map(|name| quote(name)).collect();
                format!("label {} is not one of {}", quote(found), names.join(", "))
            }
        }
    }
}

impl Columns {
    /// Refuses columns with which no file could be read as meant.
    fn check(&self, path: &Path) -> Result<(), DataError> {
        let fail = |what: String| Err(DataError::Columns { path: path.to_path_buf(), what });
        if self.labels.classes() == 0 {
            return fail("the set of labels is empty".into());
        }
        if let Labels::Names(names) = &self.labels
            && let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name))
        {
            return fail(format!("label {} is listed twice", quote(twice)));
        }
        let named: Vec<&String> =
            [Some(&self.text), self.pair.as_ref(), Some(&self.label)].into_iter().flatten().collect();
        match named.iter().enumerate().find(|(at, name)| named[..*at].contains(name)) {
            Some((_, twice)) => fail(format!("column {} is used twice", quote(twice))),
            None => Ok(()),
        }
    }

    fn example(&self, text: &str, pair: Option<&str>, label: u32) -> Result<Example, String> {
        let part = |name: &str, text: &str| match text.trim().is_empty() {
            true => Err(format!("column {} is empty", quote(name))),
            false => Ok(Part::Text(text.to_owned())),
        };
        let mut parts = vec![part(&self.text, text)?];
        if let (Some(name), Some(pair)) = (&self.pair, pair) {
            parts.push(part(name, pair)?);
        }
        Ok(Example { parts, label: Some(label) })
    }
}

/// What was found, for an error message: quoted, on one line, and not too long.
fn quote(found: &str) -> String {
    const LONGEST: usize = 60;
    match found.char_indices().nth(LONGEST) {
        None => format!("{found:?}"),
        Some((end, _)) => format!("{:?}...", &found[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(toml: &str) -> Result<Columns, toml::de::Error> {
        toml::from_str(toml)
    }

    #[test]
    fn columns_are_readable_from_a_recipe() {
        let counted = columns("text = 'sentence'\nlabel = 'label'\nlabels = 2").unwrap();
        assert_eq!((counted.labels.classes(), counted.labels.name(1)), (2, "1".into()));
        let named = columns("text = 'a'\npair = 'b'\nlabel = 'c'\nlabels = ['no', 'yes']").unwrap();
        assert_eq!((named.labels.classes(), named.labels.name(1)), (2, "yes".into()));
        assert_eq!(named.labels.name(9), "9");

        let error = columns("text = 'a'\nlabel = 'c'\nlabels = 'two'").unwrap_err();
        assert!(error.message().contains("a number of classes or a list of class names"), "{error}");
        assert!(columns("text = 'a'\nlabel = 'c'\nlabels = -1").is_err());
        assert!(columns("text = 'a'\nlabel = 'c'\nlabels = 2\nlabell = 1").is_err());
    }

    #[test]
    fn contradictory_columns_are_refused() {
        let message = |toml| columns(toml).unwrap().check(Path::new("x.tsv")).unwrap_err().to_string();
        assert!(message("text = 'a'\nlabel = 'b'\nlabels = 0").contains("set of labels is empty"));
        assert!(message("text = 'a'\nlabel = 'b'\nlabels = []").contains("set of labels is empty"));
        assert!(message("text = 'a'\nlabel = 'b'\nlabels = ['x', 'y', 'x']").contains("\"x\" is listed twice"));
        assert!(message("text = 'a'\nlabel = 'a'\nlabels = 2").contains("column \"a\" is used twice"));
    }

    #[test]
    fn integer_labels_are_strict() {
        let labels = Labels::Count(2);
        assert_eq!(labels.index_of_name("1"), Ok(1));
        for bad in ["2", "-1", "+1", " 1", "1.0", "one", "99999999999999999999"] {
            assert!(labels.index_of_name(bad).unwrap_err().ends_with("is not an integer of 0..=1"), "{bad}");
        }
    }

    #[test]
    fn unknown_formats_are_refused() {
        let columns = columns("text = 'a'\nlabel = 'b'\nlabels = 2").unwrap();
        for name in ["train.csv", "train.csv.zst", "train", "train.zst", ""] {
            assert!(matches!(read(Path::new(name), &columns), Err(DataError::Format { .. })), "{name}");
        }
    }

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quote("a\tb\n"), r#""a\tb\n""#);
        assert_eq!(quote(&"ä".repeat(100)), format!("\"{}\"...", "ä".repeat(60)));
    }
}
