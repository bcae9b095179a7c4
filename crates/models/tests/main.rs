//! Integration tests of the models, in one binary.

mod bert;
mod checkpoint;
mod objective;
mod published;
#[cfg(feature = "real-data")]
mod real_data;
mod resnet;
mod trunk;
