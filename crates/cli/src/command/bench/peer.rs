//! The other side of a comparison: a command that times the same work and prints what it took.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// What a peer prints of a work.
#[derive(Deserialize)]
pub struct Peer {
    /// The name that we have for the same work.
    pub name: String,
    pub median_seconds: f64,
    /// The most memory that its process held.
    pub peak_rss_bytes: Option<u64>,
}

/// Runs the command in a shell; one JSON object a line.
pub fn run(command: &str) -> anyhow::Result<Vec<Peer>> {
    let output = Command::new("sh")
        .args(["-c", command])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run the peer `{command}`"))?;
    ensure!(output.status.success(), "the peer `{command}` ended with {}", output.status);
    serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().with_context(|| {
        format!("the peer `{command}` should print JSON objects with name and median_seconds, and nothing else")
    })
}
