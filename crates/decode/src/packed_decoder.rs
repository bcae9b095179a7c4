//! A decoder's weights as inference reads them.

use burn::tensor::Tensor;
use lapidary_kernels::choice::softmax;
use lapidary_kernels::embedding::gather;
use lapidary_kernels::layer_norm::layer_norm;
use lapidary_kernels::linear::linear_backward_input;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rotary::{Rotary, Turns};
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
    /// Unless positions are told by turning.
    positions: Option<Table>,
    rotary: Option<Rotary>,
    longest: usize,
    pub(crate) blocks: Vec<PackedBlock>,
    pub(crate) norm: Norm,
    pub(crate) output: Dense,
    /// Reads what the pass before said of a place, if the model does.
    pub(crate) estimate: Option<Dense>,
    pub(crate) heads: usize,
    /// How many of the last heads have the keys of the tokens before.
    pub(crate) shifted: usize,
    pub(crate) width: usize,
    /// Whether a place of a canvas says what the next is to become, and the token before it what its first is.
    pub(crate) shifted_canvas: bool,
    precision: Precision,
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
            positions: decoder.positions.as_ref().map(Table::new).transpose()?,
            rotary: attention.and_then(|attention| attention.rotary().cloned()),
            longest: decoder.longest(),
            shifted_canvas: decoder.has_shifted_canvas(),
            blocks: decoder
                .trunk
                .blocks
                .iter()
                .map(|block| PackedBlock::new(block, precision))
                .collect::<Result<_, _>>()?,
            norm: Norm::new(&decoder.norm),
            output: Dense::new(&[&decoder.output], precision)?,
            estimate: decoder.estimate.as_ref().map(|linear| Dense::new(&[linear], precision)).transpose()?,
            precision,
            heads: attention.map_or(1, |attention| attention.count()),
            shifted: attention.map_or(0, |attention| attention.shifted()),
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
        KvCache::new(self.blocks.len(), capacity.min(self.longest), self.heads, self.width / self.heads)
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

    /// Vectors of tokens, those of their positions added if there are any: `[N, D]`.
    pub(crate) fn embed(&self, ids: &[u32], positions: &[u32]) -> Vec<f32> {
        let mut x = self.tokens.rows_of(ids);
        if let Some(table) = &self.positions {
            x.iter_mut().zip(table.rows_of(positions)).for_each(|(x, position)| *x += position);
        }
        x
    }

    /// What logits `[N, V]` say of their places: the mean of the tokens' vectors by their probabilities, `[N, D]`. `None`
    /// for a model that does not read it.
    pub fn expected(&self, logits: &[f32]) -> Option<Vec<f32>> {
        self.estimate.as_ref()?;
        let mut probabilities = logits.to_vec();
        softmax(&mut probabilities, self.vocabulary());
        let places = logits.len() / self.vocabulary();
        let mut expected = vec![0.0; places * self.width];
        let (table, precision) = (&self.tokens.data, self.precision);
        // The product of rows and the table itself: what a linear layer's gradient is.
        linear_backward_input(&probabilities, table, places, self.width, self.vocabulary(), precision, &mut expected);
        Some(expected)
    }

    /// How the queries and keys of tokens are turned, if they are.
    pub(crate) fn turns(&self, positions: &[u32]) -> Option<RowTurns> {
        let frequencies = &self.rotary.as_ref()?.frequencies;
        let behind: Vec<u32> =
            positions.iter().take(if self.shifted == 0 { 0 } else { usize::MAX }).map(|it| it + 1).collect();
        Some(RowTurns {
            own: Turns::new(frequencies, positions),
            behind: Turns::new(frequencies, &behind),
            width: self.width,
            shifted: self.shifted * (self.width / self.heads),
        })
    }
}

/// How rows of queries, keys and values are turned.
pub(crate) struct RowTurns {
    own: Turns,
    /// Of the keys that belong to the positions behind.
    behind: Turns,
    width: usize,
    /// Columns of those keys.
    shifted: usize,
}

impl RowTurns {
    /// Turns `rows [N, 3 D]` where they lie.
    pub(crate) fn apply(&self, rows: &mut [f32]) {
        let (stride, keys_end) = (3 * self.width, 2 * self.width);
        let own_end = keys_end - self.shifted;
        self.own.apply(rows, stride, 0..own_end);
        self.behind.apply(rows, stride, own_end..keys_end);
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
    pub(crate) fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let n = x.len() / self.weight.input().max(1);
        let mut y = vec![0.0; n * self.weight.output()];
        self.weight.forward(x, n, self.bias.as_deref(), residual, &mut y);
        y
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}
