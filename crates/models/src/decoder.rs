//! A plain decoder: learned positions, norm before each half, its own output matrix. Under a causal mask it writes token
//! after token, with a canvas it repairs many at once.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::mask::Mask;
use lapidary_ops as ops;

use crate::error::ModelError;
use crate::layer::{Embedding, Initializer, LayerNorm, Linear};
use crate::pass::Pass;
use crate::trunk::{NormPlacement, Trunk, TrunkConfig};

/// Sizes of a decoder.
#[derive(Clone, Debug)]
pub struct DecoderConfig {
    /// `V`.
    pub vocabulary: usize,
    /// Longest input, in tokens.
    pub positions: usize,
    /// `D`.
    pub width: usize,
    /// `H`.
    pub heads: usize,
    /// `F`.
    pub feed_forward: usize,
    /// Number of blocks.
    pub blocks: usize,
}

/// Predicts tokens from what the mask lets it see.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[V, D]`.
    pub tokens: Embedding,
    /// One vector a position.
    pub positions: Embedding,
    /// The blocks.
    pub trunk: Trunk,
    /// After the last block.
    pub norm: LayerNorm,
    /// `[V, D]`.
    pub output: Linear,
    #[module(skip)]
    blocks: usize,
}

impl Decoder {
    /// Fresh weights on `device`.
    pub fn new(config: &DecoderConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, 0.02, device);
        let trunk = TrunkConfig {
            width: config.width,
            heads: config.heads,
            feed_forward: config.feed_forward,
            blocks: config.blocks,
            norm: NormPlacement::Before,
            norm_eps: 1e-5,
        };
        Self {
            tokens: Embedding::new(config.vocabulary, config.width, init),
            positions: Embedding::new(config.positions, config.width, init),
            trunk: Trunk::new(&trunk, init),
            norm: LayerNorm::new(config.width, 1e-5, init),
            output: Linear::new(config.width, config.vocabulary, false, init),
            blocks: config.blocks,
        }
    }

    /// `rows` sequences of equal length, row after row in `ids` → logits `[B·L, V]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or longer sequences than there are positions.
    pub fn logits(&self, ids: &[u32], rows: usize, mask: &Mask, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        Ok(self.output.forward(self.hidden(ids, rows, mask, pass)?, pass)) // [B·L, V]
    }

    /// The mean loss of predicting `targets` `[B·L]`, over `normalizer` of them; the logits are never held whole.
    ///
    /// # Errors
    /// As [`Decoder::logits`], and a target outside the vocabulary that is not -100.
    pub fn loss(
        &self,
        ids: &[u32],
        targets: &[i64],
        rows: usize,
        mask: &Mask,
        normalizer: f32,
        pass: &Pass,
    ) -> Result<Tensor<1>, ModelError> {
        let x = self.hidden(ids, rows, mask, pass)?; // [B·L, D]
        Ok(ops::linear_cross_entropy(x, self.output.used_weight(), targets, normalizer, pass.precision())?)
    }

    /// The same, and a token `[B·L]` drawn for each place that has a target.
    ///
    /// # Errors
    /// As [`Decoder::loss`].
    #[expect(clippy::too_many_arguments, reason = "those of a loss, and where draws come from")]
    pub fn loss_drawing(
        &self,
        ids: &[u32],
        targets: &[i64],
        rows: usize,
        mask: &Mask,
        normalizer: f32,
        pass: &Pass,
        key: DrawKey,
    ) -> Result<(Tensor<1>, Vec<u32>), ModelError> {
        let (x, weight) = (self.hidden(ids, rows, mask, pass)?, self.output.used_weight());
        Ok(ops::linear_cross_entropy_drawing(x, weight, targets, normalizer, pass.precision(), key)?)
    }

    /// The input of the output matrix, `[B·L, D]`.
    fn hidden(&self, ids: &[u32], rows: usize, mask: &Mask, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let [vocabulary, positions] = [&self.tokens, &self.positions].map(|table| table.weight.dims()[0]);
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(ModelError::Token { id, vocabulary });
        }
        let length = ids.len().checked_div(rows).unwrap_or(0);
        if length > positions {
            return Err(ModelError::TooLong { length, positions });
        }
        let positions: Vec<u32> = (0..rows).flat_map(|_| 0..length as u32).collect();
        let x = self.tokens.forward(ids) + self.positions.forward(&positions); // [B·L, D]
        let x = self.trunk.forward(x, 0..self.blocks, rows, mask, pass);
        Ok(self.norm.forward(x))
    }
}
