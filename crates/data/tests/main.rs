//! The integration tests of this crate, one binary.

#[cfg(feature = "real-data")]
mod real_data;
mod trained;
mod way;
