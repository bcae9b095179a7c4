//! `metrics.jsonl`: one JSON object a line, in the order of the steps, never a step twice.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use lapidary_models::checkpoint::atomic_write;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// Steps done.
    pub step: u64,
    /// Training loss of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Norm of the gradient before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norm: Option<f64>,
    /// The metric on the validation part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// Damping of K-FAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<f64>,
    /// The noise scale of the gradient, in targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_scale: Option<f64>,
    /// Seconds of training up to here, over all resumptions.
    #[serde(default)]
    pub seconds: f64,
}

/// The log of one training.
pub struct MetricsLog {
    path: PathBuf,
    file: BufWriter<File>,
}

impl MetricsLog {
    /// Opens a log to go on after `step`: lines of later steps are of a run that was lost, and go.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let kept: Vec<MetricsRow> = Self::read(path)?.into_iter().filter(|row| row.step <= step).collect();
        atomic_write(path, |writer| {
            kept.iter().try_for_each(|row| {
                serde_json::to_writer(&mut *writer, row)?;
                writer.write_all(b"\n")
            })
        })?;
        let failed = |source| TrainError::Log { path: path.to_owned(), source };
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// All whole lines of a log; none if there is no such file. A last line cut off by a crash is left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(path: &Path) -> Result<Vec<MetricsRow>, TrainError> {
        let failed = |source| TrainError::Log { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut rows = Vec::new();
        for line in BufReader::new(file).lines() {
            if let Ok(row) = serde_json::from_str(&line.map_err(failed)?) {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, row: &MetricsRow) -> Result<(), TrainError> {
        let written = serde_json::to_writer(&mut self.file, row)
            .map_err(std::io::Error::from)
            .and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| TrainError::Log { path: self.path.clone(), source })
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), TrainError> {
        self.file.flush().map_err(|source| TrainError::Log { path: self.path.clone(), source })
    }
}
