//! Along which directions is the loss curved, and how much?
//!
//! A [`Problem`] is a model's loss on fixed examples, a [`Selection`] some of the parameters as one vector, and a
//! [`Surface`] the loss as a function of them. Its curvature matrices are never formed: each is a [`LinearOperator`],
//! which multiplies vectors.
//!
//! | operator | is |
//! |---|---|
//! | [`Hessian`] | the second derivatives; products of two gradients choose their step, and know their error: [`step`] |
//! | [`RowCurvature`] | generalized Gauss-Newton, or Fisher, sampled or empirical |
//! | [`GradientCovariance`] | the covariance of the targets' gradients |
//! | [`kronecker::LayerFactors`] | a layer's block as the product of two small matrices; has an inverse |
//! | [`operator`] | sums, multiples, shifts, inverses, diagonals of these |
//!
//! What is asked reads only that trait: both ends of the spectrum ([`eigen::lanczos`]), its largest magnitude
//! ([`eigen::lanczos_top`], [`top_eigenvalue`]), the [`trace`], the [`density`] of all eigenvalues, and from several
//! top eigenvalues the [`LayerSensitivity`] that Q-BERT (arXiv 1909.05840) ranks layers by. A [`landscape`] is the loss itself along some directions.

mod basis;
pub mod density;
pub mod eigen;
mod error;
mod hessian;
pub mod kronecker;
pub mod landscape;
pub mod operator;
pub mod problem;
mod rows;
mod selection;
mod sensitivity;
pub mod step;
mod surface;
mod symmetric;
pub mod trace;
mod vector;

pub use eigen::{Eigen, PowerOptions, PowerStep, top_eigenvalue};
pub use error::CurvatureError;
pub use hessian::Hessian;
pub use operator::{Dense, LinearOperator, Shifted, symmetric_error};
pub use problem::Problem;
pub use rows::{GradientCovariance, Middle, RowCurvature};
pub use selection::{Piece, Selection};
pub use sensitivity::{LayerSensitivity, rank};
pub use step::Difference;
pub use surface::Surface;
pub use vector::{dot, norm};
