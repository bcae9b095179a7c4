//! Metrics: predictions and labels in, scores out. Percentages are 0-100.

pub mod accuracy;

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
}
