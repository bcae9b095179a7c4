//! A recipe for networks that tell pictures apart: trained from nothing by several optimizers, and the study of how they
//! take to larger batches.

use std::path::Path;

use lapidary_kernels::precision::Precision;
use lapidary_models::resnet::{ResNetConfig, Shortcut};
use lapidary_train::{Decay, OptimizerOptions};
use serde::{Deserialize, Serialize};

use super::check::{self, Checked, Fault, count, distinct_keys, ensure, filled, name, not_negative, positive, share};
use super::study::{self, Study};
use super::{RecipeError, is_no, read_checked};

/// An experiment on pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureRecipe {
    /// `pictures`.
    pub kind: Kind,
    /// What results and checkpoints are called: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it shows. Default: nothing.
    #[serde(default)]
    pub description: String,
    /// Of all random choices. Default: 1.
    #[serde(default = "default_seed")]
    pub seed: u64,
    pub data: PictureData,
    #[serde(default)]
    pub model: PictureModel,
    #[serde(default)]
    pub train: PictureTraining,
    /// What `lapidary study` tries. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<Study>,
}

/// The kind of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Pictures,
}

/// The pictures. Files are paths, or names below `$LAPIDARY_DATA`: a folder or an archive (`.tar`, `.tar.zst`) with a
/// folder for each class, or one of CIFAR-10's binary files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureData {
    pub train: String,
    /// The folder within it that holds the classes. Default: none.
    #[serde(default)]
    pub train_part: String,
    pub test: String,
    /// As for training.
    #[serde(default)]
    pub test_part: String,
    /// Pictures of the training part at most, as many of each class. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<usize>,
    /// Pictures kept from training, on which settings and checkpoints are chosen, as many of each class. Default: 1000.
    #[serde(default = "default_validation")]
    pub validation: usize,
    /// Black pixels around a picture, out of which training cuts one of the old size. Default: 4.
    #[serde(default = "default_padding")]
    pub padding: usize,
    /// Whether training mirrors every second picture. Default: yes.
    #[serde(default = "default_mirror")]
    pub mirror: bool,
}

/// A residual network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PictureModel {
    /// Layers with weights: 8, 20, 32, 44, 56 or any other `6n + 2`. Default: 20.
    pub layers: usize,
    /// Around the blocks where size and channels change: `padded`, or `projected` for a convolution. Default: `padded`.
    pub shortcut: ShortcutName,
}

/// See [`Shortcut`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShortcutName {
    #[default]
    Padded,
    Projected,
}

impl PictureModel {
    /// The sizes for so many classes.
    ///
    /// # Errors
    /// A number of layers that is not `6n + 2`.
    pub fn config(&self, classes: usize) -> Result<ResNetConfig, lapidary_models::ModelError> {
        let shortcut = match self.shortcut {
            ShortcutName::Padded => Shortcut::Padded,
            ShortcutName::Projected => Shortcut::Projected,
        };
        Ok(ResNetConfig { classes, ..ResNetConfig::cifar10(self.layers, shortcut)? })
    }
}

/// Training, `lapidary run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PictureTraining {
    /// How often all pictures are shown. Default: 100.
    pub epochs: usize,
    /// Pictures a step. Default: 128.
    pub batch_size: usize,
    /// Micro-batches that a step is made of, shared out to the ranks of an MPI job. Default: 1, or one a rank.
    pub accumulate: usize,
    /// Whether batch norm takes the statistics of all of a step, and not of each part's alone; wants a rank for each part.
    /// Default: no.
    #[serde(skip_serializing_if = "is_no")]
    pub sync_batch_norm: bool,
    /// Of the matrix products, `f32` or `bf16`; convolutions are f32. Default: `f32`.
    pub precision: Precision,
    /// Longest gradient, in the 2-norm; 0 for any length. Default: 0.
    pub clip: f64,
    /// Whether the noise scale of the gradient is measured, which says up to what size of batch a larger one pays. Wants
    /// `accumulate` of two or more. Default: no.
    pub noise_scale: bool,
    /// Epochs between two looks at the kept pictures, and between saved states. Default: 1.
    pub evaluate_every: usize,
    /// The trainings, `[[train.variant]]`. Default: none.
    #[serde(rename = "variant")]
    pub variants: Vec<PictureVariant>,
}

/// One training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureVariant {
    /// What results call it.
    pub name: String,
    /// `{ kind = "sgd" }`, `adamw` or `kfac`, with its settings.
    pub optimizer: OptimizerOptions,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which the rate rises, 0 to 1. Default: 0.05.
    #[serde(default = "default_warmup")]
    pub warmup: f64,
    /// After that: `steps` (a tenth after 40 % and again after 80 %), `cosine`, `linear` or `constant`. Default: `steps`.
    #[serde(default = "default_decay")]
    pub decay: Decay,
}

fn default_seed() -> u64 {
    1
}

fn default_validation() -> usize {
    1000
}

fn default_padding() -> usize {
    4
}

fn default_mirror() -> bool {
    true
}

fn default_warmup() -> f64 {
    0.05
}

fn default_decay() -> Decay {
    Decay::Steps
}

impl Default for PictureModel {
    fn default() -> Self {
        Self { layers: 20, shortcut: ShortcutName::Padded }
    }
}

impl Default for PictureTraining {
    fn default() -> Self {
        Self {
            epochs: 100,
            batch_size: 128,
            accumulate: 1,
            sync_batch_norm: false,
            precision: Precision::F32,
            clip: 0.0,
            noise_scale: false,
            evaluate_every: 1,
            variants: Vec::new(),
        }
    }
}

impl PictureRecipe {
    /// As [`Recipe::read`](super::Recipe::read).
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        read_checked(path, overrides, check)
    }
}

fn check(recipe: &PictureRecipe) -> Checked {
    name("name", &recipe.name)?;
    filled("data.train", &recipe.data.train)?;
    filled("data.test", &recipe.data.test)?;
    count("data.validation", recipe.data.validation, 1..=check::MANY)?;
    count("data.pictures", recipe.data.pictures.unwrap_or(1), 1..=check::MANY)?;
    count("data.padding", recipe.data.padding, 0..=1024)?;
    let fault = |message| Fault { key: "model.layers".to_owned(), message };
    recipe.model.config(10).map_err(|error| fault(error.to_string()))?;
    let train = &recipe.train;
    count("train.epochs", train.epochs, 1..=1_000_000)?;
    count("train.batch_size", train.batch_size, 1..=check::MANY)?;
    count("train.accumulate", train.accumulate, 1..=train.batch_size)?;
    ensure("train.accumulate", train.batch_size.is_multiple_of(train.accumulate), || {
        format!("should divide the batch size of {}, is {}", train.batch_size, train.accumulate)
    })?;
    check::noise_scale("train", train.noise_scale, train.accumulate)?;
    not_negative("train.clip", train.clip)?;
    count("train.evaluate_every", train.evaluate_every, 1..=check::MANY)?;
    for (index, variant) in train.variants.iter().enumerate() {
        let key = |field: &str| format!("train.variant.{index}.{field}");
        name(&key("name"), &variant.name)?;
        positive(&key("learning_rate"), variant.learning_rate)?;
        share(&key("warmup"), variant.warmup)?;
        optimizer(&key("optimizer"), &variant.optimizer)?;
    }
    distinct_keys("train.variant", train.variants.iter().map(|variant| &variant.name))?;
    recipe.study.as_ref().map_or(Ok(()), study::check)
}

/// Values that an optimizer cannot have.
pub(super) fn optimizer(key: &str, options: &OptimizerOptions) -> Checked {
    let at = |field: &str| format!("{key}.{field}");
    let below_one = |field: &str, value: f64| {
        share(&at(field), value)?;
        ensure(&at(field), value < 1.0, || "should be below 1".to_owned())
    };
    match options {
        OptimizerOptions::AdamW(adamw) => {
            below_one("beta1", adamw.beta1)?;
            below_one("beta2", adamw.beta2)?;
            positive(&at("eps"), adamw.eps)?;
            not_negative(&at("weight_decay"), adamw.weight_decay)
        }
        OptimizerOptions::Sgd(sgd) => {
            below_one("momentum", sgd.momentum)?;
            not_negative(&at("weight_decay"), sgd.weight_decay)
        }
        OptimizerOptions::Kfac(kfac) => {
            positive(&at("damping"), kfac.damping)?;
            below_one("decay", kfac.decay)?;
            not_negative(&at("norm_constraint"), kfac.norm_constraint)?;
            share(&at("gradient_workers"), kfac.gradient_workers)?;
            count(&at("factors.every"), kfac.factors.every, 1..=u64::MAX)?;
            count(&at("inverses.every"), kfac.inverses.every, 1..=u64::MAX)?;
            below_one("sgd.momentum", kfac.sgd.momentum)?;
            not_negative(&at("sgd.weight_decay"), kfac.sgd.weight_decay)?;
            match kfac.damping_rule.fault() {
                Some(message) => Err(Fault { key: at("damping_rule"), message }),
                None => Ok(()),
            }
        }
    }
}
