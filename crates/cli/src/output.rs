//! Standard output: a text or one JSON object, and nothing else.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Standard output was closed by its reader. Not a failure: the command ends there.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct OutputClosed;

/// Prints a result: `json` in one line if `as_json` is set, else `text`.
pub fn print(as_json: bool, json: &impl Serialize, text: &impl Display) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let written = if as_json {
        serde_json::to_writer(&mut output, json).map_err(io::Error::from).and_then(|()| writeln!(output))
    } else {
        write!(output, "{text}")
    };
    match written.and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        result => result.context("cannot write to standard output"),
    }
}
