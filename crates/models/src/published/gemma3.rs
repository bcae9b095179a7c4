//! Gemma 3 of text (2503.19786): five blocks with a window and one without in turn, norms around each half and of each
//! head, gates of GELU, tokens' vectors multiplied by the root of their width.

use burn::module::Module;
use serde::Deserialize;

use super::rope::Rope;
use super::{Published, activation, heads, is_known_extra, name, positive, refuse, size};
use crate::checkpoint::Config;
use crate::classifier::{Checkpointed, Matrix};
use crate::decoder::{Decoder, DecoderParts};
use crate::error::ModelError;
use crate::layer::{AttentionConfig, FeedForwardConfig, NormKind, RotaryConfig};
use crate::trunk::{LocalBlocks, Locals, NormPlacement, TrunkConfig};

/// A decoder under the names of Gemma 3's checkpoints.
#[derive(Module, Debug)]
pub struct Gemma3 {
    decoder: Decoder,
}

/// `rope_parameters`, as `transformers` writes it since version 5.
#[derive(Deserialize)]
struct Ropes {
    sliding_attention: Rope,
    full_attention: Rope,
}

impl Published for Gemma3 {
    const MODEL_TYPE: &'static str = "gemma3_text";

    fn parts(config: &Config) -> Result<DecoderParts, ModelError> {
        let width = size(config, "hidden_size")?;
        let [heads, kv_heads, head_width] = heads(config, width)?;
        refuse(config, &["attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"])?;
        let (local, global) = rotaries(config)?;
        let eps = positive(config, "rms_norm_eps")? as f32;
        let blocks = size(config, "num_hidden_layers")?;
        Ok(DecoderParts {
            vocabulary: size(config, "vocab_size")?,
            longest: size(config, "max_position_embeddings")?,
            has_position_table: false,
            trunk: TrunkConfig {
                blocks,
                attention: AttentionConfig {
                    kv_heads,
                    head_width,
                    bias: config.optional_bool("attention_bias")?.unwrap_or(false),
                    head_norm: Some((NormKind::RootMeanSquareAroundOne, eps)),
                    rotary: Some(global),
                    scale: Some(positive(config, "query_pre_attn_scalar")?.powf(-0.5) as f32),
                    ..AttentionConfig::new(width, heads)
                },
                local: Some(LocalBlocks {
                    window: size(config, "sliding_window")?,
                    rotary: Some(local),
                    which: locals(config, blocks)?,
                }),
                feed_forward: FeedForwardConfig {
                    width,
                    inner: size(config, "intermediate_size")?,
                    gate: Some(activation(config, "hidden_activation")?),
                    bias: false,
                },
                placement: NormPlacement::Around,
                norm: NormKind::RootMeanSquareAroundOne,
                norm_eps: eps,
            },
            is_tied: config.optional_bool("tie_word_embeddings")?.unwrap_or(true),
            embedding_scale: Some((width as f32).sqrt()),
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

/// How the blocks with a window turn queries and keys, and how the others do.
fn rotaries(config: &Config) -> Result<(RotaryConfig, RotaryConfig), ModelError> {
    if let Some(ropes) = config.optional_struct::<Ropes>("rope_parameters")? {
        let local = ropes.sliding_attention.read(config, "rope_parameters.sliding_attention", None)?;
        return Ok((local, ropes.full_attention.read(config, "rope_parameters.full_attention", None)?));
    }
    let scaling = config.optional_struct::<Rope>("rope_scaling")?.unwrap_or_default();
    let global = scaling.read(config, "rope_scaling", Some(positive(config, "rope_theta")?))?;
    Ok((RotaryConfig::new(positive(config, "rope_local_base_freq")?), global))
}

/// Which blocks have a window.
fn locals(config: &Config, blocks: usize) -> Result<Locals, ModelError> {
    let Some(types) = config.optional_struct::<Vec<String>>("layer_types")? else {
        return Ok(Locals::AllButEvery(config.optional_usize("sliding_window_pattern")?.unwrap_or(6)));
    };
    if types.len() != blocks {
        let reason = format!("names {} blocks of {blocks}", types.len());
        return Err(config.invalid("layer_types", reason).into());
    }
    let is_local = |name: &String| match name.as_str() {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => {
            let reason = format!("has {other:?}, should be sliding_attention or full_attention");
            Err(ModelError::from(config.invalid("layer_types", reason)))
        }
    };
    Ok(Locals::Listed(types.iter().map(is_local).collect::<Result<_, _>>()?))
}

impl Checkpointed for Gemma3 {
    fn checkpoint_name(path: &str) -> String {
        name(path, "pre_feedforward_layernorm.")
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
