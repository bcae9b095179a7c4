//! The trunk that every transformer of the product is: blocks of attention and feed-forward under one mask.
//!
//! A full mask and the norm after the residual make it BERT, a causal mask and the norm before make it a decoder; shared
//! keys, gates, windows and norms of other kinds make it Llama or Gemma.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_kernels::mask::Mask;

use crate::layer::{
    Attention, AttentionConfig, FeedForward, FeedForwardConfig, Initializer, Linear, Norm, NormKind, RotaryConfig,
};
use crate::pass::Pass;

/// Where a block normalizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// `x + f(norm(x))`, as in GPT-2 and what followed.
    Before,
    /// `norm(x + f(x))`, as in the first transformer and BERT.
    After,
    /// `x + norm(f(norm(x)))`, as in Gemma 2 and 3.
    Around,
}

/// Sizes of a trunk.
#[derive(Clone, Debug, PartialEq)]
pub struct TrunkConfig {
    /// Number of blocks.
    pub blocks: usize,
    /// Of every block but the local ones.
    pub attention: AttentionConfig,
    /// Blocks that see no further than a window.
    pub local: Option<LocalBlocks>,
    /// The other half of a block.
    pub feed_forward: FeedForwardConfig,
    /// Where the blocks normalize.
    pub placement: NormPlacement,
    /// What the norms are.
    pub norm: NormKind,
    /// Added to the variance or the mean square in the norms.
    pub norm_eps: f32,
}

/// Blocks whose attention has a window, between such that see all.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalBlocks {
    /// As [`Mask::window`].
    pub window: usize,
    /// How their queries and keys are turned, if they are.
    pub rotary: Option<RotaryConfig>,
    /// Which they are.
    pub which: Locals,
}

/// Which blocks are local.
#[derive(Clone, Debug, PartialEq)]
pub enum Locals {
    /// All but every so many-th.
    AllButEvery(usize),
    /// For each block whether it is.
    Listed(Vec<bool>),
}

impl LocalBlocks {
    /// Whether a block is one of them.
    pub fn contains(&self, block: usize) -> bool {
        match &self.which {
            Locals::AllButEvery(period) => *period == 0 || !(block + 1).is_multiple_of(*period),
            Locals::Listed(blocks) => blocks.get(block).copied().unwrap_or(false),
        }
    }
}

impl TrunkConfig {
    /// Blocks of one kind as the first transformers had them: as many keys as queries, layer norms, biases and GELU.
    pub fn new(width: usize, heads: usize, feed_forward: usize, blocks: usize) -> Self {
        Self {
            blocks,
            attention: AttentionConfig::new(width, heads),
            local: None,
            feed_forward: FeedForwardConfig { width, inner: feed_forward, gate: None, bias: true },
            placement: NormPlacement::Before,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
        }
    }

    /// Parameters of all blocks.
    pub fn parameters(&self) -> u128 {
        let size = |size: usize| size as u128;
        let AttentionConfig { width, heads, kv_heads, head_width, bias, head_norm, .. } = &self.attention;
        let (width, head_width) = (size(*width), size(*head_width));
        let (queries, keys) = (size(*heads).saturating_mul(head_width), size(*kv_heads).saturating_mul(head_width));
        let inner = size(self.feed_forward.inner);
        let ups = if self.feed_forward.gate.is_some() { 2 } else { 1 };
        let both = queries.saturating_add(keys).saturating_mul(2);
        let matrices = both.saturating_add(inner.saturating_mul(ups + 1)).saturating_mul(width);
        let attention_bias =
            if *bias { queries.saturating_add(keys.saturating_mul(2)).saturating_add(width) } else { 0 };
        let inner_bias = if self.feed_forward.bias { inner.saturating_mul(ups).saturating_add(width) } else { 0 };
        let of_norm = |width: u128, kind: NormKind| width.saturating_mul(if kind == NormKind::Layer { 2 } else { 1 });
        let norms = if self.placement == NormPlacement::Around { 4 } else { 2 };
        let norms = of_norm(width, self.norm).saturating_mul(norms);
        let head_norms = head_norm.map_or(0, |(kind, _)| of_norm(head_width, kind).saturating_mul(2));
        let block = [attention_bias, inner_bias, norms, head_norms].into_iter().fold(matrices, u128::saturating_add);
        block.saturating_mul(size(self.blocks))
    }

    /// The attention of a block.
    fn attention(&self, block: usize) -> AttentionConfig {
        match self.local.as_ref().filter(|local| local.contains(block)) {
            Some(local) => {
                AttentionConfig { window: Some(local.window), rotary: local.rotary, ..self.attention.clone() }
            }
            None => self.attention.clone(),
        }
    }
}

/// One block.
#[derive(Module, Debug)]
pub struct Block {
    /// Mixes along the length.
    pub attention: Attention,
    /// Norm of the attention half.
    pub attention_norm: Norm,
    /// Of what the attention half gives, where blocks normalize around their halves.
    pub attention_out_norm: Option<Norm>,
    /// Mixes along the width.
    pub feed_forward: FeedForward,
    /// Norm of the feed-forward half.
    pub feed_forward_norm: Norm,
    /// As `attention_out_norm`.
    pub feed_forward_out_norm: Option<Norm>,
    #[module(skip)]
    placement: NormPlacement,
}

/// The blocks in their order.
#[derive(Module, Debug)]
pub struct Trunk {
    /// First to last.
    pub blocks: Vec<Block>,
}

impl Block {
    fn new(config: &TrunkConfig, block: usize, init: &mut Initializer) -> Self {
        let width = config.attention.width;
        let norm = |init: &mut Initializer| Norm::new(config.norm, width, config.norm_eps, init);
        let around = config.placement == NormPlacement::Around;
        Self {
            attention: Attention::new(&config.attention(block), init),
            attention_norm: norm(init),
            attention_out_norm: around.then(|| norm(init)),
            feed_forward: FeedForward::new(&config.feed_forward, init),
            feed_forward_norm: norm(init),
            feed_forward_out_norm: around.then(|| norm(init)),
            placement: config.placement,
        }
    }

    /// `x [B·L, D]` → `[B·L, D]`; `place` tells the dropout layers of the model apart.
    fn forward(&self, x: Tensor<2>, rows: usize, mask: &Mask, pass: &Pass, place: u64) -> Tensor<2> {
        match self.placement {
            NormPlacement::After => {
                let heads = self.attention.heads(x.clone(), rows, mask, pass); // [B·L, H·K]
                let mixed = pass.dropout(self.attention.output.forward(heads, pass), place);
                let x = self.attention_norm.forward_residual(mixed, x);
                let inner = self.feed_forward.inner(x.clone(), pass); // [B·L, F]
                let mixed = pass.dropout(self.feed_forward.down.forward(inner, pass), place + 1);
                self.feed_forward_norm.forward_residual(mixed, x)
            }
            NormPlacement::Before | NormPlacement::Around => {
                let heads = self.attention.heads(self.attention_norm.forward(x.clone()), rows, mask, pass);
                let x = added(&self.attention.output, self.attention_out_norm.as_ref(), heads, x, pass, place);
                let inner = self.feed_forward.inner(self.feed_forward_norm.forward(x.clone()), pass);
                added(&self.feed_forward.down, self.feed_forward_out_norm.as_ref(), inner, x, pass, place + 1)
            }
        }
    }

    /// The block's matrices with their paths inside it.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut Linear)> {
        let gate = self.feed_forward.gate.as_mut().map(|gate| ("feed_forward.gate", gate));
        let of_attention = [
            ("attention.query", &mut self.attention.query),
            ("attention.key", &mut self.attention.key),
            ("attention.value", &mut self.attention.value),
            ("attention.output", &mut self.attention.output),
        ];
        let others =
            [("feed_forward.up", &mut self.feed_forward.up), ("feed_forward.down", &mut self.feed_forward.down)];
        of_attention.into_iter().chain(gate).chain(others)
    }
}

/// `residual + dropout(norm(linear(x)))`.
fn added(
    linear: &Linear,
    norm: Option<&Norm>,
    x: Tensor<2>,
    residual: Tensor<2>,
    pass: &Pass,
    place: u64,
) -> Tensor<2> {
    match norm {
        Some(norm) => residual + pass.dropout(norm.forward(linear.forward(x, pass)), place),
        None if pass.drops() => residual + pass.dropout(linear.forward(x, pass), place),
        None => linear.forward_residual(x, residual, pass),
    }
}

impl Trunk {
    /// Dropout places of a block: one after its attention, one after its feed-forward.
    const PLACES: u64 = 2;

    /// Blocks with normal weights.
    pub fn new(config: &TrunkConfig, init: &mut Initializer) -> Self {
        Self { blocks: (0..config.blocks).map(|block| Block::new(config, block, init)).collect() }
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
