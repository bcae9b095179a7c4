//! Decoders as other people publish them: folders as Hugging Face's `transformers` writes them.
//!
//! A file an architecture: what its `config.json` says as [`DecoderParts`], and the names of its tensors.

mod gemma3;
mod llama;
mod rope;

use burn::module::Module;
use burn::tensor::Device;
use lapidary_kernels::activation::Activation;

pub use gemma3::Gemma3;
pub use llama::Llama;

use crate::checkpoint::{Checkpoint, Config};
use crate::classifier::{Checkpointed, Matrix};
use crate::decoder::{Decoder, DecoderConfig, DecoderParts};
use crate::error::ModelError;
use crate::load::load;

/// A decoder under the names of some checkpoints.
pub trait Published: Checkpointed + Module {
    /// What `config.json` calls it.
    const MODEL_TYPE: &'static str;

    /// What a decoder of these settings is made of.
    ///
    /// # Errors
    /// A setting that is missing, makes no sense, or asks for what is not implemented.
    fn parts(config: &Config) -> Result<DecoderParts, ModelError>;

    /// The decoder by these names.
    fn of(decoder: Decoder) -> Self;

    /// The same without them.
    fn into_decoder(self) -> Decoder;
}

/// Reads a decoder from a checkpoint folder: one of the product's own, or any of this module.
///
/// # Errors
/// An architecture that is none of them, settings that make no sense or are not those of the tensors, a tensor that is
/// missing or damaged.
pub fn open(checkpoint: &Checkpoint, device: &Device) -> Result<Decoder, ModelError> {
    let config = checkpoint.config();
    match config.str("model_type")? {
        DecoderConfig::MODEL_TYPE => Ok(Decoder::open(checkpoint, device)?.0),
        Gemma3::MODEL_TYPE => open_as::<Gemma3>(checkpoint, device),
        Llama::MODEL_TYPE => open_as::<Llama>(checkpoint, device),
        other => {
            let known = [DecoderConfig::MODEL_TYPE, Gemma3::MODEL_TYPE, Llama::MODEL_TYPE].join(", ");
            let reason = format!("is {other:?}: there is no such decoder here, only {known}");
            Err(config.invalid("model_type", reason).into())
        }
    }
}

fn open_as<P: Published>(checkpoint: &Checkpoint, device: &Device) -> Result<Decoder, ModelError> {
    let parts = P::parts(checkpoint.config())?;
    parts.check(checkpoint)?;
    Ok(load(P::of(Decoder::of(&parts, 0, device)), checkpoint)?.0.into_decoder())
}

/// A size that is there and not 0.
fn size(config: &Config, key: &str) -> Result<usize, ModelError> {
    match config.usize(key)? {
        0 => Err(config.invalid(key, "is 0").into()),
        size => Ok(size),
    }
}

/// A number that is larger than 0.
fn positive(config: &Config, key: &str) -> Result<f64, ModelError> {
    let number = config.f64(key)?;
    if number.is_finite() && number > 0.0 {
        return Ok(number);
    }
    Err(config.invalid(key, format!("is {number}, should be positive")).into())
}

/// Heads of queries, heads of keys and their width.
fn heads(config: &Config, width: usize) -> Result<[usize; 3], ModelError> {
    let heads = size(config, "num_attention_heads")?;
    let kv_heads = match config.optional_usize("num_key_value_heads")? {
        None => heads,
        Some(kv_heads) if kv_heads > 0 && heads.is_multiple_of(kv_heads) => kv_heads,
        Some(kv_heads) => {
            let reason = format!("is {kv_heads}, which makes no whole groups of {heads} heads");
            return Err(config.invalid("num_key_value_heads", reason).into());
        }
    };
    let head_width = match config.optional_usize("head_dim")? {
        Some(head_width) => head_width,
        None if width.is_multiple_of(heads) => width / heads,
        None => {
            let reason = format!("{heads} heads do not divide a width of {width}");
            return Err(config.invalid("num_attention_heads", reason).into());
        }
    };
    if head_width == 0 || !head_width.is_multiple_of(2) {
        let reason = format!("makes heads of {head_width}, and only an even width can be turned");
        return Err(config.invalid("head_dim", reason).into());
    }
    Ok([heads, kv_heads, head_width])
}

/// An activation by the name that `transformers` gives it.
fn activation(config: &Config, key: &str) -> Result<Activation, ModelError> {
    match config.str(key)? {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        other => Err(config.invalid(key, format!("is {other:?}, should be silu, gelu or gelu_pytorch_tanh")).into()),
    }
}

/// Settings that change what a model computes and that nothing here does.
fn refuse(config: &Config, keys: &[&str]) -> Result<(), ModelError> {
    for key in keys {
        if config.get(key).is_some_and(|value| !value.is_null() && value != &serde_json::Value::Bool(false)) {
            return Err(config.invalid(key, "is set, and not implemented").into());
        }
    }
    Ok(())
}

/// Ours and theirs, for what Llama and its descendants share.
const NAMES: [(&str, &str); 12] = [
    ("attention.query.", "self_attn.q_proj."),
    ("attention.key.", "self_attn.k_proj."),
    ("attention.value.", "self_attn.v_proj."),
    ("attention.output.", "self_attn.o_proj."),
    ("attention.query_norm.", "self_attn.q_norm."),
    ("attention.key_norm.", "self_attn.k_norm."),
    ("attention_norm.", "input_layernorm."),
    ("attention_out_norm.", "post_attention_layernorm."),
    ("feed_forward.gate.", "mlp.gate_proj."),
    ("feed_forward.up.", "mlp.up_proj."),
    ("feed_forward.down.", "mlp.down_proj."),
    ("feed_forward_out_norm.", "post_feedforward_layernorm."),
];

/// The name of the parameter at a path that begins with `decoder`; `feed_forward_norm` is what the norm before the
/// feed-forward half is called.
fn name(path: &str, feed_forward_norm: &str) -> String {
    let path = path.strip_prefix("decoder.").unwrap_or(path);
    if let Some(rest) = path.strip_prefix("trunk.blocks.") {
        let (block, rest) = rest.split_once('.').unwrap_or((rest, ""));
        let of_block = NAMES.into_iter().chain([("feed_forward_norm.", feed_forward_norm)]);
        for (ours, theirs) in of_block {
            if let Some(end) = rest.strip_prefix(ours) {
                return format!("model.layers.{block}.{theirs}{end}");
            }
        }
    }
    match path.split_once('.') {
        Some(("tokens", end)) => format!("model.embed_tokens.{end}"),
        Some(("norm", end)) => format!("model.norm.{end}"),
        Some(("output", end)) => format!("lm_head.{end}"),
        _ => path.to_owned(),
    }
}

/// The matrices of the decoder under the names of its checkpoints.
fn matrices_mut<P: Published>(decoder: &mut Decoder) -> Vec<Matrix<'_>> {
    let mut matrices = decoder.matrices_mut();
    for matrix in &mut matrices {
        let path = matrix.name.strip_prefix("head.").unwrap_or(&matrix.name);
        matrix.name = P::checkpoint_name(path);
    }
    matrices
}

/// What a checkpoint may hold beside: tables that follow from the settings, and the output matrix of a model that uses the
/// tokens' instead.
fn is_known_extra(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq")
}
