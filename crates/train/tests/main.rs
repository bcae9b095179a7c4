//! Integration tests of training, in one binary.

mod logs;
mod optimizer;
mod precision;
mod resume;
mod task;
mod training;
