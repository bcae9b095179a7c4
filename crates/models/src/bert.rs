//! BERT (1810.04805) with a classifier on its pooled first token.
//!
//! Tensor names, shapes and results are those of `BertForSequenceClassification` in the `transformers` package.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_data::Batch;
use lapidary_kernels::mask::Mask;
use lapidary_ops as ops;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Config};
use crate::classifier::{Checkpointed, Classifier, Matrix};
use crate::error::ModelError;
use crate::layer::{Embedding, Initializer, LayerNorm, Linear};
use crate::pass::Pass;
use crate::trunk::{NormPlacement, Trunk, TrunkConfig};

/// What `config.json` says of a BERT.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// `V`.
    pub vocabulary: usize,
    /// `D`.
    pub width: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// `H`.
    pub heads: usize,
    /// `F`.
    pub feed_forward: usize,
    /// Longest input, in tokens.
    pub positions: usize,
    /// Kinds of segment.
    pub token_types: usize,
    /// Added to the variance in the norms.
    pub norm_eps: f64,
    /// Standard deviation of fresh weights.
    pub deviation: f32,
    /// The id that pads.
    pub pad_id: u32,
    /// Names of the classes.
    pub labels: Vec<String>,
}

impl BertConfig {
    /// Reads `config.json`; `labels` replaces the classes it names.
    ///
    /// # Errors
    /// A missing key, a wrong type, or a variant of BERT that this file does not build.
    pub fn read(config: &Config, labels: Option<&[String]>) -> Result<Self, ModelError> {
        for (key, built) in [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
            match config.optional_str(key)? {
                Some(found) if found != built => {
                    return Err(config.invalid(key, format!("is {found:?}, only {built:?} is built")).into());
                }
                _ => {}
            }
        }
        let labels = match labels {
            Some(labels) => labels.to_vec(),
            None => labels_of(config)?,
        };
        let pad_id = config.optional_usize("pad_token_id")?.unwrap_or(0);
        let read = Self {
            vocabulary: config.usize("vocab_size")?,
            width: config.usize("hidden_size")?,
            blocks: config.usize("num_hidden_layers")?,
            heads: config.usize("num_attention_heads")?,
            feed_forward: config.usize("intermediate_size")?,
            positions: config.usize("max_position_embeddings")?,
            token_types: config.optional_usize("type_vocab_size")?.unwrap_or(2),
            norm_eps: config.optional_f64("layer_norm_eps")?.unwrap_or(1e-12),
            deviation: config.optional_f64("initializer_range")?.unwrap_or(0.02) as f32,
            pad_id: u32::try_from(pad_id).unwrap_or(u32::MAX),
            labels,
        };
        if read.heads == 0 || !read.width.is_multiple_of(read.heads) {
            let reason = format!("{} heads do not divide a width of {}", read.heads, read.width);
            return Err(config.invalid("num_attention_heads", reason).into());
        }
        for (key, size) in [
            ("vocab_size", read.vocabulary),
            ("hidden_size", read.width),
            ("num_hidden_layers", read.blocks),
            ("intermediate_size", read.feed_forward),
            ("max_position_embeddings", read.positions),
            ("type_vocab_size", read.token_types),
            ("id2label", read.labels.len()),
        ] {
            if size == 0 {
                return Err(config.invalid(key, "must not be 0").into());
            }
        }
        if pad_id >= read.vocabulary {
            let reason = format!("{pad_id} is not in a vocabulary of {}", read.vocabulary);
            return Err(config.invalid("pad_token_id", reason).into());
        }
        Ok(read)
    }

    /// Whether a checkpoint can hold a model of these sizes: a few lines of JSON should not make the program ask for
    /// more memory than the weights beside them justify.
    ///
    /// # Errors
    /// More parameters than the checkpoint's bytes can say, at two bits a weight.
    pub fn check_size(&self, checkpoint: &Checkpoint) -> Result<(), ModelError> {
        let [vocabulary, width, blocks, inner, positions, segments] =
            [self.vocabulary, self.width, self.blocks, self.feed_forward, self.positions, self.token_types]
                .map(|size| size as u128);
        let product = |a: u128, b: u128| a.saturating_mul(b);
        let tables = product(vocabulary.saturating_add(positions).saturating_add(segments), width);
        let block = product(width, width.saturating_mul(4).saturating_add(inner.saturating_mul(2)));
        let parameters = tables.saturating_add(product(blocks, block));
        let bytes: u128 = checkpoint.tensors().map(|tensor| u128::from(tensor.bytes)).sum();
        if parameters > bytes.saturating_mul(4) {
            let reason = format!("sizes make {parameters} parameters, the checkpoint's tensors have {bytes} bytes");
            return Err(checkpoint.config().invalid("hidden_size", reason).into());
        }
        Ok(())
    }

    /// The `config.json` that [`read`](Self::read) and `transformers` take.
    pub fn to_json(&self) -> Value {
        let labels = |f: &dyn Fn(usize, &str) -> (String, Value)| {
            Value::Object(self.labels.iter().enumerate().map(|(i, label)| f(i, label)).collect())
        };
        json!({
            "architectures": ["BertForSequenceClassification"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.token_types,
            "layer_norm_eps": self.norm_eps,
            "initializer_range": self.deviation,
            "pad_token_id": self.pad_id,
            "id2label": labels(&|i, label| (i.to_string(), label.into())),
            "label2id": labels(&|i, label| (label.to_owned(), i.into())),
        })
    }
}

/// The names in `id2label`, or as many as `num_labels` says; two where `config.json` is silent, as `transformers` has it.
fn labels_of(config: &Config) -> Result<Vec<String>, ModelError> {
    let Some(names) = config.get("id2label") else {
        let count = config.optional_usize("num_labels")?.unwrap_or(2);
        return Ok((0..count).map(|i| format!("LABEL_{i}")).collect());
    };
    let names = names.as_object().ok_or_else(|| config.invalid("id2label", "is not an object"))?;
    (0..names.len())
        .map(|i| {
            let name = names.get(&i.to_string()).and_then(Value::as_str);
            let missing = || config.invalid("id2label", format!("has no name for class {i}")).into();
            name.map(str::to_owned).ok_or_else(missing)
        })
        .collect()
}

/// Token, position and segment vectors, summed and normalized.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    word: Embedding,
    position: Embedding,
    token_type: Embedding,
    norm: LayerNorm,
}

/// The encoder with its pooler and classifier.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: BertEmbeddings,
    trunk: Trunk,
    pooler: Linear,
    classifier: Linear,
    #[module(skip)]
    blocks: usize,
}

impl Bert {
    /// Fresh weights on `device`.
    pub fn new(config: &BertConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, config.deviation, device);
        let trunk = TrunkConfig {
            width: config.width,
            heads: config.heads,
            feed_forward: config.feed_forward,
            blocks: config.blocks,
            rotary: None,
            norm: NormPlacement::After,
            norm_eps: config.norm_eps as f32,
        };
        Self {
            embeddings: BertEmbeddings {
                word: Embedding::new(config.vocabulary, config.width, init),
                position: Embedding::new(config.positions, config.width, init),
                token_type: Embedding::new(config.token_types, config.width, init),
                norm: LayerNorm::new(config.width, config.norm_eps as f32, init),
            },
            trunk: Trunk::new(&trunk, init),
            pooler: Linear::new(config.width, config.width, true, init),
            classifier: Linear::new(config.width, config.labels.len(), true, init),
            blocks: config.blocks,
        }
    }

    /// The hidden states before the first block and after each, `[B·L, D]`.
    pub fn hidden_states(&self, batch: &Batch) -> Vec<Tensor<2>> {
        let pass = Pass::evaluation();
        let mut states = vec![self.embed(batch, &pass)];
        for block in 0..self.blocks {
            let last = states[block].clone();
            states.push(self.advance(last, block..block + 1, batch, &pass));
        }
        states
    }
}

impl Checkpointed for Bert {
    fn checkpoint_name(path: &str) -> String {
        let parts: Vec<&str> = path.split('.').collect();
        let inside = |rest: &[&str]| -> String {
            let rest = rest.join(".");
            for (ours, theirs) in [
                ("attention.output.", "attention.output.dense."),
                ("attention.query.", "attention.self.query."),
                ("attention.key.", "attention.self.key."),
                ("attention.value.", "attention.self.value."),
                ("attention_norm.", "attention.output.LayerNorm."),
                ("feed_forward.up.", "intermediate.dense."),
                ("feed_forward.down.", "output.dense."),
                ("feed_forward_norm.", "output.LayerNorm."),
            ] {
                if let Some(end) = rest.strip_prefix(ours) {
                    return format!("{theirs}{end}");
                }
            }
            rest
        };
        match parts.as_slice() {
            ["embeddings", "norm", end] => format!("bert.embeddings.LayerNorm.{end}"),
            ["embeddings", table, end] => format!("bert.embeddings.{table}_embeddings.{end}"),
            ["trunk", "blocks", block, rest @ ..] => format!("bert.encoder.layer.{block}.{}", inside(rest)),
            ["pooler", end] => format!("bert.pooler.dense.{end}"),
            _ => path.to_owned(),
        }
    }

    fn known_extra(name: &str) -> bool {
        // A buffer that old versions of `transformers` saved along, and the heads of pretraining.
        name == "bert.embeddings.position_ids" || name.starts_with("cls.")
    }

    fn may_be_fresh(name: &str) -> bool {
        name.starts_with("classifier.") || name.starts_with("bert.pooler.")
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        let mut matrices = Vec::new();
        for (block, layer) in self.trunk.blocks.iter_mut().enumerate() {
            for (path, linear) in layer.linears_mut() {
                let name = Self::checkpoint_name(&format!("trunk.blocks.{block}.{path}.weight"));
                matrices.push(Matrix { name, block: Some(block), linear });
            }
        }
        matrices.push(Matrix { name: "bert.pooler.dense.weight".into(), block: None, linear: &mut self.pooler });
        matrices
    }
}

impl Classifier for Bert {
    fn blocks(&self) -> usize {
        self.blocks
    }

    fn mask(&self, batch: &Batch) -> Mask {
        Mask::full().with_lengths(batch.lengths.as_slice())
    }

    fn embed(&self, batch: &Batch, pass: &Pass) -> Tensor<2> {
        let positions: Vec<u32> = (0..batch.rows).flat_map(|_| 0..batch.length as u32).collect();
        let embeddings = &self.embeddings;
        let x = embeddings.word.forward(&batch.ids, pass)
            + embeddings.position.forward(&positions, pass)
            + embeddings.token_type.forward(&batch.types, pass); // [B·L, D]
        pass.dropout(embeddings.norm.forward(x), u64::MAX)
    }

    fn advance(&self, x: Tensor<2>, blocks: Range<usize>, batch: &Batch, pass: &Pass) -> Tensor<2> {
        self.trunk.forward(x, blocks, batch.rows, &self.mask(batch), pass)
    }

    fn head(&self, x: Tensor<2>, batch: &Batch, pass: &Pass) -> Tensor<2> {
        let first: Vec<u32> = (0..batch.rows).map(|row| (row * batch.length) as u32).collect();
        let pooled = self.pooler.forward(ops::embedding(x, &first), pass).tanh(); // [B, D]
        self.classifier.forward(pass.dropout(pooled, u64::MAX - 1), pass) // [B, labels]
    }

    fn tables_mut(&mut self) -> Vec<(String, &mut Embedding)> {
        let tables = &mut self.embeddings;
        [("word", &mut tables.word), ("position", &mut tables.position), ("token_type", &mut tables.token_type)]
            .into_iter()
            .map(|(path, table)| (Self::checkpoint_name(&format!("embeddings.{path}.weight")), table))
            .collect()
    }
}
