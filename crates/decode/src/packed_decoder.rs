//! A decoder's weights as inference reads them, and the reading of many tokens at once.

use burn::tensor::Tensor;
use lapidary_kernels::attention::{CachedOptions, KeyValueCache, NewTokens, attention_cached};
use lapidary_kernels::embedding::gather;
use lapidary_kernels::gelu::gelu;
use lapidary_kernels::layer_norm::layer_norm;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_models::decoder::Decoder;
use lapidary_models::layer::{Embedding, LayerNorm, Linear};
use lapidary_models::trunk::Block;

use crate::cache::KvCache;
use crate::error::DecodeError;

/// A [`Decoder`] whose matrices are packed once.
///
/// Logits are the same bits whether tokens are read together or one by one.
#[derive(Clone)]
pub struct PackedDecoder {
    pub(crate) tokens: Table,
    pub(crate) positions: Table,
    pub(crate) blocks: Vec<PackedBlock>,
    pub(crate) norm: Norm,
    pub(crate) output: Dense,
    pub(crate) heads: usize,
    pub(crate) width: usize,
}

/// Whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Of every new token.
    All,
    /// Of the last one alone, which is what writing on needs.
    Last,
}

/// `[rows, width]`.
#[derive(Clone)]
pub(crate) struct Table {
    data: Vec<f32>,
    width: usize,
}

#[derive(Clone)]
pub(crate) struct PackedBlock {
    pub attention_norm: Norm,
    /// Queries, keys and values, one under the other: `[3 D, D]`.
    pub inputs: Dense,
    pub output: Dense,
    pub feed_forward_norm: Norm,
    pub up: Dense,
    pub down: Dense,
}

#[derive(Clone)]
pub(crate) struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
}

#[derive(Clone)]
pub(crate) struct Dense {
    pub weight: PackedLinear,
    pub bias: Option<Vec<f32>>,
}

impl PackedDecoder {
    /// Packs the weights of `decoder`, which products read in `precision`.
    ///
    /// # Errors
    /// [`DecodeError::Cut`]: the decoder has been cut to few bits.
    pub fn new(decoder: &Decoder, precision: Precision) -> Result<Self, DecodeError> {
        let tokens = Table::new(&decoder.tokens)?;
        let attention = decoder.trunk.blocks.first().map(|block| &block.attention);
        Ok(Self {
            positions: Table::new(&decoder.positions)?,
            blocks: decoder
                .trunk
                .blocks
                .iter()
                .map(|block| PackedBlock::new(block, precision))
                .collect::<Result<_, _>>()?,
            norm: Norm::new(&decoder.norm),
            output: Dense::new(&[&decoder.output], precision)?,
            heads: attention.map_or(1, |attention| attention.count()),
            width: tokens.width,
            tokens,
        })
    }

    /// Tokens that there are.
    pub fn vocabulary(&self) -> usize {
        self.tokens.rows()
    }

    /// Memory of the matrices that a step reads, the tables not included.
    pub fn matrix_bytes(&self) -> usize {
        let of_block = |block: &PackedBlock| [&block.inputs, &block.output, &block.up, &block.down].map(Dense::bytes);
        self.blocks.iter().flat_map(of_block).sum::<usize>() + self.output.bytes()
    }

    /// An empty cache for one sequence of at most `capacity` tokens, or as many as the model has positions.
    pub fn cache(&self, capacity: usize) -> KvCache {
        KvCache::new(self.blocks.len(), capacity.min(self.positions.rows()), self.heads, self.width / self.heads)
    }

    /// Reads `ids` after those in the cache, on all threads, and adds them to it: logits `[N, V]`, or `[1, V]` of the last.
    ///
    /// # Errors
    /// A token outside the vocabulary, or more of them than there is room for; the cache is as it was then.
    pub fn read(&self, ids: &[u32], cache: &mut KvCache, wanted: Positions) -> Result<Vec<f32>, DecodeError> {
        let mut x = self.hidden(ids, cache, CachedOptions::default())?;
        cache.len += ids.len();
        if wanted == Positions::Last {
            x.drain(..x.len().saturating_sub(self.width));
        }
        Ok(self.logits(&x))
    }

    /// Reads a canvas behind the tokens in the cache, each place of which sees these and the whole canvas: logits `[N, V]`
    /// of what each place is to become. The cache holds the same tokens afterwards.
    ///
    /// # Errors
    /// As [`PackedDecoder::read`].
    pub fn repair(&self, canvas: &[u32], cache: &mut KvCache) -> Result<Vec<f32>, DecodeError> {
        let options = CachedOptions { canvas: Some(0), ..CachedOptions::default() };
        Ok(self.logits(&self.hidden(canvas, cache, options)?))
    }

    /// What the last block makes of new tokens, `[N, D]`; their keys and values lie behind those in the cache.
    fn hidden(&self, ids: &[u32], cache: &mut KvCache, options: CachedOptions) -> Result<Vec<f32>, DecodeError> {
        self.check(ids, cache)?;
        let (n, width, past) = (ids.len(), self.width, cache.len);
        let mut x = self.embed(ids, past);
        let mut normed = vec![0.0; n * width];
        let mut mixed = vec![0.0; n * width];
        for (block, remembered) in self.blocks.iter().zip(&mut cache.blocks) {
            block.attention_norm.apply(&x, &mut normed);
            let rows = block.inputs.forward(&normed, None); // [N, 3 D]
            remember(remembered, &rows, past, width);
            let queries: Vec<f32> = rows.chunks_exact(3 * width).flat_map(|row| &row[..width]).copied().collect();
            let new = NewTokens { queries: &queries, heads: self.heads, past };
            attention_cached(new, remembered, &options, &mut mixed);
            x = block.output.forward(&mixed, Some(&x));
            block.feed_forward_norm.apply(&x, &mut normed);
            let inner = block.up.forward(&normed, None); // [N, F]
            let mut activated = vec![0.0; inner.len()];
            gelu(&inner, &mut activated);
            x = block.down.forward(&activated, Some(&x));
        }
        Ok(x)
    }

    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let mut normed = vec![0.0; x.len()];
        self.norm.apply(x, &mut normed);
        self.output.forward(&normed, None)
    }

    pub(crate) fn check(&self, ids: &[u32], cache: &KvCache) -> Result<(), DecodeError> {
        let vocabulary = self.vocabulary();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(DecodeError::Token { id, vocabulary });
        }
        let tokens = cache.len + ids.len();
        if tokens > cache.capacity {
            return Err(DecodeError::TooLong { tokens, capacity: cache.capacity });
        }
        Ok(())
    }

    /// Vectors of tokens and of the positions from `past` on, added: `[N, D]`.
    pub(crate) fn embed(&self, ids: &[u32], past: usize) -> Vec<f32> {
        let mut x = self.tokens.rows_of(ids);
        let positions: Vec<u32> = (past..past + ids.len()).map(|position| position as u32).collect();
        x.iter_mut().zip(self.positions.rows_of(&positions)).for_each(|(x, position)| *x += position);
        x
    }
}

impl PackedBlock {
    fn new(block: &Block, precision: Precision) -> Result<Self, DecodeError> {
        let (attention, feed_forward) = (&block.attention, &block.feed_forward);
        Ok(Self {
            attention_norm: Norm::new(&block.attention_norm),
            inputs: Dense::new(&[&attention.query, &attention.key, &attention.value], precision)?,
            output: Dense::new(&[&attention.output], precision)?,
            feed_forward_norm: Norm::new(&block.feed_forward_norm),
            up: Dense::new(&[&feed_forward.up], precision)?,
            down: Dense::new(&[&feed_forward.down], precision)?,
        })
    }
}

impl Table {
    fn new(embedding: &Embedding) -> Result<Self, DecodeError> {
        if embedding.bits.is_some() {
            return Err(DecodeError::Cut { what: "a table" });
        }
        let table = embedding.weight.val();
        Ok(Self { width: table.dims()[1], data: numbers(table) })
    }

    fn rows(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    fn rows_of(&self, ids: &[u32]) -> Vec<f32> {
        let mut rows = vec![0.0; ids.len() * self.width];
        gather(&self.data, self.width, ids, &mut rows);
        rows
    }
}

impl Norm {
    fn new(norm: &LayerNorm) -> Self {
        Self { gamma: numbers(norm.weight.val()), beta: numbers(norm.bias.val()), eps: norm.eps() }
    }

    /// Rows of `x` to rows of `y`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32]) {
        layer_norm(x, None, &self.gamma, &self.beta, self.eps, y);
    }
}

impl Dense {
    /// Matrices of the same input, one under the other. Either all have a bias or none.
    fn new(linears: &[&Linear], precision: Precision) -> Result<Self, DecodeError> {
        if linears.iter().any(|linear| linear.range.is_some() || linear.activation_bits.is_some()) {
            return Err(DecodeError::Cut { what: "a matrix" });
        }
        let (mut weights, mut bias, mut outputs, mut input) = (Vec::new(), Vec::new(), 0, 0);
        for linear in linears {
            let weight = linear.weight.val();
            input = weight.dims()[1];
            outputs += weight.dims()[0];
            weights.extend(numbers(weight));
            bias.extend(linear.bias.iter().flat_map(|bias| numbers(bias.val())));
        }
        debug_assert!(bias.is_empty() || bias.len() == outputs, "a bias for each matrix or for none");
        let weight = PackedLinear::new(&weights, outputs, input, precision);
        Ok(Self { weight, bias: (!bias.is_empty()).then_some(bias) })
    }

    fn bytes(&self) -> usize {
        self.weight.bytes()
    }

    /// Rows of `x` to new rows, `residual` added.
    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let n = x.len() / self.weight.input().max(1);
        let mut y = vec![0.0; n * self.weight.output()];
        self.weight.forward(x, n, self.bias.as_deref(), residual, &mut y);
        y
    }
}

/// Takes the keys and values of new tokens out of rows of queries, keys and values, each part `width` wide.
pub(crate) fn remember(cache: &mut KeyValueCache, rows: &[f32], past: usize, width: usize) {
    for (position, row) in (past..).zip(rows.chunks_exact(3 * width)) {
        cache.put(position, &row[width..2 * width], &row[2 * width..]);
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}
