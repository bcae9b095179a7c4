//! Fewer bits for each weight, as many as the curvature of its layer asks for.
//!
//! [`find_ranges`] chooses the grid of every group of rows, [`allocate`] gives layers their bits by the sensitivity
//! that `lapidary-curvature` measured (Q-BERT, arXiv 1909.05840), and a [`BitPlan`] says for every parameter what it
//! gets and what that saves.

mod allocate;
mod cut;
mod error;
mod least_squares;
mod plan;
mod quantizer;

pub use allocate::{MixedPrecision, allocate, expand};
pub use cut::{CutOptions, cut, matrices, pack, plan_by_block};
pub use error::QuantError;
pub use plan::{BitPlan, ParameterShape, PlanSize, Precision, megabytes};
pub use quantizer::{Method, Ranges, dequantize, find_ranges, group_rows, quantize_codes};
