//! The operators with their gradients, as Burn's autodiff collects them.

mod ops;
mod support;
#[cfg(feature = "vulkan")]
mod vulkan;
