use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong while curvature is measured.
#[derive(Debug, Error)]
pub enum CurvatureError {
    #[error("the operator has dimension 0: there is no parameter to measure the curvature of")]
    Empty,
    #[error("{what} has {found} entries, but the operator has dimension {expected}")]
    Dimension { what: &'static str, expected: usize, found: usize },
    #[error(
        "product {product} with the operator holds NaN or infinity: \
         look for a diverged checkpoint or a non-finite loss on this data"
    )]
    NonFinite { product: usize },
    #[error("the number of {0} is 0")]
    Count(&'static str),
    #[error(
        "a direction of curvature {curvature:e} was met: only a positive definite operator can be inverted; \
         shift it by a damping"
    )]
    Indefinite { curvature: f64 },
    #[error(
        "conjugate gradients did not reach a residual of {tolerance:e} within {products} products, but {residual:e}: \
         shift the operator by a damping, or allow more products"
    )]
    NotSolved { residual: f64, tolerance: f64, products: usize },
    #[error("a basis of {found} vectors is too small for what is asked for: allow {needed} at least")]
    Basis { found: usize, needed: usize },
    #[error("{found} products are too few for what is asked for: allow {needed} at least")]
    Products { found: usize, needed: usize },
    #[error("a symmetric matrix of {0} rows could not be diagonalized")]
    Diagonalize(usize),
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
    #[error("the examples have no target that counts")]
    NoTargets,
    #[error("the model has no trained parameter {0}")]
    Parameter(String),
    #[error("elements {start} to {end} of parameter {path} overlap others or do not exist")]
    Run { path: String, start: usize, end: usize },
    #[error("no layer with a weight is selected as a whole: there is nothing to take Kronecker factors of")]
    NoLayer,
    #[error("the Kronecker factors of {0} hold NaN or infinity")]
    NonFiniteFactor(String),
    #[error("a damping must be a positive finite number, not {0}")]
    Damping(f64),
    #[error("stopped")]
    Stopped,
    #[error("cannot keep products in {path}: {error}")]
    Record { path: PathBuf, error: std::io::Error },
    /// A product could not be made; the operator's own error is inside.
    #[error(transparent)]
    Operator(#[from] Box<dyn std::error::Error + Send + Sync>),
}

impl CurvatureError {
    /// Wraps an error that is not of this crate.
    pub(crate) fn operator(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Operator(Box::new(error))
    }
}
