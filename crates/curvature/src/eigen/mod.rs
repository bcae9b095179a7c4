//! Eigenvalues and their vectors.

mod lanczos;
mod power;

pub use lanczos::{LanczosOptions, LanczosStep, Spectrum, lanczos, lanczos_top};
pub use power::{PowerOptions, PowerStep, top_eigenvalue, top_eigenvalues};

/// An eigenvalue, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// Rayleigh quotient `<v, A v>`, with its sign.
    pub value: f64,
    /// `v`, of unit norm: what `value` and `residual` were computed with.
    pub vector: Vec<f32>,
    /// `‖A v - value v‖ / |value|`: some eigenvalue lies within `residual |value|` of `value`. Infinite if only
    /// `value` is zero, 0 for the zero operator.
    pub residual: f64,
    /// Products made until it was known.
    pub iterations: usize,
    /// Whether it was found as accurately as asked: of a power iteration, whether the last iteration moved the value by
    /// no more than `tolerance` relative to it, with a residual of at most `sqrt(tolerance)` (the quotient's error is of
    /// second order in the residual, so both ask for about the same; the residual is what tells a settled value from a
    /// slow one and from a pair of opposite eigenvalues), which is all that [`lanczos_top`] asks; of [`lanczos`], see
    /// [`LanczosOptions::tolerance`].
    pub converged: bool,
}
