//! A recipe for models of text: a tokenizer and models trained from nothing on plain text.

use std::path::Path;

use lapidary_data::Algorithm;
use lapidary_kernels::precision::Precision;
use lapidary_train::OptimizerOptions;
use serde::{Deserialize, Serialize};

use super::check::{self, Checked, count, distinct, ensure, filled, name, positive, share};
use super::tasks::{self, Task, TextFinetune, Writing};
use super::{RecipeError, is_no, read_checked};

/// An experiment: a tokenizer is trained on text, and models of one size by several objectives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextRecipe {
    /// `text`; recipes without a kind classify.
    pub kind: Kind,
    /// What results and checkpoints are called: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it shows. Default: nothing.
    #[serde(default)]
    pub description: String,
    /// Of all random choices. Default: 1.
    #[serde(default = "default_seed")]
    pub seed: u64,
    pub data: TextData,
    #[serde(default)]
    pub tokenizer: TokenizerSettings,
    #[serde(default)]
    pub model: DecoderSettings,
    #[serde(default)]
    pub pretrain: Pretrain,
    /// What models are fine-tuned to write, `[[task]]`. Default: nothing.
    #[serde(default, rename = "task", skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    #[serde(default)]
    pub finetune: TextFinetune,
    #[serde(default)]
    pub write: Writing,
}

/// The kind of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Text,
}

/// The text. Files are paths, or names below `$LAPIDARY_DATA`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextData {
    /// Text, JSON lines or tar archives, each as it is or compressed by zstd, and folders of them.
    pub files: Vec<String>,
    /// The field of JSON lines that holds the text. Default: `text`.
    #[serde(default = "default_field")]
    pub field: String,
    /// A list of the documents' names, one a line. Default: none, and the documents are counted as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Every so many-th document is held out of training, and measured on. Default: 10.
    #[serde(default = "default_every")]
    pub hold_out_every: usize,
}

/// The tokenizer, trained on the text that models are trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerSettings {
    /// `bpe`, of bytes, or `unigram`. Default: `bpe`.
    pub kind: Algorithm,
    /// Tokens, the special ones included. Default: 8192.
    pub vocabulary: usize,
}

/// Sizes of the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecoderSettings {
    /// Longest sequence, in tokens. Default: 256.
    pub positions: usize,
    /// `rotary`, or `learned` for a vector a position. Default: `rotary`.
    pub position_encoding: Encoding,
    /// Default: 256.
    pub width: usize,
    /// Divides the width. Default: 4.
    pub heads: usize,
    /// How many of the heads look at a token by the key of the one before it, at most all: such heads learn early to find
    /// what followed a token before, and so to copy. Default: 0.
    #[serde(skip_serializing_if = "is_none")]
    pub shifted_heads: usize,
    /// Default: 1024.
    pub feed_forward: usize,
    /// Default: 6.
    pub blocks: usize,
    /// Whether a pass over a canvas reads what the pass before said of its places. Default: no.
    pub self_conditioning: bool,
    /// Whether a place of a canvas says what the next one is to become, as where text is written token after token, so that
    /// what is learned of the one serves the other. Default: no.
    #[serde(skip_serializing_if = "is_no")]
    pub shifted_canvas: bool,
}

/// How tokens know their positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Queries and keys are turned.
    #[default]
    Rotary,
    /// A vector for each position.
    Learned,
}

/// Training on windows of the text: linear warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pretrain {
    /// Windows a step, each as long as the model has positions, over all accumulated parts. Default: 16.
    pub batch_size: usize,
    /// Parts that a step's gradient is summed from; divides `batch_size`. Default: 1.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Of the matrix products, `f32` or `bf16`. Default: `f32`.
    pub precision: Precision,
    /// Highest learning rate. Default: 1e-3.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises, 0 to 1. Default: 0.02.
    pub warmup: f64,
    /// Decoupled weight decay of AdamW. Default: 0.1.
    pub weight_decay: f64,
    /// `{ kind = "sgd" }`, `adamw` or `kfac`, with its settings, its weight decay among them. K-FAC has no factors of the
    /// output matrix, so that it wants `strict = false`. Default: AdamW with `weight_decay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerOptions>,
    /// Longest gradient, in the 2-norm. Default: 1.
    pub clip: f64,
    /// Whether the noise scale of the gradient is measured, which says up to what size of batch a larger one pays. Wants
    /// `accumulate` of two or more. Default: no.
    #[serde(skip_serializing_if = "is_no")]
    pub noise_scale: bool,
    /// Share of the windows that repeat pieces of their own beginning, by which models learn early to copy. Default: 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub recall: f64,
    /// Steps between evaluations on windows of the training text, and between saved states. Default: 500.
    pub evaluate_every: usize,
    /// The trainings, `[[pretrain.variant]]`. Default: none.
    #[serde(rename = "variant")]
    pub variants: Vec<PretrainVariant>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainVariant {
    /// What results call it.
    pub name: String,
    /// A variant before this one that it goes on from, with a schedule of its own. Default: none, and it begins fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `autoregressive`, `denoising` or `both`, which takes turns.
    pub objective: ObjectiveName,
    /// Steps of training. A step of denoising takes as many passes through the model as it unrolls.
    pub steps: usize,
    /// Weights of the unrolled steps of denoising, first to last. Default: 0.5, 0.5.
    #[serde(default = "default_unroll")]
    pub unroll: Vec<f64>,
    /// Share of the canvases that begin within the text, what stands before them given: half of these reach to its end,
    /// the others are of 1 to 16 places. For drafts and for texts of several canvases. Default: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pieces: f64,
}

/// What a model is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveName {
    Autoregressive,
    Denoising,
    Both,
}

impl ObjectiveName {
    /// Whether models of it repair canvases.
    pub fn repairs(self) -> bool {
        self != Self::Autoregressive
    }

    /// Whether models of it write token after token.
    pub fn writes(self) -> bool {
        self != Self::Denoising
    }

    /// For model cards.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Autoregressive => "to predict the next token",
            Self::Denoising => "to repair corrupted text",
            Self::Both => "to predict the next token and, in turn, to repair corrupted text",
        }
    }
}

/// Runs from before there was such a key stay what they are.
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// The same.
fn is_one(count: &usize) -> bool {
    *count == 1
}

/// The same.
pub(super) fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

fn default_seed() -> u64 {
    1
}

fn default_field() -> String {
    "text".into()
}

fn default_every() -> usize {
    10
}

pub(super) fn default_unroll() -> Vec<f64> {
    vec![0.5, 0.5]
}

impl Default for TokenizerSettings {
    fn default() -> Self {
        Self { kind: Algorithm::Bpe, vocabulary: 8192 }
    }
}

impl Default for DecoderSettings {
    fn default() -> Self {
        Self {
            positions: 256,
            position_encoding: Encoding::Rotary,
            width: 256,
            heads: 4,
            shifted_heads: 0,
            feed_forward: 1024,
            blocks: 6,
            self_conditioning: false,
            shifted_canvas: false,
        }
    }
}

impl Default for Pretrain {
    fn default() -> Self {
        Self {
            batch_size: 16,
            accumulate: 1,
            precision: Precision::F32,
            learning_rate: 1e-3,
            warmup: 0.02,
            weight_decay: 0.1,
            optimizer: None,
            clip: 1.0,
            noise_scale: false,
            recall: 0.0,
            evaluate_every: 500,
            variants: Vec::new(),
        }
    }
}

impl TextRecipe {
    /// As [`Recipe::read`](super::Recipe::read).
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_checked(path, overrides, check)
    }
}

fn check(recipe: &TextRecipe) -> Checked {
    name("name", &recipe.name)?;
    ensure("data.files", !recipe.data.files.is_empty(), || "should name a file or a folder at least".to_owned())?;
    for (index, file) in recipe.data.files.iter().enumerate() {
        filled(&format!("data.files.{index}"), file)?;
    }
    filled("data.field", &recipe.data.field)?;
    count("data.hold_out_every", recipe.data.hold_out_every, 2..=check::MANY)?;
    // All bytes and the special tokens.
    count("tokenizer.vocabulary", recipe.tokenizer.vocabulary, 260..=1_000_000)?;
    let model = &recipe.model;
    count("model.positions", model.positions, 2..=1_000_000)?;
    count("model.width", model.width, 1..=1_000_000)?;
    count("model.heads", model.heads, 1..=model.width)?;
    ensure("model.heads", model.width.is_multiple_of(model.heads), || {
        format!("should divide the width of {}, is {}", model.width, model.heads)
    })?;
    ensure(
        "model.heads",
        model.position_encoding == Encoding::Learned || (model.width / model.heads).is_multiple_of(2),
        || format!("leaves heads of {}, and rotary positions want an even width", model.width / model.heads),
    )?;
    count("model.shifted_heads", model.shifted_heads, 0..=model.heads)?;
    count("model.feed_forward", model.feed_forward, 1..=1_000_000)?;
    count("model.blocks", model.blocks, 1..=10_000)?;
    pretrain(&recipe.pretrain)?;
    let pretrained: Vec<&String> = recipe.pretrain.variants.iter().map(|variant| &variant.name).collect();
    tasks::check(&recipe.tasks, &recipe.finetune, &recipe.write, model.positions, &pretrained)
}

fn pretrain(pretrain: &Pretrain) -> Checked {
    let Pretrain { batch_size, learning_rate, warmup, weight_decay, clip, evaluate_every, .. } = *pretrain;
    check::Training { batch_size, learning_rate, warmup, weight_decay, clip, evaluate_every }.check("pretrain")?;
    count("pretrain.accumulate", pretrain.accumulate, 1..=batch_size)?;
    ensure("pretrain.accumulate", batch_size.is_multiple_of(pretrain.accumulate), || {
        format!("should divide the batch size of {batch_size}, is {}", pretrain.accumulate)
    })?;
    check::noise_scale("pretrain", pretrain.noise_scale, pretrain.accumulate)?;
    let own = Pretrain::default().weight_decay;
    check::optimizer("pretrain", pretrain.optimizer.as_ref(), weight_decay != own)?;
    share("pretrain.recall", pretrain.recall)?;
    for (index, variant) in pretrain.variants.iter().enumerate() {
        let key = |field: &str| format!("pretrain.variant.{index}.{field}");
        name(&key("name"), &variant.name)?;
        if let Some(from) = &variant.from {
            ensure(&key("from"), pretrain.variants[..index].iter().any(|before| before.name == *from), || {
                format!("should be a variant before this one, is {from:?}")
            })?;
        }
        count(&key("steps"), variant.steps, 1..=check::MANY)?;
        unroll(&key("unroll"), &variant.unroll)?;
        pieces(&key("pieces"), variant.pieces, variant.objective)?;
    }
    let names: Vec<&String> = pretrain.variants.iter().map(|variant| &variant.name).collect();
    distinct("pretrain.variant", &names)
}

/// Weights of unrolled steps.
pub(super) fn unroll(key: &str, weights: &[f64]) -> Checked {
    count(key, weights.len(), 1..=100)?;
    weights.iter().enumerate().try_for_each(|(step, weight)| positive(&format!("{key}.{step}"), *weight))
}

/// A share of canvases, for models that have any.
pub(super) fn pieces(key: &str, pieces: f64, objective: ObjectiveName) -> Checked {
    share(key, pieces)?;
    ensure(key, pieces == 0.0 || objective.repairs(), || {
        "is for models that repair canvases: leave it out, or set the objective to \"denoising\" or \"both\"".to_owned()
    })
}
