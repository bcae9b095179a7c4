//! One token after another, by a team of threads that waits awake between the products.

use std::ops::Range;

use lapidary_kernels::attention::{CachedOptions, NewTokens, attention_cached_head};
use lapidary_kernels::gelu::gelu;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::team::{Ahead, Team, part};

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::{Dense, PackedDecoder};

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
        self.x.copy_from_slice(&decoder.embed(&[id], &[past as u32]));
        let size = team.size();
        let ahead = |dense: &Dense, index: usize| {
            dense.weight.ahead(part(dense.weight.output(), PackedLinear::PANEL, index, size))
        };
        let turns = decoder.turns(&[past as u32]);
        let afterwards = decoder.blocks.iter().skip(1).map(|block| &block.inputs).chain([&decoder.output]);
        for ((block, after), remembered) in decoder.blocks.iter().zip(afterwards).zip(&mut cache.blocks) {
            block.attention_norm.apply(&self.x, &mut self.normed);
            let (normed, heads, outputs) = (&self.normed, remembered.heads_mut(), self.inputs.len());
            team.split(
                &mut self.inputs,
                PackedLinear::PANEL,
                |index| ahead(&block.output, index),
                |columns, inputs| {
                    // About those heads that this thread reads next.
                    let [first, end] = [columns.start, columns.end].map(|column| column * heads.len() / outputs);
                    heads[first..end].iter().for_each(|head| head.prefetch(past + 1));
                    columns_of(&block.inputs, normed, None, columns, inputs);
                },
            );
            if let Some(turns) = &turns {
                turns.apply(&mut self.inputs);
            }
            let (queries, rest) = self.inputs.split_at(decoder.width);
            let (keys, values) = rest.split_at(decoder.width);
            let new = NewTokens { queries, heads: decoder.heads, past };
            let mut heads: Vec<_> = heads.iter_mut().zip(self.mixed.chunks_exact_mut(head_width)).collect();
            team.split(
                &mut heads,
                1,
                |index| ahead(&block.output, index),
                |range, heads| {
                    for (head, (cache, mixed)) in range.zip(heads) {
                        let part = head * head_width..(head + 1) * head_width;
                        match head < decoder.heads - decoder.shifted {
                            true => cache.put(past, &keys[part.clone()], &values[part]),
                            false => cache.put_shifted(past, &keys[part.clone()], &values[part]),
                        }
                        let options = CachedOptions::default();
                        attention_cached_head(new, cache, &options, head, decoder.heads, mixed);
                    }
                },
            );
            forward(&block.output, &self.mixed, Some(&self.x), &mut self.next, team, |index| ahead(&block.up, index));
            block.feed_forward_norm.apply(&self.next, &mut self.normed);
            let (normed, up) = (&self.normed, &block.up);
            team.split(
                &mut self.inner,
                PackedLinear::PANEL,
                |index| ahead(&block.down, index),
                |columns, inner| {
                    columns_of(up, normed, None, columns, inner);
                    let before = inner.to_vec();
                    gelu(&before, inner);
                },
            );
            forward(&block.down, &self.inner, Some(&self.next), &mut self.x, team, |index| ahead(after, index));
        }
        cache.note(past, &[id]);
        cache.len += 1;
        decoder.norm.apply(&self.x, &mut self.normed);
        let first = decoder.blocks.first().map_or(&decoder.output, |block| &block.inputs);
        forward(&decoder.output, &self.normed, None, &mut self.logits, team, |index| ahead(first, index));
        Ok(&self.logits)
    }
}

/// `y = x wᵀ + bias + residual` of one row, the columns shared by the team.
fn forward(
    dense: &Dense,
    x: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
    team: &mut Team,
    ahead: impl Fn(usize) -> Ahead + Sync,
) {
    team.split(y, PackedLinear::PANEL, ahead, |columns, y| columns_of(dense, x, residual, columns, y));
}

/// Some columns of the same, from the first of a panel on.
fn columns_of(dense: &Dense, x: &[f32], residual: Option<&[f32]>, columns: Range<usize>, y: &mut [f32]) {
    let panels = columns.start / PackedLinear::PANEL..columns.end.div_ceil(PackedLinear::PANEL);
    dense.weight.forward_panels(x, 1, panels, dense.bias.as_deref(), residual, y);
}
