//! Integration tests of curvature, in one binary.

mod density;
mod eigen;
mod golden;
mod hessian;
mod kronecker;
mod lanczos;
mod landscape;
mod operators;
mod step;
mod support;
mod trace;
