//! A decoder: tokens, the trunk, an output matrix. Under a causal mask it writes token after token, with a canvas it
//! repairs many at once. The product's own has learned or rotary positions and a norm before each half; how other people's
//! checkpoints make one is in [`published`](crate::published).

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::mask::Mask;
use lapidary_ops as ops;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Config};
use crate::classifier::{Checkpointed, Matrix};
use crate::error::ModelError;
use crate::layer::{AttentionConfig, Embedding, Initializer, Linear, Norm, NormKind, RotaryConfig};
use crate::load::load;
use crate::pass::Pass;
use crate::trunk::{Trunk, TrunkConfig};

/// How a token knows where it is.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum PositionEncoding {
    /// A vector for each position, added to the token's.
    #[default]
    Learned,
    /// Queries and keys are turned, so that what they say of each other depends on how far they are apart.
    Rotary {
        /// Of the angles: see [`Rotary::new`](lapidary_kernels::rotary::Rotary::new).
        base: f64,
    },
}

impl PositionEncoding {
    /// With the base of its authors (2104.09864).
    pub const ROTARY: Self = Self::Rotary { base: 10_000.0 };

    fn base(self) -> Option<f64> {
        match self {
            Self::Learned => None,
            Self::Rotary { base } => Some(base),
        }
    }
}

/// Sizes of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// `V`.
    pub vocabulary: usize,
    /// Longest input, in tokens.
    pub positions: usize,
    /// How tokens know theirs.
    pub position_encoding: PositionEncoding,
    /// `D`.
    pub width: usize,
    /// `H`.
    pub heads: usize,
    /// How many of them have the keys of the tokens before: see [`AttentionConfig::shifted`].
    pub shifted_heads: usize,
    /// `F`.
    pub feed_forward: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Whether a pass over a canvas reads what the pass before said of its places: see [`Decoder::expected`].
    pub self_conditioning: bool,
    /// Whether a place of a canvas says what the next one is to become, as under a causal mask, and the prompt's last token
    /// what the first is: then what the model has learned of writing token after token serves its canvases too (Gong et
    /// al., "Scaling diffusion language models via adaptation from autoregressive models", 2410.17891, section 3.2).
    pub shifted_canvas: bool,
}

impl DecoderConfig {
    /// What `config.json` calls this architecture.
    pub const MODEL_TYPE: &'static str = "lapidary_decoder";

    /// From a `config.json`.
    ///
    /// # Errors
    /// Another architecture, a size that is missing or 0, heads that do not divide the width.
    pub fn read(config: &Config) -> Result<Self, ModelError> {
        let found = config.str("model_type")?;
        if found != Self::MODEL_TYPE {
            let reason = format!("is {found:?}, only {:?} writes text", Self::MODEL_TYPE);
            return Err(config.invalid("model_type", reason).into());
        }
        let size = |key: &str| match config.usize(key)? {
            0 => Err(ModelError::from(config.invalid(key, "is 0"))),
            size => Ok(size),
        };
        let position_encoding = match config.optional_str("position_embedding_type")? {
            None | Some("absolute") => PositionEncoding::Learned,
            Some("rotary") => PositionEncoding::Rotary { base: config.f64("rope_theta")? },
            Some(other) => {
                let reason = format!("is {other:?}, should be \"absolute\" or \"rotary\"");
                return Err(config.invalid("position_embedding_type", reason).into());
            }
        };
        let read = Self {
            vocabulary: size("vocab_size")?,
            positions: size("max_position_embeddings")?,
            position_encoding,
            width: size("hidden_size")?,
            heads: size("num_attention_heads")?,
            shifted_heads: config.optional_usize("shifted_heads")?.unwrap_or(0),
            feed_forward: size("intermediate_size")?,
            blocks: size("num_hidden_layers")?,
            self_conditioning: config.optional_bool("self_conditioning")?.unwrap_or(false),
            shifted_canvas: config.optional_bool("shifted_canvas")?.unwrap_or(false),
        };
        if !read.width.is_multiple_of(read.heads) {
            let reason = format!("{} heads do not divide a width of {}", read.heads, read.width);
            return Err(config.invalid("num_attention_heads", reason).into());
        }
        if read.shifted_heads > read.heads {
            let reason = format!("is {}, of {} heads", read.shifted_heads, read.heads);
            return Err(config.invalid("shifted_heads", reason).into());
        }
        if let Some(base) = position_encoding.base() {
            if !(base.is_finite() && base > 0.0) {
                return Err(config.invalid("rope_theta", format!("is {base}, should be positive")).into());
            }
            if !(read.width / read.heads).is_multiple_of(2) {
                let reason =
                    format!("leaves heads of {}, and only an even width can be turned", read.width / read.heads);
                return Err(config.invalid("num_attention_heads", reason).into());
            }
        }
        Ok(read)
    }

    /// What such a decoder is made of.
    pub fn parts(&self) -> DecoderParts {
        let rotary = self.position_encoding.base().map(RotaryConfig::new);
        let plain = TrunkConfig::new(self.width, self.heads, self.feed_forward, self.blocks);
        let attention = AttentionConfig { shifted: self.shifted_heads, rotary, ..plain.attention.clone() };
        DecoderParts {
            vocabulary: self.vocabulary,
            longest: self.positions,
            has_position_table: self.position_encoding == PositionEncoding::Learned,
            trunk: TrunkConfig { attention, ..plain },
            is_tied: false,
            embedding_scale: None,
            self_conditioning: self.self_conditioning,
            shifted_canvas: self.shifted_canvas,
        }
    }

    /// Parameters of a decoder of these sizes.
    pub fn parameters(&self) -> u128 {
        self.parts().parameters()
    }

    /// Its `config.json`.
    pub fn to_json(&self) -> Value {
        let mut config = json!({
            "architectures": ["LapidaryDecoder"],
            "model_type": Self::MODEL_TYPE,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "shifted_heads": self.shifted_heads,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.blocks,
            "position_embedding_type": "absolute",
            "self_conditioning": self.self_conditioning,
            "shifted_canvas": self.shifted_canvas,
        });
        if let Some(base) = self.position_encoding.base() {
            config["position_embedding_type"] = json!("rotary");
            config["rope_theta"] = json!(base);
        }
        config
    }
}

/// What a decoder is made of, whoever made its checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderParts {
    /// `V`.
    pub vocabulary: usize,
    /// Longest input, in tokens.
    pub longest: usize,
    /// Whether each position has a vector that is added to the token's.
    pub has_position_table: bool,
    /// Blocks and the norm behind them.
    pub trunk: TrunkConfig,
    /// Whether the output matrix is the table of tokens.
    pub is_tied: bool,
    /// What tokens' vectors are multiplied by on their way in.
    pub embedding_scale: Option<f32>,
    /// See [`DecoderConfig::self_conditioning`].
    pub self_conditioning: bool,
    /// See [`DecoderConfig::shifted_canvas`].
    pub shifted_canvas: bool,
}

impl DecoderParts {
    /// How many numbers it has.
    pub fn parameters(&self) -> u128 {
        let [vocabulary, longest, width] =
            [self.vocabulary, self.longest, self.trunk.attention.width].map(|size| size as u128);
        let rows = vocabulary.saturating_mul(if self.is_tied { 1 } else { 2 });
        let rows = rows.saturating_add(if self.has_position_table { longest } else { 0 });
        let estimate = if self.self_conditioning { width.saturating_mul(width) } else { 0 };
        let norm = width.saturating_mul(if self.trunk.norm == NormKind::Layer { 2 } else { 1 });
        let ends = [estimate, norm, self.trunk.parameters()].into_iter();
        ends.fold(rows.saturating_mul(width), u128::saturating_add)
    }

    /// Whether a checkpoint can hold that many, before memory is taken for them.
    pub(crate) fn check(&self, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let bytes: u128 = checkpoint.tensors().map(|tensor| u128::from(tensor.bytes)).sum();
        // Two bits a weight are the fewest.
        if self.parameters() <= bytes.saturating_mul(4) {
            return Ok(());
        }
        let reason =
            format!("sizes make {} parameters, the checkpoint's tensors have {bytes} bytes", self.parameters());
        Err(checkpoint.config().invalid("hidden_size", reason).into())
    }
}

/// Predicts tokens from what the mask lets it see.
#[derive(Module, Debug)]
pub struct Decoder {
    /// `[V, D]`.
    pub tokens: Embedding,
    /// One vector a position, unless positions are told by turning.
    pub positions: Option<Embedding>,
    /// The blocks.
    pub trunk: Trunk,
    /// After the last block.
    pub norm: Norm,
    /// `[V, D]`, unless it is the table of tokens.
    pub output: Option<Linear>,
    /// How what the pass before said of a place is read, `[D, D]`, if it is.
    pub estimate: Option<Linear>,
    #[module(skip)]
    blocks: usize,
    #[module(skip)]
    longest: usize,
    #[module(skip)]
    shifted_canvas: bool,
    #[module(skip)]
    embedding_scale: Option<f32>,
}

impl Decoder {
    /// Fresh weights on `device`.
    pub fn new(config: &DecoderConfig, seed: u64, device: &Device) -> Self {
        Self::of(&config.parts(), seed, device)
    }

    /// The same of any parts.
    pub fn of(parts: &DecoderParts, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, 0.02, device);
        let (trunk, width, vocabulary) = (&parts.trunk, parts.trunk.attention.width, parts.vocabulary);
        Self {
            tokens: Embedding::new(vocabulary, width, init),
            positions: parts.has_position_table.then(|| Embedding::new(parts.longest, width, init)),
            trunk: Trunk::new(trunk, init),
            norm: Norm::new(trunk.norm, width, trunk.norm_eps, init),
            output: (!parts.is_tied).then(|| Linear::new(width, vocabulary, false, init)),
            estimate: parts.self_conditioning.then(|| Linear::new(width, width, false, init)),
            blocks: trunk.blocks,
            longest: parts.longest,
            shifted_canvas: parts.shifted_canvas,
            embedding_scale: parts.embedding_scale,
        }
    }

    /// What tokens' vectors are multiplied by on their way in.
    pub fn embedding_scale(&self) -> Option<f32> {
        self.embedding_scale
    }

    /// What the last norm gives to logits, `[N, D]` → `[N, V]`.
    pub fn project(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        match &self.output {
            Some(output) => output.forward(x, pass),
            None => ops::linear(x, self.output_weight(), None, None, pass.precision()),
        }
    }

    /// `[V, D]`, as it enters the product.
    fn output_weight(&self) -> Tensor<2> {
        self.output.as_ref().map_or_else(|| self.tokens.weight.val(), Linear::used_weight)
    }

    /// See [`DecoderConfig::shifted_canvas`].
    pub fn has_shifted_canvas(&self) -> bool {
        self.shifted_canvas
    }

    /// `V`.
    pub fn vocabulary(&self) -> usize {
        self.tokens.weight.dims()[0]
    }

    /// Longest input, in tokens.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// `rows` sequences of equal length, row after row in `ids` → logits `[B·L, V]`.
    ///
    /// # Errors
    /// As [`Decoder::hidden`].
    pub fn logits(&self, ids: &[u32], rows: usize, mask: &Mask, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        Ok(self.project(self.hidden(ids, rows, mask, None, pass)?, pass)) // [B·L, V]
    }

    /// The mean loss of predicting `targets` `[B·L]`, over `normalizer` of them.
    ///
    /// # Errors
    /// As [`Decoder::hidden`] and [`Decoder::loss_at`].
    pub fn loss(
        &self,
        ids: &[u32],
        targets: &[i64],
        rows: usize,
        mask: &Mask,
        normalizer: f32,
        pass: &Pass,
    ) -> Result<Tensor<1>, ModelError> {
        self.loss_at(self.hidden(ids, rows, mask, None, pass)?, targets, normalizer, pass)
    }

    /// The input of the output matrix, `[B·L, D]`. `estimate` `[B·L, D]` is what [`Decoder::expected`] gave for the pass
    /// before, rows of zeros where there was none; a model without [`DecoderConfig::self_conditioning`] does not read it.
    ///
    /// # Errors
    /// A token outside the vocabulary, or longer sequences than there are positions.
    pub fn hidden(
        &self,
        ids: &[u32],
        rows: usize,
        mask: &Mask,
        estimate: Option<Tensor<2>>,
        pass: &Pass,
    ) -> Result<Tensor<2>, ModelError> {
        let vocabulary = self.vocabulary();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(ModelError::Token { id, vocabulary });
        }
        let length = ids.len().checked_div(rows).unwrap_or(0);
        if length > self.longest {
            return Err(ModelError::TooLong { length, positions: self.longest });
        }
        let x = self.tokens.forward(ids, pass); // [B·L, D]
        let mut x = self.embedding_scale.map_or(x.clone(), |scale| x * scale);
        if let Some(table) = &self.positions {
            let positions: Vec<u32> = (0..rows).flat_map(|_| 0..length as u32).collect();
            x = x + table.forward(&positions, pass);
        }
        if let (Some(linear), Some(estimate)) = (&self.estimate, estimate) {
            x = linear.forward_residual(estimate, x, pass);
        }
        let x = self.trunk.forward(x, 0..self.blocks, rows, mask, pass);
        Ok(self.norm.forward(x))
    }

    /// The loss of [`Decoder::loss`] given `x` `[B·L, D]` of [`Decoder::hidden`]; the logits are never held whole.
    ///
    /// # Errors
    /// A target outside the vocabulary that is not -100.
    pub fn loss_at(
        &self,
        x: Tensor<2>,
        targets: &[i64],
        normalizer: f32,
        pass: &Pass,
    ) -> Result<Tensor<1>, ModelError> {
        Ok(ops::linear_cross_entropy(x, self.output_weight(), targets, normalizer, pass.precision())?)
    }

    /// The same, and a token `[B·L]` drawn for each place that has a target.
    ///
    /// # Errors
    /// As [`Decoder::loss_at`].
    pub fn loss_drawing_at(
        &self,
        x: Tensor<2>,
        targets: &[i64],
        normalizer: f32,
        pass: &Pass,
        key: DrawKey,
    ) -> Result<(Tensor<1>, Vec<u32>), ModelError> {
        let weight = self.output_weight();
        Ok(ops::linear_cross_entropy_drawing(x, weight, targets, normalizer, pass.precision(), key)?)
    }

    /// What `x` `[B·L, D]` of [`Decoder::hidden`] says of each place: the mean of the tokens' vectors by their
    /// probabilities, `[B·L, D]`, without gradient. The next pass reads it beside the tokens that were drawn, which say
    /// less (Chen et al., "Analog bits: generating discrete data using diffusion models with self-conditioning",
    /// 2208.04202, section 3.2; the mean of vectors as in Dieleman et al., 2211.15089).
    pub fn expected(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        /// Places whose logits are held at a time.
        const PLACES: usize = 512;
        let table = self.tokens.weight.val().detach(); // [V, D]
        let parts = x.detach().split(PLACES, 0).into_iter().map(|x| {
            let probabilities = softmax(self.project(x, pass).detach(), 1); // [P, V]
            probabilities.matmul(table.clone()) // [P, D]
        });
        Tensor::cat(parts.collect(), 0)
    }
}

impl Decoder {
    /// Reads a decoder from a checkpoint folder.
    ///
    /// # Errors
    /// Another architecture, sizes that are not those of the tensors, a tensor that is missing or damaged.
    pub fn open(checkpoint: &Checkpoint, device: &Device) -> Result<(Self, DecoderConfig), ModelError> {
        let config = DecoderConfig::read(checkpoint.config())?;
        config.parts().check(checkpoint)?;
        Ok((load(Self::new(&config, 0, device), checkpoint)?.0, config))
    }
}

impl Checkpointed for Decoder {
    fn checkpoint_name(path: &str) -> String {
        match path.split_once('.') {
            Some(("tokens" | "positions", _)) => format!("embeddings.{path}"),
            Some(("norm" | "output", _)) => format!("head.{path}"),
            _ => path.to_owned(),
        }
    }

    fn known_extra(_: &str) -> bool {
        false
    }

    fn may_be_fresh(_: &str) -> bool {
        false
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        let blocks = self.trunk.blocks.iter_mut().enumerate();
        let of_blocks = blocks.flat_map(|(block, layers)| {
            layers.linears_mut().map(move |(path, linear)| Matrix {
                name: format!("trunk.blocks.{block}.{path}.weight"),
                block: Some(block),
                linear,
            })
        });
        let output = self.output.as_mut();
        let output = output.map(|linear| Matrix { name: "head.output.weight".into(), block: None, linear });
        of_blocks.chain(output).collect()
    }
}
