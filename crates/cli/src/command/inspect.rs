//! `lapidary inspect`: what is in a checkpoint folder or a safetensors file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use lapidary_models::checkpoint::{Checkpoint, CheckpointError, SafetensorsFile, Summary, packed};
use serde::Serialize;
use serde_json::{Map, Value};

use super::Options;
use crate::output;

#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint folder, or a .safetensors file
    path: PathBuf,
}

/// What is printed.
#[derive(Serialize)]
struct Inspection {
    path: PathBuf,
    /// Of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Map<String, Value>>,
    /// Of a file.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    summary: Summary,
}

pub fn run(args: &Args, options: &Options) -> anyhow::Result<()> {
    let inspection = inspect(&args.path)?;
    output::print(options.json, &inspection, &inspection)
}

fn inspect(path: &Path) -> Result<Inspection, CheckpointError> {
    let path = path.to_owned();
    if path.is_file() {
        let file = SafetensorsFile::open(&path)?;
        let metadata = file.header().metadata.clone();
        Ok(Inspection { summary: Summary::of_file(&file), path, config: None, metadata })
    } else {
        let checkpoint = Checkpoint::open(&path)?;
        let config = Some(checkpoint.config().values().clone());
        Ok(Inspection { summary: Summary::of(&checkpoint)?, path, config, metadata: BTreeMap::new() })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.path.display())?;
        // The table shows how each tensor is packed.
        let config = self.config.iter().flatten().filter(|(key, _)| *key != packed::CONFIG_KEY);
        let lines = config.map(|(key, value)| (key, value.to_string()));
        let lines: Vec<_> = lines.chain(self.metadata.iter().map(|(key, value)| (key, value.clone()))).collect();
        for (key, value) in &lines {
            writeln!(f, "{:32}  {}", shortened(key), shortened(value))?;
        }
        if !lines.is_empty() {
            writeln!(f)?;
        }
        self.summary.fmt(f)
    }
}

/// A value from a file as a part of one line.
fn shortened(value: &str) -> String {
    const LONGEST: usize = 80;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = value.chars().take(LONGEST).map(plain).collect();
    if value.chars().nth(LONGEST).is_some() {
        short.push('…');
    }
    short
}
