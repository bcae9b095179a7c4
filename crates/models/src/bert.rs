//! BERT (1810.04805) with a head that sorts texts or tokens into classes, or finds spans.
//!
//! Tensor names, shapes and results are those of `BertForSequenceClassification`, `BertForTokenClassification` and
//! `BertForQuestionAnswering` in the `transformers` package, but that no span ends in padding: there its logits count.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_data::Batch;
use lapidary_kernels::mask::Mask;
use lapidary_ops as ops;
use serde_json::{Value, json};

use crate::checkpoint::{Checkpoint, Config};
use crate::classifier::{Checkpointed, Classifier, Matrix, Task};
use crate::error::ModelError;
use crate::layer::{Embedding, Initializer, Linear, Norm};
use crate::pass::Pass;
use crate::trunk::{NormPlacement, Trunk, TrunkConfig};

fn architecture(task: &Task) -> &'static str {
    match task {
        Task::Classes(_) => "BertForSequenceClassification",
        Task::Tags(_) => "BertForTokenClassification",
        Task::Spans => "BertForQuestionAnswering",
    }
}

/// The task of a checkpoint; classes where `architectures` names none, as of a bare encoder.
fn task_of(config: &Config) -> Result<Task, ModelError> {
    let architectures: Vec<String> = config.optional_struct("architectures")?.unwrap_or_default();
    let has = |name: &str| architectures.iter().any(|architecture| architecture == name);
    Ok(match () {
        () if has("BertForQuestionAnswering") => Task::Spans,
        () if has("BertForTokenClassification") => Task::Tags(labels_of(config)?),
        () => Task::Classes(labels_of(config)?),
    })
}

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
    /// What it is for.
    pub task: Task,
}

impl BertConfig {
    /// Reads `config.json`; `task` replaces the one it names.
    ///
    /// # Errors
    /// A missing key, a wrong type, or a variant of BERT that this file does not build.
    pub fn read(config: &Config, task: Option<&Task>) -> Result<Self, ModelError> {
        for (key, built) in [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
            match config.optional_str(key)? {
                Some(found) if found != built => {
                    return Err(config.invalid(key, format!("is {found:?}, only {built:?} is built")).into());
                }
                _ => {}
            }
        }
        let task = match task {
            Some(task) => task.clone(),
            None => task_of(config)?,
        };
        if task != Task::Spans && task.labels().is_empty() {
            return Err(config.invalid("id2label", "must not be empty").into());
        }
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
            task,
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
        let mut config = json!({
            "architectures": [architecture(&self.task)],
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
        });
        let labels = self.task.labels();
        if !labels.is_empty() {
            let named = labels.iter().enumerate();
            config["id2label"] = named.clone().map(|(i, label)| (i.to_string(), Value::from(label.as_str()))).collect();
            config["label2id"] = named.map(|(i, label)| (label.clone(), Value::from(i))).collect();
        }
        config
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
    norm: Norm,
}

/// Pooled first token → logits of classes.
#[derive(Module, Debug)]
pub struct ClassHead {
    pooler: Linear,
    classifier: Linear,
}

/// Output of the last block → logits.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub enum BertHead {
    /// Logits of a text, `[B, classes]`.
    Classes(ClassHead),
    /// Logits of each token, `[B·L, tags]`.
    Tags(Linear),
    /// Two logits for each token: that an answer begins with it, that it ends with it.
    Spans(Linear),
}

impl BertHead {
    fn new(config: &BertConfig, init: &mut Initializer) -> Self {
        let mut linear = |outputs| Linear::new(config.width, outputs, true, init);
        match &config.task {
            Task::Classes(labels) => {
                Self::Classes(ClassHead { pooler: linear(config.width), classifier: linear(labels.len()) })
            }
            Task::Tags(labels) => Self::Tags(linear(labels.len())),
            Task::Spans => Self::Spans(linear(2)),
        }
    }
}

/// The encoder with a head.
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: BertEmbeddings,
    trunk: Trunk,
    head: BertHead,
    #[module(skip)]
    blocks: usize,
}

/// A logit that leaves nothing of a probability and is still a number, which infinity times 0 would not be.
const RULED_OUT: f32 = -1e30;

impl Bert {
    /// Fresh weights on `device`.
    pub fn new(config: &BertConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, config.deviation, device);
        let trunk = TrunkConfig {
            placement: NormPlacement::After,
            norm_eps: config.norm_eps as f32,
            ..TrunkConfig::new(config.width, config.heads, config.feed_forward, config.blocks)
        };
        Self {
            embeddings: BertEmbeddings {
                word: Embedding::new(config.vocabulary, config.width, init),
                position: Embedding::new(config.positions, config.width, init),
                token_type: Embedding::new(config.token_types, config.width, init),
                norm: Norm::layer(config.width, config.norm_eps as f32, init),
            },
            trunk: Trunk::new(&trunk, init),
            head: BertHead::new(config, init),
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

    /// What rules the padding of each row out as start and as end, `[2B, L]`; of the device and the numbers of `like`.
    fn padding(batch: &Batch, like: &Tensor<2>) -> Tensor<2> {
        let row = |&length: &usize| (0..batch.length).map(move |place| if place < length { 0.0 } else { RULED_OUT });
        let both: Vec<f32> = batch.lengths.iter().flat_map(|length| row(length).chain(row(length))).collect();
        let both = TensorData::new(both, [2 * batch.rows, batch.length]);
        Tensor::from_data(both, (&like.device(), like.dtype()))
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
            ["head", "Classes", "pooler", end] => format!("bert.pooler.dense.{end}"),
            ["head", "Classes", "classifier", end] | ["head", "Tags", end] => format!("classifier.{end}"),
            ["head", "Spans", end] => format!("qa_outputs.{end}"),
            _ => path.to_owned(),
        }
    }

    fn known_extra(name: &str) -> bool {
        // A buffer that old versions of `transformers` saved along, and the heads of pretraining and of other tasks.
        name == "bert.embeddings.position_ids" || name.starts_with("cls.") || Self::may_be_fresh(name)
    }

    fn may_be_fresh(name: &str) -> bool {
        ["classifier.", "qa_outputs.", "bert.pooler."].iter().any(|head| name.starts_with(head))
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        let mut matrices = Vec::new();
        for (block, layer) in self.trunk.blocks.iter_mut().enumerate() {
            for (path, linear) in layer.linears_mut() {
                let name = Self::checkpoint_name(&format!("trunk.blocks.{block}.{path}.weight"));
                matrices.push(Matrix { name, block: Some(block), linear });
            }
        }
        if let BertHead::Classes(head) = &mut self.head {
            matrices.push(Matrix { name: "bert.pooler.dense.weight".into(), block: None, linear: &mut head.pooler });
        }
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
        let dropout = |x| pass.dropout(x, u64::MAX - 1);
        match &self.head {
            BertHead::Classes(head) => {
                let first: Vec<u32> = (0..batch.rows).map(|row| (row * batch.length) as u32).collect();
                let pooled = head.pooler.forward(ops::embedding(x, &first), pass).tanh(); // [B, D]
                head.classifier.forward(dropout(pooled), pass) // [B, classes]
            }
            BertHead::Tags(linear) => linear.forward(dropout(x), pass), // [B·L, tags]
            BertHead::Spans(linear) => {
                let (rows, length) = (batch.rows, batch.length);
                let ends = linear.forward(x, pass).reshape([rows, length, 2]).swap_dims(1, 2); // [B, 2, L]
                ends.reshape([2 * rows, length]) + Self::padding(batch, &linear.weight.val())
            }
        }
    }

    fn tables_mut(&mut self) -> Vec<(String, &mut Embedding)> {
        let tables = &mut self.embeddings;
        [("word", &mut tables.word), ("position", &mut tables.position), ("token_type", &mut tables.token_type)]
            .into_iter()
            .map(|(path, table)| (Self::checkpoint_name(&format!("embeddings.{path}.weight")), table))
            .collect()
    }
}
