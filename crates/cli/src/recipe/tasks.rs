//! Tasks of a recipe for text: what models are fine-tuned to write, and how it is written.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use lapidary_decode::parallel::{Acceptance, Ending, Length};
use lapidary_kernels::precision::Precision;
use serde::{Deserialize, Serialize};

use super::check::{self, Checked, Fault, count, distinct, ensure, filled, name, not_negative};
use super::text::{ObjectiveName, default_unroll, is_zero, pieces, unroll};

/// A task: texts, and what is to be written from them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What results call it.
    pub name: String,
    /// What models are trained on, `[[task.train]]`.
    pub train: Vec<PairFiles>,
    /// What they are reported on.
    pub test: PairFiles,
    /// Every so many-th source of the training part is kept: training is watched and ways to write are chosen on it.
    /// Default: 20.
    #[serde(default = "default_validate_every")]
    pub validate_every: usize,
    /// How all texts are written before anything else. Default: `raw`.
    #[serde(default)]
    pub form: Form,
    /// Steps of training, for a step that goes through the model once; one that goes through it more often counts as so
    /// many, so that all models of a task get the same work.
    pub steps: usize,
    /// Tokens of a written text at most, the one that ends it included. Default: 32.
    #[serde(default = "default_canvas")]
    pub canvas: usize,
    /// What becomes of pairs that do not fit into the model's positions or the canvas. Default: `error`.
    #[serde(default)]
    pub too_long: TooLong,
}

/// Files of pairs: paths, or names below `$LAPIDARY_DATA`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFiles {
    /// Of `lines` two: the sources, and the targets line by line.
    pub files: Vec<String>,
    /// Default: `jsonl`.
    #[serde(default)]
    pub format: PairFormat,
    /// The field of JSON lines that is written from. Default: `source`.
    #[serde(default = "default_source")]
    pub source: String,
    /// The field that holds what is to be written; a list holds several that are all right. Default: `target`.
    #[serde(default = "default_target")]
    pub target: String,
    /// More fields of texts that are all right, to compare with. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What a question is written from. Default: `sentence`.
    #[serde(default)]
    pub shape: QuestionShape,
}

/// How pairs are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairFormat {
    /// JSON lines.
    #[default]
    Jsonl,
    /// Two files of plain text, line by line.
    Lines,
    /// SQuAD's JSON, or its paragraphs as JSON lines: questions are written.
    Squad,
}

/// What a question is written from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuestionShape {
    /// The sentence that holds the answer.
    #[default]
    Sentence,
    /// The answer and the whole passage.
    Passage,
}

/// How texts are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As they come.
    #[default]
    Raw,
    /// Lower case, words and punctuation apart: the same for text that comes tokenized and text that does not.
    Words,
}

/// What becomes of pairs that are too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// They are an error.
    #[default]
    Error,
    /// Sources lose their ends, and targets of the training part are left out; how many is reported. Targets of other
    /// parts are only compared with and may have any length.
    Cut,
}

/// Fine-tuning on every task: AdamW, linear warm-up and decay, batches of similar length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextFinetune {
    /// Pairs a step. Default: 32.
    pub batch_size: usize,
    /// Of the matrix products, `f32` or `bf16`. Default: `f32`.
    pub precision: Precision,
    /// Highest learning rate. Default: 3e-4.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises, 0 to 1. Default: 0.05.
    pub warmup: f64,
    /// Decoupled weight decay. Default: 0.1.
    pub weight_decay: f64,
    /// Longest gradient, in the 2-norm. Default: 1.
    pub clip: f64,
    /// Probability of dropout. Default: 0.1.
    pub dropout: f64,
    /// Batches whose pairs are sorted by length together. Default: 20.
    pub bucket_batches: usize,
    /// Steps between evaluations, and between saved states. Default: 100.
    pub evaluate_every: usize,
    /// The trainings of each task, `[[finetune.variant]]`. Default: none.
    #[serde(rename = "variant")]
    pub variants: Vec<FinetuneVariant>,
}

/// One model of each task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneVariant {
    /// What results call it.
    pub name: String,
    /// The pretrained variant that it goes on from. Default: none, and it begins fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A variant before this one whose texts, written token after token, are learned in place of the task's own
    /// (sequence-level distillation): one text a source, where the task may have several. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// `autoregressive`, `denoising` or `both`, which takes turns.
    pub objective: ObjectiveName,
    /// Weights of the unrolled steps of denoising, first to last. Default: 0.5, 0.5.
    #[serde(default = "default_unroll")]
    pub unroll: Vec<f64>,
    /// Share of the canvases that begin within the text, what stands before them given: half of these reach to its end,
    /// the others are of 1 to 16 places. For drafts and for texts of several canvases. Default: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pieces: f64,
}

/// How canvases are written, and what is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Writing {
    /// Passes of the curve. Default: 1, 2, 4, 8, 16, 32.
    pub passes: Vec<usize>,
    /// Passes that the other settings are chosen for and the test is written with. Default: 8.
    pub test_passes: usize,
    /// Temperatures to choose from. Default: 0, 0.3, 0.6.
    pub temperatures: Vec<f32>,
    /// Rules of acceptance to choose from, as `lapidary generate --accept` has them; `verified` is for models that also
    /// write token after token. Default: `all`, `surest=0.2`, `unsure=0.3`.
    pub accept: Vec<String>,
    /// What decides the lengths of texts, to choose from: `written`, `expected` or `drawn`. Default: all three.
    pub lengths: Vec<LengthRule>,
    /// Candidates of which the best is taken. Default: 4.
    pub candidates: usize,
    /// Sources of the kept part that settings are chosen on. Default: 200.
    pub examples: usize,
    /// Sources of the test at most, the first ones. Default: none, and all count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_examples: Option<usize>,
}

/// What decides the length of a text on a canvas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LengthRule {
    /// Each pass anew, by the tokens that it takes
    #[default]
    Written,
    /// The first pass: the mean of the lengths by their probability
    Expected,
    /// The first pass: drawn from the lengths by their probability
    Drawn,
}

impl LengthRule {
    pub fn of(self, ending: Ending) -> Length {
        match self {
            Self::Written => Length::Written,
            Self::Expected => Length::Expected(ending),
            Self::Drawn => Length::Drawn(ending),
        }
    }
}

impl fmt::Display for LengthRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl FinetuneVariant {
    /// Its steps on a task: see [`Task::steps`].
    pub fn steps(&self, task: &Task) -> usize {
        let unrolled = self.unroll.len();
        let passes = match self.objective {
            ObjectiveName::Autoregressive => 1.0,
            ObjectiveName::Denoising => unrolled as f64,
            ObjectiveName::Both => (1 + unrolled) as f64 / 2.0,
        };
        ((task.steps as f64 / passes).round() as usize).max(1)
    }
}

impl Writing {
    /// The rules, which have been checked.
    pub fn rules(&self) -> impl Iterator<Item = AcceptRule> + '_ {
        self.accept.iter().filter_map(|rule| rule.parse().ok())
    }
}

/// Which tokens of a pass over a canvas stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AcceptRule {
    /// By what the pass says of the canvas.
    Canvas(Acceptance),
    /// `verified`: from the left, those that writing token after token would choose, and so many more that the passes are
    /// enough ([`SpeculativeOptions::passes`](lapidary_decode::SpeculativeOptions::passes)).
    Verified,
}

impl FromStr for AcceptRule {
    type Err = String;

    fn from_str(rule: &str) -> Result<Self, String> {
        match rule {
            "verified" => Ok(Self::Verified),
            _ => rule.parse().map(Self::Canvas).map_err(|error| error.replace("give all,", "give verified, all,")),
        }
    }
}

impl fmt::Display for AcceptRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Canvas(acceptance) => acceptance.fmt(f),
            Self::Verified => f.write_str("verified"),
        }
    }
}

fn default_validate_every() -> usize {
    20
}

fn default_canvas() -> usize {
    32
}

fn default_source() -> String {
    "source".into()
}

fn default_target() -> String {
    "target".into()
}

impl Default for TextFinetune {
    fn default() -> Self {
        Self {
            batch_size: 32,
            precision: Precision::F32,
            learning_rate: 3e-4,
            warmup: 0.05,
            weight_decay: 0.1,
            clip: 1.0,
            dropout: 0.1,
            bucket_batches: 20,
            evaluate_every: 100,
            variants: Vec::new(),
        }
    }
}

impl Default for Writing {
    fn default() -> Self {
        Self {
            passes: vec![1, 2, 4, 8, 16, 32],
            test_passes: 8,
            temperatures: vec![0.0, 0.3, 0.6],
            accept: ["all", "surest=0.2", "unsure=0.3"].map(String::from).to_vec(),
            lengths: LengthRule::value_variants().to_vec(),
            candidates: 4,
            examples: 200,
            test_examples: None,
        }
    }
}

/// Checks tasks for models of `positions`, fine-tuned from the `pretrained`.
pub fn check(
    tasks: &[Task],
    finetune: &TextFinetune,
    writing: &Writing,
    positions: usize,
    pretrained: &[&String],
) -> Checked {
    for (index, task) in tasks.iter().enumerate() {
        let key = |field: &str| format!("task.{index}.{field}");
        name(&key("name"), &task.name)?;
        ensure(&key("train"), !task.train.is_empty(), || "should name files to train on".to_owned())?;
        for (part, files) in task.train.iter().enumerate() {
            pair_files(&key(&format!("train.{part}")), files)?;
        }
        pair_files(&key("test"), &task.test)?;
        count(&key("steps"), task.steps, 1..=check::MANY)?;
        count(&key("validate_every"), task.validate_every, 2..=check::MANY)?;
        // The prompt has three tokens at least.
        count(&key("canvas"), task.canvas, 2..=positions.saturating_sub(3).max(2))?;
    }
    distinct("task", &tasks.iter().map(|task| &task.name).collect::<Vec<_>>())?;
    let TextFinetune { batch_size, learning_rate, warmup, weight_decay, clip, evaluate_every, .. } = *finetune;
    check::Training { batch_size, learning_rate, warmup, weight_decay, clip, evaluate_every }.check("finetune")?;
    check::dropout("finetune.dropout", finetune.dropout)?;
    count("finetune.bucket_batches", finetune.bucket_batches, 1..=1_000_000)?;
    for (index, variant) in finetune.variants.iter().enumerate() {
        let key = |field: &str| format!("finetune.variant.{index}.{field}");
        name(&key("name"), &variant.name)?;
        if let Some(from) = &variant.from {
            ensure(&key("from"), pretrained.contains(&from), || {
                format!("should be a pretrained variant, is {from:?}")
            })?;
        }
        if let Some(teacher) = &variant.teacher {
            let before = &finetune.variants[..index];
            let can = |it: &FinetuneVariant| it.name == *teacher && it.objective.writes();
            ensure(&key("teacher"), before.iter().any(can), || {
                format!("should be a variant before this one that writes token after token, is {teacher:?}")
            })?;
        }
        unroll(&key("unroll"), &variant.unroll)?;
        pieces(&key("pieces"), variant.pieces, variant.objective)?;
    }
    distinct("finetune.variant", &finetune.variants.iter().map(|variant| &variant.name).collect::<Vec<_>>())?;
    write(writing)?;
    let verified_alone = writing.rules().all(|rule| rule == AcceptRule::Verified);
    if let Some(variant) = finetune.variants.iter().find(|it| it.objective.repairs() && !it.objective.writes()) {
        ensure("write.accept", !verified_alone, || {
            format!("should have another rule than verified, for {} does not write token after token", variant.name)
        })?;
    }
    Ok(())
}

fn pair_files(key: &str, files: &PairFiles) -> Checked {
    let wanted = if files.format == PairFormat::Lines { 2..=2 } else { 1..=check::MANY };
    count(&format!("{key}.files"), files.files.len(), wanted)?;
    for (index, file) in files.files.iter().enumerate() {
        filled(&format!("{key}.files.{index}"), file)?;
    }
    filled(&format!("{key}.source"), &files.source)?;
    filled(&format!("{key}.target"), &files.target)?;
    files
        .references
        .iter()
        .enumerate()
        .try_for_each(|(index, field)| filled(&format!("{key}.references.{index}"), field))
}

fn write(writing: &Writing) -> Checked {
    for (index, passes) in writing.passes.iter().chain([&writing.test_passes]).enumerate() {
        let key =
            if index < writing.passes.len() { format!("write.passes.{index}") } else { "write.test_passes".into() };
        count(&key, *passes, 1..=10_000)?;
    }
    ensure("write.temperatures", !writing.temperatures.is_empty(), || "should have one at least".to_owned())?;
    for (index, temperature) in writing.temperatures.iter().enumerate() {
        not_negative(&format!("write.temperatures.{index}"), f64::from(*temperature))?;
    }
    ensure("write.accept", !writing.accept.is_empty(), || "should have a rule at least".to_owned())?;
    for (index, rule) in writing.accept.iter().enumerate() {
        let fault = |message| Fault { key: format!("write.accept.{index}"), message };
        rule.parse::<AcceptRule>().map_err(fault)?;
    }
    ensure("write.lengths", !writing.lengths.is_empty(), || "should have a rule at least".to_owned())?;
    distinct("write.lengths", &writing.lengths)?;
    count("write.candidates", writing.candidates, 1..=1_000)?;
    count("write.examples", writing.examples, 1..=check::MANY)?;
    count("write.test_examples", writing.test_examples.unwrap_or(1), 1..=check::MANY)
}
