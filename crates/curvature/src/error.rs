use thiserror::Error;

/// What can go wrong while curvature is measured.
#[derive(Debug, Error)]
pub enum CurvatureError {
    #[error("the operator has dimension 0: there is no parameter to measure the curvature of")]
    Empty,
    #[error("{what} has {found} entries, but the operator has dimension {expected}")]
    Dimension { what: &'static str, expected: usize, found: usize },
    #[error(
        "the product of power iteration {iteration} holds NaN or infinity: \
         look for a diverged checkpoint or a non-finite loss on this data"
    )]
    NonFinite { iteration: usize },
    #[error("layer {layer}: sensitivity needs at least one eigenvalue, one per share of the data")]
    NoSamples { layer: usize },
    #[error("layer {layer}: the eigenvalue of sample {sample} is {value}, not a finite number")]
    NonFiniteSample { layer: usize, sample: usize, value: f64 },
    #[error("the finite-difference step must be a positive finite number, not {0}")]
    Step(f64),
    #[error(
        "no finite-difference step between {smallest:e} and {largest:e} gives finite gradients: \
         look for a diverged checkpoint or a non-finite loss on this data"
    )]
    NoStep { smallest: f64, largest: f64 },
    /// A product could not be made; the operator's own error is inside.
    #[error(transparent)]
    Operator(#[from] Box<dyn std::error::Error + Send + Sync>),
}
