//! Integration tests of training, in one binary.

mod kfac;
mod kfac_training;
mod logs;
mod optimizer;
mod precision;
mod ranks;
mod resume;
mod task;
mod training;
