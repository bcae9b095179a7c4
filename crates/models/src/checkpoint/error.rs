//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

/// A fault in a checkpoint, or in reading or writing it. Every message names the file, and the tensor or key where
/// there is one; causes are reached through `source()` and are not repeated in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused to read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },

    /// The operating system refused to write; nothing was left under the target's name.
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },

    /// The folder is not one that this program can read as a checkpoint, or may write one to.
    #[error("{}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },

    /// A JSON file does not parse.
    #[error("{} is not valid JSON", path.display())]
    Json { path: PathBuf, source: serde_json::Error },

    /// A safetensors header as a whole is malformed.
    #[error("{}: bad safetensors header: {reason}", path.display())]
    Header { path: PathBuf, reason: String },

    /// `model.safetensors.index.json` does not describe the shards beside it.
    #[error("{}: {reason}", path.display())]
    Index { path: PathBuf, reason: String },

    /// A tensor is described wrongly, or is not of the kind or shape asked for.
    #[error("{}: tensor `{tensor}`: {reason}", path.display())]
    Tensor { path: PathBuf, tensor: String, reason: String },

    /// A tensor that was asked for is not in the checkpoint.
    #[error("{}: no tensor `{tensor}`{}", path.display(), hint(nearest))]
    MissingTensor { path: PathBuf, tensor: String, nearest: Option<String> },

    /// A key of `config.json` is missing, has the wrong type, or a value that cannot be used.
    #[error("{}: key `{key}`: {reason}", path.display())]
    Config { path: PathBuf, key: String, reason: String },
}

impl CheckpointError {
    /// Whether the fault is a setting's (`config.json`) rather than the tensors' or the system's.
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Config { .. })
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    pub(super) fn folder(path: &Path, reason: impl Into<String>) -> Self {
        Self::Folder { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: printable(tensor), reason: reason.into() }
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

/// A name from a file as it may be printed: control characters escaped, and no longer than a line.
pub(crate) fn printable(name: &str) -> String {
    const LONGEST: usize = 200;
    let mut printed: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        printed.push('…');
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_printed_on_one_short_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(printable(&"x".repeat(100_000)).chars().count(), 201);
    }
}
