//! Nothing but the benches, in `kernels.rs`.
