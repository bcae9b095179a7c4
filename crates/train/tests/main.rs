//! Integration tests of training, in one binary.

mod kfac;
mod logs;
mod optimizer;
mod precision;
mod resume;
mod task;
mod training;
