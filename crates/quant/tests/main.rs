//! Integration tests of quantization, in one binary.

mod allocate;
mod cut;
mod golden;
mod least_squares;
mod plan;
mod quantizer;
mod support;
