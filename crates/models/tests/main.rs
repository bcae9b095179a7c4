//! Integration tests of the models, in one binary.

mod bert;
mod checkpoint;
mod objective;
mod resnet;
mod trunk;
