//! The kernels as Burn operators: each with a backward pass of its own, each an ordinary function over
//! [`Tensor`](burn::tensor::Tensor).
//!
//! A file is one operator and reads from the general to the particular: the public function; a trait, by which it
//! crosses Burn's dispatch to a backend, with its bodies made of ordinary operations of any backend; the CPU's
//! implementation by a kernel; its place in the graph of gradients. Backends without a kernel, and the CPU for other
//! types than `f32`, run the plain bodies. What is saved for the backward pass is the operator's input wherever
//! recomputing is cheaper than the memory traffic of keeping an intermediate.

// Burn's dispatch carries tensors one by one.
#![allow(clippy::too_many_arguments)]

pub mod adamw;
pub mod attention;
pub mod average_pool;
pub mod batch_norm;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod fake_quantize;
pub mod fake_quantize_rows;
pub mod gated;
pub mod gelu;
pub mod kept;
pub mod layer_norm;
pub mod linear;
pub mod linear_cross_entropy;
mod operator;
pub mod rms_norm;
pub mod sgd;
pub mod sum_of_squares;
pub mod watched;

pub use adamw::{AdamWState, adamw};
pub use attention::attention;
pub use average_pool::average_pool;
pub use batch_norm::{BatchNormInput, Reduction, batch_norm, batch_norm_fixed};
pub use conv2d::conv2d;
pub use cross_entropy::{CrossEntropyError, cross_entropy};
pub use dropout::{DropoutKey, dropout};
pub use embedding::embedding;
pub use fake_quantize::fake_quantize;
pub use fake_quantize_rows::fake_quantize_rows;
pub use gated::gated;
pub use gelu::gelu;
pub use kept::{Keeper, kept};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use linear_cross_entropy::{linear_cross_entropy, linear_cross_entropy_drawing};
pub use rms_norm::rms_norm;
pub use sgd::sgd;
pub use sum_of_squares::sum_of_squares;
pub use watched::{Rung, Watcher, watched};
