//! The integration tests of this crate, one binary.

#[cfg(feature = "real-data")]
mod real_data;
mod spans;
mod tags;
mod text_metrics;
mod trained;
mod way;
