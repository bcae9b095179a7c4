//! One token after another, by a team of threads that waits awake between the products.

use std::ops::Range;

use lapidary_kernels::attention::{CachedOptions, NewTokens, attention_cached_head};
use lapidary_kernels::gelu::gelu;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::team::Team;

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::{Dense, PackedDecoder, remember};

/// What a step writes on the way, kept from one to the next.
pub struct Stepper<'a> {
    decoder: &'a PackedDecoder,
    x: Vec<f32>,
    next: Vec<f32>,
    normed: Vec<f32>,
    inputs: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Stepper<'a> {
    /// For sequences of one decoder.
    pub fn new(decoder: &'a PackedDecoder) -> Self {
        let row = || vec![0.0; decoder.width];
        let inner = decoder.blocks.iter().map(|block| block.up.weight.output()).max().unwrap_or(0);
        Self {
            x: row(),
            next: row(),
            normed: row(),
            inputs: vec![0.0; 3 * decoder.width],
            mixed: row(),
            inner: vec![0.0; inner],
            logits: vec![0.0; decoder.output.weight.output()],
            decoder,
        }
    }

    /// Reads one token after those in the cache: the logits `[V]` of the next. The same bits as
    /// [`PackedDecoder::read`]'s.
    ///
    /// # Errors
    /// As [`PackedDecoder::read`].
    pub fn step(&mut self, id: u32, cache: &mut KvCache, team: &mut Team) -> Result<&[f32], DecodeError> {
        let decoder = self.decoder;
        decoder.check(&[id], cache)?;
        let (past, head_width) = (cache.len, decoder.width / decoder.heads);
        self.x.copy_from_slice(&decoder.embed(&[id], past));
        for (block, remembered) in decoder.blocks.iter().zip(&mut cache.blocks) {
            block.attention_norm.apply(&self.x, &mut self.normed);
            forward(&block.inputs, &self.normed, None, &mut self.inputs, team);
            remember(remembered, &self.inputs, past, decoder.width);
            let new = NewTokens { queries: &self.inputs[..decoder.width], heads: decoder.heads, past };
            team.split(&mut self.mixed, head_width, |columns, mixed| {
                for (head, mixed) in (columns.start / head_width..).zip(mixed.chunks_exact_mut(head_width)) {
                    attention_cached_head(new, remembered, &CachedOptions::default(), head, mixed);
                }
            });
            forward(&block.output, &self.mixed, Some(&self.x), &mut self.next, team);
            block.feed_forward_norm.apply(&self.next, &mut self.normed);
            let (normed, up) = (&self.normed, &block.up);
            team.split(&mut self.inner, PackedLinear::PANEL, |columns, inner| {
                columns_of(up, normed, None, columns, inner);
                let before = inner.to_vec();
                gelu(&before, inner);
            });
            forward(&block.down, &self.inner, Some(&self.next), &mut self.x, team);
        }
        cache.len += 1;
        decoder.norm.apply(&self.x, &mut self.normed);
        forward(&decoder.output, &self.normed, None, &mut self.logits, team);
        Ok(&self.logits)
    }
}

/// `y = x wᵀ + bias + residual` of one row, the columns shared by the team.
fn forward(dense: &Dense, x: &[f32], residual: Option<&[f32]>, y: &mut [f32], team: &mut Team) {
    team.split(y, PackedLinear::PANEL, |columns, y| columns_of(dense, x, residual, columns, y));
}

/// Some columns of the same, from the first of a panel on.
fn columns_of(dense: &Dense, x: &[f32], residual: Option<&[f32]>, columns: Range<usize>, y: &mut [f32]) {
    let panels = columns.start / PackedLinear::PANEL..columns.end.div_ceil(PackedLinear::PANEL);
    dense.weight.forward_panels(x, 1, panels, dense.bias.as_deref(), residual, y);
}
