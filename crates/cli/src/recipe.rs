//! A recipe: one experiment as a TOML file. Every key is known, typed and checked before anything runs; what is wrong
//! is told with the file, line, column and key.

mod bits;
mod check;
mod document;
mod pictures;
mod remote;
mod roots;
mod study;
mod tasks;
mod text;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lapidary_data::{ConllColumns, SpanOptions};
use lapidary_kernels::precision::Precision;
use lapidary_train::OptimizerOptions;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use bits::Bits;
pub use check::metric_key;
use document::Sources;
pub use pictures::{PictureData, PictureRecipe, PictureVariant};
use remote::RemoteError;
pub use roots::Roots;
pub use study::{Search, Study};
pub use tasks::{AcceptRule, FinetuneVariant, Form, LengthRule, PairFiles, PairFormat, QuestionShape, Task, TooLong};
pub use text::{DecoderSettings, Encoding, ObjectiveName, PretrainVariant, TextRecipe};

/// What can be wrong with a recipe, or with the inputs that it names.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("cannot read the recipe {}", path.display())]
    Read { path: PathBuf, source: io::Error },

    /// `place` is `file:line:column`, or the `--set` that brought the value.
    #[error("{place}: {message}")]
    Invalid { place: String, message: String },

    #[error(transparent)]
    Remote(#[from] RemoteError),

    #[error("no {kind} `{given}`; looked for {}", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" and "))]
    Missing { kind: &'static str, given: String, looked: Vec<PathBuf> },
}

/// An experiment: a model is fine-tuned on data, its curvature measured, its weights cut and each cut evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What results and checkpoints are called: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it shows. Default: nothing.
    #[serde(default)]
    pub description: String,
    /// Seeds, each a run of its own; the mean is reported. Default: 1, 2, 3.
    #[serde(default = "default_seeds")]
    pub seeds: Vec<u64>,
    pub model: Model,
    pub data: Data,
    #[serde(default)]
    pub finetune: Finetune,
    #[serde(default)]
    pub curvature: Curvature,
    #[serde(default)]
    pub quantize: Quantize,
}

/// Where the experiment begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A checkpoint folder: a path, or a name below `$LAPIDARY_MODELS`.
    pub checkpoint: String,
    /// Names of the classes, in the order of their ids, or the tags of words, O among them. Default: the tags that the
    /// training files have; none where answers are looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// The examples. Files are paths, or names below `$LAPIDARY_DATA`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Default: `tsv`.
    #[serde(default)]
    pub format: Format,
    /// Training files, one or a list.
    pub train: Files,
    /// What settings are chosen on, one file or a list. Default: the last `validation_rows` rows of the training files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Files>,
    /// What is reported on, read once a variant.
    pub dev: String,
    /// Column of the text, or of the first of a pair; of tables only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Column of the second text of a pair. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// Column of the label; of tables only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Rows, questions or sentences that are kept out of training and that settings are chosen on. Default: 2000, where
    /// there is no `validation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_rows: Option<usize>,
    /// Longest input in tokens, the special ones included; longer texts are cut, longer sentences of tagged words
    /// divided, longer passages read in windows. Default: 128; 384 for passages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Tokens of a passage that a window shares with the one before. Default: 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Longest question in tokens; longer ones are cut. Default: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question_length: Option<usize>,
    /// Columns of word and tag, and the scheme of the tags. Default: first, last, and `iob2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ConllColumns>,
}

/// One file or several, read one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Files {
    One(String),
    Many(Vec<String>),
}

impl Files {
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

impl Data {
    /// The lengths of rows, with their defaults.
    pub fn lengths(&self) -> SpanOptions {
        let SpanOptions { max_length, stride, question_length } = SpanOptions::default();
        SpanOptions {
            max_length: self.max_length.unwrap_or(if self.format == Format::Squad { max_length } else { 128 }),
            stride: self.stride.unwrap_or(stride),
            question_length: self.question_length.unwrap_or(question_length),
        }
    }

    /// Examples of the training files that are kept out of training.
    pub fn kept_out(&self) -> usize {
        if self.validation.is_some() { 0 } else { self.validation_rows.unwrap_or(2000) }
    }
}

/// A file format of examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tab-separated with a header line, as it is or compressed by zstd.
    #[default]
    Tsv,
    /// One JSON object a line, as it is or compressed by zstd.
    Jsonl,
    /// Answers in passages, in the JSON of SQuAD or a passage a line.
    Squad,
    /// Tagged words, in the columns of CoNLL.
    Conll,
}

impl Format {
    /// Whether rows have columns by name.
    pub fn is_table(self) -> bool {
        matches!(self, Self::Tsv | Self::Jsonl)
    }
}

/// Fine-tuning: linear warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Finetune {
    /// Passes over the training rows. Default: 3.
    pub epochs: usize,
    /// Examples a step, over all accumulated parts. Default: 32.
    pub batch_size: usize,
    /// Parts that a step's gradient is summed from; divides `batch_size`. Default: 1.
    pub accumulate: usize,
    /// Of the matrix products in this and all later training, `f32` or `bf16`; weights, sums and all else are f32.
    /// Default: `f32`.
    pub precision: Precision,
    /// Highest learning rate. Default: 5e-5.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises, 0 to 1. Default: 0.1.
    pub warmup: f64,
    /// Decoupled weight decay of AdamW. Default: 0.01.
    pub weight_decay: f64,
    /// `{ kind = "sgd" }`, `adamw` or `kfac`, with its settings, its weight decay among them. Default: AdamW with
    /// `weight_decay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerOptions>,
    /// Longest gradient, in the 2-norm. Default: 1.
    pub clip: f64,
    /// Whether the noise scale of the gradient is measured, which says up to what size of batch a larger one pays. Wants
    /// `accumulate` of two or more. Default: no.
    #[serde(skip_serializing_if = "is_no")]
    pub noise_scale: bool,
    /// Share of activations dropped, 0 to 1. Default: 0.1.
    pub dropout: f64,
    /// Batches that are drawn together and sorted by length. Default: 50.
    pub bucket_batches: usize,
    /// Steps between evaluations on the validation part. Default: 500.
    pub evaluate_every: usize,
    /// Latest checkpoints that are kept beside the best. Default: 2.
    pub keep: usize,
}

/// The top Hessian eigenvalue of every encoder layer (Q-BERT, section 3.1), by the Lanczos process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Curvature {
    /// Samples of the training rows; mean and deviation of the eigenvalue are over them. Default: 10.
    pub samples: usize,
    /// Examples a sample. Default: 256.
    pub examples: usize,
    /// Most products with the Hessian. Default: 30.
    pub iterations: usize,
    /// Relative error of the eigenvalue at which it ends; its residual is the square root of that. Default: 0.01.
    pub tolerance: f64,
    /// Examples a batch; a sample's Hessian is the sum over its batches. Default: 32.
    pub batch_size: usize,
}

/// Cutting the weights, with quantization-aware fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quantize {
    /// Groups of rows a matrix, each with its own range. Default: 128.
    pub groups: usize,
    /// Bits of the embeddings, 2 to 8. Default: 8.
    pub embedding_bits: u8,
    /// Bits of the activations, 2 to 8, or 32 for none cut. Default: 8.
    pub activation_bits: u8,
    /// The cuts to make, `[[quantize.variant]]`. Default: none.
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
}

/// One cut of the fine-tuned model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What results call it, such as `w4` or `mp23`.
    pub name: String,
    /// Bits of the encoder's matrices.
    pub bits: Bits,
    /// With mixed bits, how many layers get the more bits: those of the highest sensitivity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_layers: Option<usize>,
    /// Steps of quantization-aware fine-tuning. Default: 1000.
    #[serde(default = "default_variant_steps")]
    pub steps: usize,
    /// Its highest learning rate. Default: 2e-5.
    #[serde(default = "default_variant_learning_rate")]
    pub learning_rate: f64,
    /// Its examples a step. Default: 32.
    #[serde(default = "default_variant_batch_size")]
    pub batch_size: usize,
}

fn default_seeds() -> Vec<u64> {
    vec![1, 2, 3]
}

fn default_variant_steps() -> usize {
    1000
}

fn default_variant_learning_rate() -> f64 {
    2e-5
}

fn default_variant_batch_size() -> usize {
    32
}

/// Runs from before there was such a key stay what they are.
fn is_no(flag: &bool) -> bool {
    !flag
}

impl Default for Finetune {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 32,
            accumulate: 1,
            precision: Precision::F32,
            learning_rate: 5e-5,
            warmup: 0.1,
            weight_decay: 0.01,
            optimizer: None,
            clip: 1.0,
            noise_scale: false,
            dropout: 0.1,
            bucket_batches: 50,
            evaluate_every: 500,
            keep: 2,
        }
    }
}

impl Default for Curvature {
    fn default() -> Self {
        Self { samples: 10, examples: 256, iterations: 30, tolerance: 0.01, batch_size: 32 }
    }
}

impl Default for Quantize {
    fn default() -> Self {
        Self { groups: 128, embedding_bits: 8, activation_bits: 8, variants: Vec::new() }
    }
}

impl Recipe {
    /// Reads and checks a recipe. Each of `overrides` is a `key=value` as given to `--set`: a dotted path, with the
    /// name or the number of a variant in `quantize.variant.w4.steps`, and a TOML value or a bare string.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_checked(path, overrides, check::check)
    }

    /// [`read`](Self::read) of a text; `file` is what errors call it.
    #[cfg(test)]
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        parse_checked(file, text, overrides, check::check)
    }
}

fn read_checked<R: DeserializeOwned>(
    path: &Path,
    overrides: &[String],
    check: impl FnOnce(&R) -> check::Checked,
) -> Result<R, RecipeError> {
    let text = fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
    parse_checked(&path.display().to_string(), &text, overrides, check)
}

fn parse_checked<R: DeserializeOwned>(
    file: &str,
    text: &str,
    overrides: &[String],
    check: impl FnOnce(&R) -> check::Checked,
) -> Result<R, RecipeError> {
    let sources = Sources::new(file, text, overrides)?;
    let document = sources.document()?;
    let recipe: R = document.deserialize()?;
    match check(&recipe) {
        Ok(()) => Ok(recipe),
        Err(fault) => Err(document.fault(&fault.key, &fault.message)),
    }
}

/// The kind of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecipeKind {
    /// Text in classes, answers in passages, tagged words: [`Recipe`].
    Classes,
    /// [`TextRecipe`].
    Text,
    /// [`PictureRecipe`].
    Pictures,
}

/// The `kind` that a recipe has. What else may be wrong with the file is told when it is read as its kind.
pub fn kind(path: &Path) -> RecipeKind {
    let kind = |text: String| Some(text.parse::<toml::Table>().ok()?.get("kind")?.as_str()?.to_owned());
    match fs::read_to_string(path).ok().and_then(kind).as_deref() {
        Some("text") => RecipeKind::Text,
        Some("pictures") => RecipeKind::Pictures,
        _ => RecipeKind::Classes,
    }
}

#[cfg(test)]
mod tests;
