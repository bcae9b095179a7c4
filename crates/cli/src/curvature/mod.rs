//! The curvature of one model's loss: eigenvalues, and on request the trace, the density, the blocks' sensitivity and
//! the landscape. Each is a stage of its own, which can be stopped and taken up again.

mod blocks;
mod questions;
mod report;
mod subject;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use clap::ValueEnum;
use lapidary_models::checkpoint::Checkpoint;
use lapidary_train::Interrupt;
use serde::Serialize;

use crate::exit::Usage;
use crate::stage::RunFolder;

pub use blocks::{Blocks, Measured, Measuring, sensitivities};
pub use report::Written;

/// Which curvature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matrix {
    /// Second derivatives of the loss
    Hessian,
    /// Generalized Gauss-Newton, which for these losses is the Fisher matrix
    GaussNewton,
    /// Mean square of the gradients of single targets
    Fisher,
}

/// What an answer depends on, beside the files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the model.
    pub name: String,
    /// `trunk`, `all`, or what paths begin with.
    pub over: String,
    pub matrix: Matrix,
    pub largest: usize,
    pub smallest: usize,
    pub tolerance: f64,
    pub products: usize,
    pub numbers: FloatDType,
    pub seed: u64,
}

impl Settings {
    /// How many are asked for.
    pub fn eigenvalues(&self) -> usize {
        self.largest.saturating_add(self.smallest)
    }
}

/// What is asked beside the eigenvalues.
#[derive(Clone, Copy, Debug)]
pub struct Questions {
    pub trace: bool,
    pub density: bool,
    pub layers: bool,
    pub landscape: bool,
}

/// How many examples; what is not said is the subject's default.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    pub examples: Option<usize>,
    /// Disjoint samples for the sensitivity of the blocks.
    pub samples: usize,
    pub layer_examples: Option<usize>,
    pub batch_size: Option<usize>,
}

/// The columns of a classifier's table.
#[derive(Clone, Copy, Debug)]
pub struct TextColumns<'a> {
    pub text: &'a str,
    pub pair: Option<&'a str>,
    pub label: &'a str,
}

/// What all stages share.
pub struct Run<'a> {
    pub settings: &'a Settings,
    pub questions: Questions,
    pub folder: &'a RunFolder,
    /// Folder of the model.
    pub model: &'a Path,
    pub data: &'a [PathBuf],
    /// Without gradients.
    pub device: &'a Device,
    pub interrupt: &'a Interrupt,
}

/// Measures, and writes `result.json` and `report.html`.
///
/// # Errors
/// A model of another kind, data that does not fit it, whatever a stage meets; what was finished before stays.
pub fn measure(
    run: &Run,
    checkpoint: &Checkpoint,
    columns: &TextColumns,
    amounts: &Amounts,
) -> anyhow::Result<Written> {
    let kind = checkpoint.config().str("model_type")?;
    match kind {
        "bert" => {
            let subject = subject::Classified::open(run, checkpoint, columns, amounts)?;
            report::write(run, &questions::ask(run, &subject)?)
        }
        "lapidary_decoder" => {
            let subject = subject::Passages::open(run, checkpoint, amounts)?;
            report::write(run, &questions::ask(run, &subject)?)
        }
        _ => Err(Usage::new(format!(
            "{}: is a model of type {kind:?}; give a BERT with the head of a task (\"bert\") or a decoder \
             (\"lapidary_decoder\")",
            run.model.display()
        ))
        .into()),
    }
}
