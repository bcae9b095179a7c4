//! Checkpoint folders, read and written.

mod folder;
mod hostile;
mod packed;
mod summary;
mod torch;
mod write;

use std::fs;
use std::path::Path;

use lapidary_models::checkpoint::{CheckpointError, FolderContents, TensorSource, write_folder};
use serde_json::{Map, Value, json};

/// A safetensors file of a header as given and so many bytes of zeros.
fn raw_file(path: &Path, header: &str, data: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    fs::write(path, bytes).expect("written");
}

fn config() -> Map<String, Value> {
    json!({"model_type": "bert", "hidden_size": 4}).as_object().expect("an object").clone()
}

fn write_plain(path: &Path, tensors: Vec<TensorSource<'_>>) -> Result<(), CheckpointError> {
    write_folder(path, FolderContents { config: &config(), tensors, tokenizer: None, model_card: "# A model\n" })
}

/// The whole chain of an error on one line, as the binary prints it.
fn text(error: &CheckpointError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Names of what is in a folder, hidden files too.
fn listing(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
