mod allocate;
mod least_squares;
mod plan;
mod quantizer;
mod support;
