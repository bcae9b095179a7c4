//! Integration tests of curvature, in one binary.

mod density;
mod eigen;
mod hessian;
mod lanczos;
mod operators;
mod step;
mod support;
mod trace;
