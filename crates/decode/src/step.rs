//! One token after another, by a team of threads that waits awake between the products.

use std::ops::Range;

use lapidary_kernels::attention::{NewTokens, attention_cached_head};
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::team::{Ahead, Team, part};

use crate::cache::KvCache;
use crate::error::DecodeError;
use crate::packed_decoder::{Dense, PackedBlock, PackedDecoder, PackedNorm};

/// What a step writes on the way, kept from one to the next.
pub struct Stepper<'a> {
    decoder: &'a PackedDecoder,
    x: Vec<f32>,
    next: Vec<f32>,
    normed: Vec<f32>,
    inputs: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
    activated: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Stepper<'a> {
    /// For sequences of one decoder.
    pub fn new(decoder: &'a PackedDecoder) -> Self {
        let row = || vec![0.0; decoder.width];
        let widest = |of: fn(&PackedBlock) -> usize| decoder.blocks.iter().map(of).max().unwrap_or(0);
        Self {
            x: row(),
            next: row(),
            normed: row(),
            inputs: vec![0.0; decoder.heads.of_row()],
            mixed: vec![0.0; decoder.heads.of_queries()],
            inner: vec![0.0; widest(|block| block.up.weight.output())],
            activated: vec![0.0; widest(PackedBlock::inner)],
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
        let (past, heads) = (cache.len, decoder.heads);
        self.x.copy_from_slice(&decoder.embed(&[id], &[past as u32]));
        let size = team.size();
        let ahead = |dense: &Dense, index: usize| {
            dense.weight.ahead(part(dense.weight.output(), PackedLinear::PANEL, index, size))
        };
        let turns = decoder.turns(&[past as u32]);
        let afterwards = decoder.blocks.iter().skip(1).map(|block| &block.inputs).chain([&decoder.output]);
        for ((block, after), remembered) in decoder.blocks.iter().zip(afterwards).zip(&mut cache.blocks) {
            block.attention_norm.apply(&self.x, &mut self.normed);
            let (normed, caches, outputs) = (&self.normed, remembered.heads_mut(), self.inputs.len());
            team.split(
                &mut self.inputs,
                PackedLinear::PANEL,
                |index| ahead(&block.output, index),
                |columns, inputs| {
                    // About those heads that this thread reads next.
                    let [first, end] = [columns.start, columns.end].map(|column| column * caches.len() / outputs);
                    caches[first..end].iter().for_each(|head| head.prefetch(past + 1));
                    columns_of(&block.inputs, normed, None, columns, inputs);
                },
            );
            block.place(&mut self.inputs, heads, &turns);
            let (queries, rest) = self.inputs.split_at(heads.of_queries());
            let (keys, values) = rest.split_at(heads.of_keys());
            let new = NewTokens { queries, heads: heads.queries, past };
            let group = heads.of_queries() / heads.keys;
            let mut caches: Vec<_> = caches.iter_mut().zip(self.mixed.chunks_exact_mut(group)).collect();
            team.split(
                &mut caches,
                1,
                |index| ahead(&block.output, index),
                |range, caches| {
                    for (head, (cache, mixed)) in range.zip(caches) {
                        let part = head * heads.width..(head + 1) * heads.width;
                        match head < heads.keys - heads.shifted {
                            true => cache.put(past, &keys[part.clone()], &values[part]),
                            false => cache.put_shifted(past, &keys[part.clone()], &values[part]),
                        }
                        attention_cached_head(new, cache, &block.options, head, heads.keys, mixed);
                    }
                },
            );
            let next = |index| ahead(&block.up, index);
            added(&block.output, block.attention_out_norm.as_ref(), &self.mixed, &self.x, &mut self.next, team, next);
            block.feed_forward_norm.apply(&self.next, &mut self.normed);
            let (normed, up, down) = (&self.normed, &block.up, |index| ahead(&block.down, index));
            let activated = &mut self.activated[..block.inner()];
            if up.weight.output() == activated.len() {
                team.split(activated, PackedLinear::PANEL, down, |columns, activated| {
                    columns_of(up, normed, None, columns, activated);
                    let before = activated.to_vec();
                    block.activate(&before, activated);
                });
            } else {
                // A gate and what it is for lie far apart, and their product is a small part of the step.
                let inner = &mut self.inner[..up.weight.output()];
                forward(up, normed, None, inner, team, down);
                block.activate(inner, activated);
            }
            let next = |index| ahead(after, index);
            let norm = block.feed_forward_out_norm.as_ref();
            added(&block.down, norm, &self.activated[..block.inner()], &self.next, &mut self.x, team, next);
        }
        cache.note(past, &[id]);
        cache.len += 1;
        decoder.norm.apply(&self.x, &mut self.normed);
        let first = decoder.blocks.first().map_or(&decoder.output, |block| &block.inputs);
        forward(&decoder.output, &self.normed, None, &mut self.logits, team, |index| ahead(first, index));
        Ok(&self.logits)
    }
}

/// `y = norm(x wᵀ + bias) + residual` of one row; the product's columns are shared by the team.
fn added(
    dense: &Dense,
    norm: Option<&PackedNorm>,
    x: &[f32],
    residual: &[f32],
    y: &mut [f32],
    team: &mut Team,
    ahead: impl Fn(usize) -> Ahead + Sync,
) {
    let Some(norm) = norm else { return forward(dense, x, Some(residual), y, team, ahead) };
    let mut product = vec![0.0; y.len()];
    forward(dense, x, None, &mut product, team, ahead);
    y.copy_from_slice(residual);
    norm.add(&product, y);
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
