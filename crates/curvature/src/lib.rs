//! Along which directions is the loss curved, and how much?
//!
//! A curvature matrix is never formed: it is a [`LinearOperator`] that multiplies vectors. What is asked of it reads
//! only that trait: [`top_eigenvalue`] by power iteration, and from several of those the [`LayerSensitivity`] that
//! Q-BERT (arXiv 1909.05840) ranks layers by. Hessian products made of two gradients choose their step, and know
//! their error, through [`step`].

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
