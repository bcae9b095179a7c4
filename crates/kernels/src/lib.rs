//! The arithmetic of Lapidary: plain functions over `f32` slices ([`cpu`]), the same as Burn operators with their
//! backward passes ([`ops`]), the one attention [`mask`] and the one random generator ([`rng`]).

pub mod cpu;
pub mod mask;
pub mod ops;
pub mod rng;
