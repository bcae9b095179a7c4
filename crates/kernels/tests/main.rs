//! The kernels against plain twins, as slice functions and as Burn operators.

mod cpu;
mod ops;
mod support;
