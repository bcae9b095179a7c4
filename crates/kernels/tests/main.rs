//! The kernels against plain twins.

mod cpu;
