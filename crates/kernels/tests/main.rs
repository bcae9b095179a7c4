//! The kernels against plain twins and between guard pages, under every instruction set that the machine has.

#[cfg(unix)]
mod guard;
mod isa;
mod support;
mod twin;
