//! A decoder's weights as inference reads them.

use burn::tensor::Tensor;
use lapidary_kernels::activation::{Activation, gated};
use lapidary_kernels::attention::CachedOptions;
use lapidary_kernels::choice::softmax;
use lapidary_kernels::embedding::gather;
use lapidary_kernels::gelu::gelu;
use lapidary_kernels::layer_norm::layer_norm;
use lapidary_kernels::linear::linear_backward_input;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rms_norm::rms_norm;
use lapidary_kernels::rotary::{Rotary, Turns};
use lapidary_models::decoder::Decoder;
use lapidary_models::layer::{Embedding, Linear, Norm};
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
    /// What tokens' vectors are multiplied by.
    embedding_scale: Option<f32>,
    /// How queries and keys are turned; a block says which of them is its own.
    rotaries: Vec<Rotary>,
    longest: usize,
    pub(crate) blocks: Vec<PackedBlock>,
    pub(crate) norm: PackedNorm,
    pub(crate) output: Dense,
    /// Reads what the pass before said of a place, if the model does.
    pub(crate) estimate: Option<Dense>,
    pub(crate) heads: Heads,
    pub(crate) width: usize,
    /// Whether a place of a canvas says what the next is to become, and the token before it what its first is.
    pub(crate) shifted_canvas: bool,
    precision: Precision,
}

/// The heads of every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// `H`.
    pub queries: usize,
    /// `G`, a divisor of it.
    pub keys: usize,
    /// `K`.
    pub width: usize,
    /// How many of the last heads of keys have the keys of the tokens before.
    pub shifted: usize,
}

impl Heads {
    /// Numbers of a token's queries, `H K`.
    pub fn of_queries(&self) -> usize {
        self.queries * self.width
    }

    /// Numbers of a token's keys, or of its values, `G K`.
    pub fn of_keys(&self) -> usize {
        self.keys * self.width
    }

    /// Numbers of a token's queries, keys and values together.
    pub fn of_row(&self) -> usize {
        self.of_queries() + 2 * self.of_keys()
    }
}

/// `[rows, width]`.
#[derive(Clone)]
pub(crate) struct Table {
    data: Vec<f32>,
    width: usize,
}

#[derive(Clone)]
pub(crate) struct PackedBlock {
    pub attention_norm: PackedNorm,
    /// Queries, keys and values, one under the other: `[(H + 2 G) K, D]`.
    pub inputs: Dense,
    /// Of each head of queries and of keys.
    head_norms: Option<[PackedNorm; 2]>,
    /// Its own of the decoder's ways to turn them.
    pub rotary: Option<usize>,
    pub options: CachedOptions,
    pub output: Dense,
    pub attention_out_norm: Option<PackedNorm>,
    pub feed_forward_norm: PackedNorm,
    /// `[F, D]`, the gate's matrix above it if there is one.
    pub up: Dense,
    gate: Option<Activation>,
    pub down: Dense,
    pub feed_forward_out_norm: Option<PackedNorm>,
}

#[derive(Clone)]
pub(crate) struct PackedNorm {
    gamma: Vec<f32>,
    /// Of a layer norm.
    beta: Option<Vec<f32>>,
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
        let mut rotaries: Vec<Rotary> = Vec::new();
        let mut blocks = Vec::new();
        for block in &decoder.trunk.blocks {
            let rotary = block.attention.rotary().map(|rotary| {
                rotaries.iter().position(|known| known == rotary).unwrap_or_else(|| {
                    rotaries.push(rotary.clone());
                    rotaries.len() - 1
                })
            });
            blocks.push(PackedBlock::new(block, rotary, precision)?);
        }
        let heads = decoder.trunk.blocks.first().map(|block| block.attention.config());
        let heads = heads.map_or(Heads { queries: 1, keys: 1, width: tokens.width, shifted: 0 }, |config| Heads {
            queries: config.heads,
            keys: config.kv_heads,
            width: config.head_width,
            shifted: config.shifted,
        });
        Ok(Self {
            positions: decoder.positions.as_ref().map(Table::new).transpose()?,
            embedding_scale: decoder.embedding_scale(),
            rotaries,
            longest: decoder.longest(),
            shifted_canvas: decoder.has_shifted_canvas(),
            blocks,
            norm: PackedNorm::new(&decoder.norm),
            output: match &decoder.output {
                Some(output) => Dense::new(&[output], precision)?,
                None => Dense {
                    weight: PackedLinear::new(&tokens.data, tokens.rows(), tokens.width, precision),
                    bias: None,
                },
            },
            estimate: decoder.estimate.as_ref().map(|linear| Dense::new(&[linear], precision)).transpose()?,
            precision,
            heads,
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
        KvCache::new(self.blocks.len(), capacity.min(self.longest), self.heads.keys, self.heads.width)
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
        if let Some(scale) = self.embedding_scale {
            x.iter_mut().for_each(|x| *x *= scale);
        }
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

    /// How the queries and keys of tokens are turned, in each of the ways.
    pub(crate) fn turns(&self, positions: &[u32]) -> Vec<RowTurns> {
        let heads = self.heads;
        let behind: Vec<u32> = match heads.shifted {
            0 => Vec::new(),
            _ => positions.iter().map(|position| position + 1).collect(),
        };
        let turns = |rotary: &Rotary| RowTurns {
            own: Turns::new(&rotary.frequencies, positions),
            behind: Turns::new(&rotary.frequencies, &behind),
            heads,
        };
        self.rotaries.iter().map(turns).collect()
    }
}

/// How rows of queries, keys and values are turned.
pub(crate) struct RowTurns {
    own: Turns,
    /// Of the keys that belong to the positions behind.
    behind: Turns,
    heads: Heads,
}

impl RowTurns {
    /// Turns `rows [N, (H + 2 G) K]` where they lie.
    fn apply(&self, rows: &mut [f32]) {
        let keys_end = self.heads.of_queries() + self.heads.of_keys();
        let own_end = keys_end - self.heads.shifted * self.heads.width;
        self.own.apply(rows, self.heads.of_row(), 0..own_end);
        self.behind.apply(rows, self.heads.of_row(), own_end..keys_end);
    }
}

impl PackedBlock {
    fn new(block: &Block, rotary: Option<usize>, precision: Precision) -> Result<Self, DecodeError> {
        let (attention, feed_forward) = (&block.attention, &block.feed_forward);
        let config = attention.config();
        let head_norms = attention.query_norm.as_ref().zip(attention.key_norm.as_ref());
        let ups: Vec<&Linear> = feed_forward.gate.iter().chain([&feed_forward.up]).collect();
        Ok(Self {
            attention_norm: PackedNorm::new(&block.attention_norm),
            inputs: Dense::new(&[&attention.query, &attention.key, &attention.value], precision)?,
            head_norms: head_norms.map(|(query, key)| [query, key].map(PackedNorm::new)),
            rotary,
            options: CachedOptions {
                window: config.window,
                scale: config.scale,
                soft_cap: config.soft_cap,
                canvas: None,
            },
            output: Dense::new(&[&attention.output], precision)?,
            attention_out_norm: block.attention_out_norm.as_ref().map(PackedNorm::new),
            feed_forward_norm: PackedNorm::new(&block.feed_forward_norm),
            up: Dense::new(&ups, precision)?,
            gate: feed_forward.gate.as_ref().map(|_| feed_forward.activation()),
            down: Dense::new(&[&feed_forward.down], precision)?,
            feed_forward_out_norm: block.feed_forward_out_norm.as_ref().map(PackedNorm::new),
        })
    }

    /// Normalizes and turns queries and keys where they lie, in `rows [N, (H + 2 G) K]`.
    pub(crate) fn place(&self, rows: &mut [f32], heads: Heads, turns: &[RowTurns]) {
        if let Some([of_queries, of_keys]) = &self.head_norms {
            for row in rows.chunks_exact_mut(heads.of_row()) {
                let (queries, rest) = row.split_at_mut(heads.of_queries());
                of_queries.apply_in_place(queries);
                of_keys.apply_in_place(&mut rest[..heads.of_keys()]);
            }
        }
        if let Some(turns) = self.rotary.and_then(|rotary| turns.get(rotary)) {
            turns.apply(rows);
        }
    }

    /// Numbers between `up` and `down`, `F`.
    pub(crate) fn inner(&self) -> usize {
        self.down.weight.input()
    }

    /// What `up` gave to the input of `down`, row after row.
    pub(crate) fn activate(&self, inner: &[f32], activated: &mut [f32]) {
        match self.gate {
            Some(activation) => gated(activation, inner, self.inner(), activated),
            None => gelu(inner, activated),
        }
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

impl PackedNorm {
    fn new(norm: &Norm) -> Self {
        let beta = norm.bias.as_ref().map(|bias| numbers(bias.val()));
        Self { gamma: numbers(norm.used_weight()), beta, eps: norm.eps() }
    }

    /// Rows of `x` to rows of `y`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32]) {
        match &self.beta {
            Some(beta) => layer_norm(x, None, &self.gamma, beta, self.eps, y),
            None => rms_norm(x, None, &self.gamma, self.eps, y),
        }
    }

    fn apply_in_place(&self, x: &mut [f32]) {
        let before = x.to_vec();
        self.apply(&before, x);
    }

    /// Adds the norm of each row of `x` to that of `y`.
    pub(crate) fn add(&self, x: &[f32], y: &mut [f32]) {
        let mut normed = vec![0.0; x.len()];
        self.apply(x, &mut normed);
        y.iter_mut().zip(normed).for_each(|(y, normed)| *y += normed);
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

    /// `residual` and what `x` makes, which is normalized first if there is a norm.
    pub(crate) fn added(&self, norm: Option<&PackedNorm>, x: &[f32], mut residual: Vec<f32>) -> Vec<f32> {
        let Some(norm) = norm else { return self.forward(x, Some(&residual)) };
        norm.add(&self.forward(x, None), &mut residual);
        residual
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
