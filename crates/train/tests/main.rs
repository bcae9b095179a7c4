//! Integration tests of training, in one binary.

mod logs;
mod optimizer;
mod resume;
mod task;
mod training;
