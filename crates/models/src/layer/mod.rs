//! Layers, each a small module whose weights lie as published checkpoints keep them.
//!
//! Shapes in the comments use one legend: `B` batch, `L` length, `D` width, `H` heads, `G` heads of keys, `K` head width,
//! `V` vocabulary, `F` feed-forward width. Activations between layers are `[B·L, D]`.

mod attention;
mod batch_norm;
mod conv;
mod embedding;
mod feed_forward;
mod init;
mod linear;
mod norm;
mod rotary;

pub use attention::{Attention, AttentionConfig};
pub use batch_norm::BatchNorm;
pub use conv::{Conv2d, Pictures};
pub use embedding::Embedding;
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use init::Initializer;
pub use linear::{Linear, WeightRange};
pub use norm::{Norm, NormKind};
pub use rotary::{RotaryConfig, RotaryScaling};
