//! Metrics: predictions and labels, or generated texts and references, in; scores out. Percentages are 0-100.

pub mod accuracy;
pub mod bootstrap;
pub mod entities;
pub mod spans;
pub mod text;

use crate::tag::TagError;

/// What can be wrong with predictions that are to be scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetricError {
    /// Nothing to score.
    #[error("no predictions to score: the evaluation set is empty")]
    Empty,
    /// Predictions and labels are not of one set.
    #[error("{predictions} predictions for {labels} labels")]
    Lengths { predictions: usize, labels: usize },
    /// A class index beyond the classes.
    #[error("{what} {class} of example {example} is not one of {classes} classes")]
    Class { what: &'static str, class: u32, example: usize, classes: u32 },
    /// A sentence that is not tagged word by word.
    #[error("sentence {sentence} has {tags} tags and {predicted} predicted ones")]
    Words { sentence: usize, predicted: usize, tags: usize },
    /// A tag that says nothing of entities.
    #[error("sentence {sentence}: {cause}")]
    Tag { sentence: usize, cause: TagError },
    /// Hypotheses and their references are not of one set.
    #[error("{hypotheses} hypotheses for the references of {references} rows")]
    Rows { hypotheses: usize, references: usize },
    /// A hypothesis that has nothing to be compared with.
    #[error("row {row} has no reference; each row needs at least one, which may be empty text")]
    Unreferenced { row: usize },
}
