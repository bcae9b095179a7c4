//! Integration tests of curvature, in one binary.

mod eigen;
mod hessian;
mod step;
