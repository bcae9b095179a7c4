//! Llama 2 and 3 (2307.09288, 2407.21783): norms before, shared keys, gates of SiLU.

use burn::module::Module;

use super::rope::Rope;
use super::{Published, activation, heads, is_known_extra, name, positive, refuse, size};
use crate::checkpoint::Config;
use crate::classifier::{Checkpointed, Matrix};
use crate::decoder::{Decoder, DecoderParts};
use crate::error::ModelError;
use crate::layer::{AttentionConfig, FeedForwardConfig, NormKind};
use crate::trunk::{NormPlacement, TrunkConfig};

/// A decoder under the names of Llama's checkpoints.
#[derive(Module, Debug)]
pub struct Llama {
    decoder: Decoder,
}

impl Published for Llama {
    const MODEL_TYPE: &'static str = "llama";

    fn parts(config: &Config) -> Result<DecoderParts, ModelError> {
        let width = size(config, "hidden_size")?;
        let [heads, kv_heads, head_width] = heads(config, width)?;
        // In files of `transformers` before version 5 the base stands alone, and what scales it is apart.
        let (key, rope) = match config.optional_struct::<Rope>("rope_parameters")? {
            Some(rope) => ("rope_parameters", rope),
            None => ("rope_scaling", config.optional_struct::<Rope>("rope_scaling")?.unwrap_or_default()),
        };
        let base = config.optional_f64("rope_theta")?.unwrap_or(10_000.0);
        refuse(config, &["sliding_window"])?;
        Ok(DecoderParts {
            vocabulary: size(config, "vocab_size")?,
            longest: size(config, "max_position_embeddings")?,
            has_position_table: false,
            trunk: TrunkConfig {
                blocks: size(config, "num_hidden_layers")?,
                attention: AttentionConfig {
                    kv_heads,
                    head_width,
                    bias: config.optional_bool("attention_bias")?.unwrap_or(false),
                    rotary: Some(rope.read(config, key, Some(base))?),
                    ..AttentionConfig::new(width, heads)
                },
                local: None,
                feed_forward: FeedForwardConfig {
                    width,
                    inner: size(config, "intermediate_size")?,
                    gate: Some(activation(config, "hidden_act")?),
                    bias: config.optional_bool("mlp_bias")?.unwrap_or(false),
                },
                placement: NormPlacement::Before,
                norm: NormKind::RootMeanSquare,
                norm_eps: positive(config, "rms_norm_eps")? as f32,
            },
            is_tied: config.optional_bool("tie_word_embeddings")?.unwrap_or(false),
            embedding_scale: None,
            self_conditioning: false,
            shifted_canvas: false,
        })
    }

    fn of(decoder: Decoder) -> Self {
        Self { decoder }
    }

    fn into_decoder(self) -> Decoder {
        self.decoder
    }
}

impl Checkpointed for Llama {
    fn checkpoint_name(path: &str) -> String {
        name(path, "post_attention_layernorm.")
    }

    fn known_extra(name: &str) -> bool {
        is_known_extra(name)
    }

    fn may_be_fresh(_: &str) -> bool {
        false
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        super::matrices_mut::<Self>(&mut self.decoder)
    }
}
