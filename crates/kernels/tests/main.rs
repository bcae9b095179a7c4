//! The kernels against plain twins, under every instruction set that the machine has.

mod isa;
mod support;
mod twin;
