//! The trunk that every transformer of the product is: blocks of attention and feed-forward under one mask.
//!
//! A full mask and the norm after the residual make it BERT, a causal mask and the norm before make it a decoder.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::mask::Mask;

use crate::layer::{Attention, FeedForward, Initializer, LayerNorm, Linear};
use crate::pass::Pass;

/// Where a block normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// `x + f(norm(x))`, as in GPT-2 and what followed.
    Before,
    /// `norm(x + f(x))`, as in the first transformer and BERT.
    After,
}

/// Sizes of a trunk.
#[derive(Clone, Debug)]
pub struct TrunkConfig {
    /// `D`.
    pub width: usize,
    /// `H`, a divisor of the width.
    pub heads: usize,
    /// How many of the heads have the keys of the tokens before: see [`Attention::shifting`].
    pub shifted_heads: usize,
    /// `F`.
    pub feed_forward: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Base of the angles by which queries and keys are turned, as in
    /// [`Rotary::new`](lapidary_kernels::rotary::Rotary::new). `None`: positions are told before the trunk.
    pub rotary: Option<f64>,
    /// Where the blocks normalize.
    pub norm: NormPlacement,
    /// Added to the variance in the norms.
    pub norm_eps: f32,
}

/// One block.
#[derive(Module, Debug)]
pub struct Block {
    /// Mixes along the length.
    pub attention: Attention,
    /// Norm of the attention half.
    pub attention_norm: LayerNorm,
    /// Mixes along the width.
    pub feed_forward: FeedForward,
    /// Norm of the feed-forward half.
    pub feed_forward_norm: LayerNorm,
    #[module(skip)]
    norm: NormPlacement,
}

/// The blocks in their order.
#[derive(Module, Debug)]
pub struct Trunk {
    /// First to last.
    pub blocks: Vec<Block>,
}

impl Block {
    fn new(config: &TrunkConfig, init: &mut Initializer) -> Self {
        Self {
            attention: Attention::new(config.width, config.heads, config.rotary, init).shifting(config.shifted_heads),
            attention_norm: LayerNorm::new(config.width, config.norm_eps, init),
            feed_forward: FeedForward::new(config.width, config.feed_forward, init),
            feed_forward_norm: LayerNorm::new(config.width, config.norm_eps, init),
            norm: config.norm,
        }
    }

    /// `x [B·L, D]` → `[B·L, D]`; `place` tells the dropout layers of the model apart.
    fn forward(&self, x: Tensor<2>, rows: usize, mask: &Mask, pass: &Pass, place: u64) -> Tensor<2> {
        match self.norm {
            NormPlacement::After => {
                let heads = self.attention.heads(x.clone(), rows, mask, pass); // [B·L, H·K]
                let mixed = pass.dropout(self.attention.output.forward(heads, pass), place);
                let x = self.attention_norm.forward_residual(mixed, x);
                let inner = self.feed_forward.inner(x.clone(), pass); // [B·L, F]
                let mixed = pass.dropout(self.feed_forward.down.forward(inner, pass), place + 1);
                self.feed_forward_norm.forward_residual(mixed, x)
            }
            NormPlacement::Before => {
                let heads = self.attention.heads(self.attention_norm.forward(x.clone()), rows, mask, pass);
                let x = added(&self.attention.output, heads, x, pass, place);
                let inner = self.feed_forward.inner(self.feed_forward_norm.forward(x.clone()), pass);
                added(&self.feed_forward.down, inner, x, pass, place + 1)
            }
        }
    }

    /// The block's matrices with their paths inside it.
    pub fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 6] {
        [
            ("attention.query", &mut self.attention.query),
            ("attention.key", &mut self.attention.key),
            ("attention.value", &mut self.attention.value),
            ("attention.output", &mut self.attention.output),
            ("feed_forward.up", &mut self.feed_forward.up),
            ("feed_forward.down", &mut self.feed_forward.down),
        ]
    }
}

/// `residual + dropout(linear(x))`.
fn added(linear: &Linear, x: Tensor<2>, residual: Tensor<2>, pass: &Pass, place: u64) -> Tensor<2> {
    if pass.drops() {
        residual + pass.dropout(linear.forward(x, pass), place)
    } else {
        linear.forward_residual(x, residual, pass)
    }
}

impl Trunk {
    /// Dropout places of a block: one after its attention, one after its feed-forward.
    const PLACES: u64 = 2;

    /// Blocks with normal weights.
    pub fn new(config: &TrunkConfig, init: &mut Initializer) -> Self {
        Self { blocks: (0..config.blocks).map(|_| Block::new(config, init)).collect() }
    }

    /// Runs the blocks of a range, `x [B·L, D]` → `[B·L, D]`.
    pub fn forward(&self, x: Tensor<2>, blocks: Range<usize>, rows: usize, mask: &Mask, pass: &Pass) -> Tensor<2> {
        let first = blocks.start;
        self.blocks[blocks]
            .iter()
            .enumerate()
            .fold(x, |x, (offset, block)| block.forward(x, rows, mask, pass, (first + offset) as u64 * Self::PLACES))
    }
}
