//! One run's result as JSON: what was measured, where, and what was not reached.
//!
//! Every recipe, study and bench writes one [`RunResult`]; the ones that are quoted are committed under `results/`.
//! Reading is strict: an unknown, missing or repeated field is an error that names the file.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{atomic, machine};

/// What one run gave, in the field order of its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunResult {
    /// The recipe, study or bench, and the stem of its file: `qbert-sst2`.
    pub name: String,
    /// The commit that ran, with `-dirty` behind it if tracked files were changed; `unknown` outside a checkout.
    pub commit: String,
    /// When the result was made, RFC 3339 in UTC.
    pub date: String,
    /// Processor, cores and memory.
    pub machine: String,
    /// Instruction set in use: `amx`, `avx512_bf16`, `avx512`, `avx2`, `neon` or `portable`.
    pub isa: String,
    /// `cpu`, or `vulkan, ` and the name of the adapter.
    pub device: String,
    pub threads: usize,
    /// The run's seed, the first one where it has several.
    pub seed: u64,
    /// Wall time of the whole run.
    pub seconds: f64,
    /// The most memory the process held at once; 0 where the system does not say, and then a note says so.
    pub peak_rss_bytes: u64,
    /// Scores and sizes: `task.split.metric.variant`, percentages as 0-100, in the order they were measured.
    pub metrics: Metrics,
    /// Comparisons: `work.variant.ratio_to_PEER` (time over time, below 1 is faster) or `….rate_to_PEER` (rate over
    /// rate, above 1 is faster).
    pub peers: Metrics,
    /// What was not reached and what fell back.
    pub notes: Vec<String>,
}

/// What a run was started with, as its result states it.
#[derive(Clone, Debug)]
pub struct RunSettings {
    pub isa: String,
    pub device: String,
    pub threads: usize,
    pub seed: u64,
}

impl RunResult {
    /// A result without measurements yet; the machine, commit and date are read here.
    pub fn new(name: impl Into<String>, settings: RunSettings) -> Self {
        Self {
            name: name.into(),
            commit: machine::commit(),
            date: machine::date(),
            machine: machine::describe(),
            isa: settings.isa,
            device: settings.device,
            threads: settings.threads,
            seed: settings.seed,
            seconds: 0.0,
            peak_rss_bytes: 0,
            metrics: Metrics::default(),
            peers: Metrics::default(),
            notes: Vec::new(),
        }
    }

    /// Closes the run: sets its date, its wall time and the memory it took at its peak.
    pub fn finish(&mut self, seconds: f64) {
        self.date = machine::date();
        self.seconds = seconds;
        match machine::peak_rss_bytes() {
            Some(bytes) => self.peak_rss_bytes = bytes,
            None => self.notes.push("peak memory was not measured: this system does not report it".into()),
        }
    }

    /// Reads one result file.
    ///
    /// # Errors
    /// A file that cannot be read, is not JSON, has an unknown, missing or repeated field, or a metric name that is not
    /// dotted and flat.
    pub fn read(path: &Path) -> Result<Self, ResultError> {
        let bytes = std::fs::read(path).map_err(|cause| ResultError::Read { path: path.into(), cause })?;
        serde_json::from_slice(&bytes).map_err(|cause| ResultError::Parse { path: path.into(), cause })
    }

    /// Reads every `*.json` of a folder, ordered by file name.
    ///
    /// # Errors
    /// As [`read`](Self::read), and a file that is not named after the result inside it.
    pub fn read_folder(folder: &Path) -> Result<Vec<Self>, ResultError> {
        let unreadable = |cause| ResultError::Read { path: folder.into(), cause };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        paths.into_iter().map(|path| Self::read(&path)?.named_after(path)).collect()
    }

    fn named_after(self, path: PathBuf) -> Result<Self, ResultError> {
        if path.file_stem().is_some_and(|stem| stem == self.name.as_str()) {
            Ok(self)
        } else {
            Err(ResultError::Misnamed { path, name: self.name })
        }
    }

    /// Writes the result atomically, indented, with a newline at its end.
    ///
    /// # Errors
    /// A wall time that is not finite (JSON has no such number), or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ResultError> {
        if !self.seconds.is_finite() {
            return Err(ResultError::NotFinite { name: "seconds".into(), value: self.seconds });
        }
        let unwritable = |cause| ResultError::Write { path: path.into(), cause };
        let mut json = serde_json::to_vec_pretty(self).map_err(|error| unwritable(error.into()))?;
        json.push(b'\n');
        atomic::write(path, &json).map_err(unwritable)
    }
}

/// An ordered map from dotted flat names to finite numbers. It cannot hold another kind of name or number.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Metrics(IndexMap<String, f64>);

impl Metrics {
    /// Adds a number under a new name.
    ///
    /// # Errors
    /// A name that is not dotted and flat (see [`check_name`]) or that is there already, or a number that is not finite.
    pub fn insert(&mut self, name: impl Into<String>, value: f64) -> Result<(), ResultError> {
        let name = name.into();
        check_name(&name)?;
        if !value.is_finite() {
            return Err(ResultError::NotFinite { name, value });
        }
        match self.0.entry(name) {
            indexmap::map::Entry::Occupied(entry) => Err(ResultError::Repeated { name: entry.key().clone() }),
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Names and numbers in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Metrics;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a map from dotted names to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::default();
                while let Some((name, value)) = map.next_entry::<String, f64>()? {
                    metrics.insert(name, value).map_err(de::Error::custom)?;
                }
                Ok(metrics)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Accepts dotted flat names: two or more parts of `a-z`, `0-9` and `_`, joined by single dots.
///
/// # Errors
/// Any other name.
pub fn check_name(name: &str) -> Result<(), ResultError> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if name.contains('.') && name.split('.').all(is_part) {
        Ok(())
    } else {
        Err(ResultError::Name { name: name.into() })
    }
}

/// Why a result could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    #[error("cannot read the result {}: {cause}", path.display())]
    Read { path: PathBuf, cause: io::Error },
    #[error("{} is not a result file: {cause}", path.display())]
    Parse { path: PathBuf, cause: serde_json::Error },
    #[error("{} holds the result of `{name}`: name the file {name}.json", path.display())]
    Misnamed { path: PathBuf, name: String },
    #[error("cannot write the result {}: {cause}; nothing was changed", path.display())]
    Write { path: PathBuf, cause: io::Error },
    #[error("metric name {name:?} is not dotted and flat: write it like task.split.metric.variant, in a-z, 0-9 and _")]
    Name { name: String },
    #[error("metric {name:?} is there twice")]
    Repeated { name: String },
    #[error("{name:?} is {value}: a result holds finite numbers only")]
    NotFinite { name: String, value: f64 },
}
