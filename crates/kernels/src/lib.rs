//! The arithmetic of Lapidary: kernels over `f32` slices, row-major, one a file; the one attention [`mask`], the one
//! random generator ([`rng`]) and the choice of the instruction set ([`isa`]).
//!
//! Each kernel runs in parallel over chunks of a fixed size and sums in a fixed order, so results never depend on the
//! number of threads. The loops are compiled for several instruction sets, and the best one that the processor has is picked
//! at run time. Slice lengths are contracts between the crates and asserted; values that come from outside are
//! checked and answered with an error.
//!
//! Called from outside a Rayon pool each kernel pays for waking it: run a whole training step inside
//! `rayon::ThreadPool::install`.

// A kernel's matrices, their dimensions and its outputs are each named by the mathematics.
#![allow(clippy::too_many_arguments)]

pub mod activation;
pub mod adamw;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod batch_norm;
#[cfg(target_arch = "x86_64")]
mod bf16;
pub mod choice;
mod chunks;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod fake_quantize;
pub mod gelu;
pub mod isa;
pub mod layer_norm;
pub mod limits;
pub mod linear;
pub mod linear_cross_entropy;
pub mod mask;
mod math;
pub mod moments;
pub mod packed;
mod packing;
mod panels;
pub mod pool;
pub mod precision;
mod product;
pub mod reduce;
pub mod rms_norm;
pub mod rng;
pub mod rotary;
pub mod sgd;
mod simd;
pub mod team;
