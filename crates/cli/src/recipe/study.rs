//! The `[study]` of a recipe for pictures: how optimizers take to larger batches, each tuned anew at each size.

use lapidary_train::{Decay, OptimizerOptions};
use serde::{Deserialize, Serialize};

use super::check::{self, Checked, count, distinct, distinct_keys, ensure, name, not_negative, positive};
use super::pictures::optimizer;

/// What is tried, and how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Pictures a step.
    pub batch_sizes: Vec<usize>,
    /// `random`, points that fill the space evenly, or `grid`. Default: `random`.
    #[serde(default)]
    pub search: Search,
    /// Settings of each optimizer at each size of batch. A grid has `settings` points along a single axis, and the root
    /// of it along each of two.
    pub settings: usize,
    /// Epochs at the smallest batch. Larger ones get as many more for each doubling as `epochs_per_doubling` says.
    pub epochs: f64,
    /// Default: as many as `epochs`, as in Ma et al., 1903.06237: `epochs · (1 + log2(B / B0))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs_per_doubling: Option<f64>,
    /// Steps of one training at most. Default: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_steps: Option<u64>,
    /// How learning rates grow with the batch, before the search: `none`, `linear` or `root`. Default: `root`.
    #[serde(default)]
    pub scaling: Scaling,
    /// Epochs in which the rate rises. Default: 0.5.
    #[serde(default = "default_warmup")]
    pub warmup_epochs: f64,
    /// As in `[[train.variant]]`. Default: `cosine`.
    #[serde(default = "default_decay")]
    pub decay: Decay,
    /// Of the mean over a fixed sample of the training pictures, in nats: steps are counted until it is reached.
    pub target_loss: f64,
    /// On the kept pictures, in per cent. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_accuracy: Option<f64>,
    /// Whether a training ends where its targets are reached. Default: yes.
    #[serde(default = "default_stop")]
    pub stop_at_targets: bool,
    /// Trainings of the best setting of each size with seeds of their own, the first one included. Default: 3.
    #[serde(default = "default_seeds")]
    pub seeds: usize,
    /// Looks at loss and accuracy an epoch. Default: 2.
    #[serde(default = "default_looks")]
    pub looks: usize,
    /// Whether the repeated trainings measure the noise scale of the gradient, in two halves of each batch. Default: yes.
    #[serde(default = "default_noise")]
    pub noise_scale: bool,
    /// The optimizers, `[[study.optimizer]]`.
    #[serde(rename = "optimizer")]
    pub optimizers: Vec<StudiedOptimizer>,
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    #[default]
    Random,
    Grid,
}

/// What is done to learning rates for a larger batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    None,
    Linear,
    #[default]
    Root,
}

impl Scaling {
    /// The factor for a batch of `times` as many.
    pub fn factor(self, times: f64) -> f64 {
        match self {
            Self::None => 1.0,
            Self::Linear => times,
            Self::Root => times.sqrt(),
        }
    }
}

/// An optimizer and what of it is searched for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudiedOptimizer {
    /// What results call it.
    pub name: String,
    /// As in `[[train.variant]]`: what is not searched for.
    pub optimizer: OptimizerOptions,
    /// At the smallest batch.
    pub learning_rate: Span,
    /// Of K-FAC. Default: that of `optimizer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damping: Option<Span>,
}

/// Searched on a logarithmic scale, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub from: f64,
    pub to: f64,
}

impl Span {
    /// At a share of the way.
    pub fn at(self, share: f64) -> f64 {
        self.from * (self.to / self.from).powf(share)
    }
}

impl Study {
    /// Epochs of a training, for a batch of `times` as many as the smallest.
    pub fn epochs_for(&self, times: f64) -> f64 {
        self.epochs + self.epochs_per_doubling.unwrap_or(self.epochs) * times.log2()
    }
}

fn default_warmup() -> f64 {
    0.5
}

fn default_decay() -> Decay {
    Decay::Cosine
}

fn default_stop() -> bool {
    true
}

fn default_seeds() -> usize {
    3
}

fn default_looks() -> usize {
    2
}

fn default_noise() -> bool {
    true
}

pub(super) fn check(study: &Study) -> Checked {
    ensure("study.batch_sizes", !study.batch_sizes.is_empty(), || "should have one at least".to_owned())?;
    for (index, size) in study.batch_sizes.iter().enumerate() {
        count(&format!("study.batch_sizes.{index}"), *size, 1..=check::MANY)?;
    }
    distinct("study.batch_sizes", &study.batch_sizes)?;
    count("study.settings", study.settings, 1..=1_000_000)?;
    positive("study.epochs", study.epochs)?;
    not_negative("study.epochs_per_doubling", study.epochs_per_doubling.unwrap_or(0.0))?;
    count("study.most_steps", study.most_steps.unwrap_or(1), 1..=u64::MAX)?;
    not_negative("study.warmup_epochs", study.warmup_epochs)?;
    positive("study.target_loss", study.target_loss)?;
    let accuracy = study.target_accuracy.unwrap_or(50.0);
    ensure("study.target_accuracy", accuracy > 0.0 && accuracy <= 100.0, || {
        format!("should be per cent, above 0 to 100, is {accuracy}")
    })?;
    count("study.seeds", study.seeds, 1..=1000)?;
    count("study.looks", study.looks, 1..=10_000)?;
    ensure("study.optimizer", !study.optimizers.is_empty(), || "should have one at least".to_owned())?;
    for (index, studied) in study.optimizers.iter().enumerate() {
        let key = |field: &str| format!("study.optimizer.{index}.{field}");
        name(&key("name"), &studied.name)?;
        optimizer(&key("optimizer"), &studied.optimizer)?;
        span(&key("learning_rate"), studied.learning_rate)?;
        if let Some(damping) = studied.damping {
            let is_kfac = matches!(studied.optimizer, OptimizerOptions::Kfac(_));
            ensure(&key("damping"), is_kfac, || "only K-FAC has it: leave it out".to_owned())?;
            span(&key("damping"), damping)?;
        }
        if study.search == Search::Grid && studied.damping.is_some() {
            let side = study.settings.isqrt();
            ensure("study.settings", side * side == study.settings, || {
                format!("should be a square for a grid over learning rate and damping, is {}", study.settings)
            })?;
        }
    }
    distinct_keys("study.optimizer", study.optimizers.iter().map(|studied| &studied.name))
}

fn span(key: &str, span: Span) -> Checked {
    positive(&format!("{key}.from"), span.from)?;
    positive(&format!("{key}.to"), span.to)?;
    ensure(key, span.from <= span.to, || {
        format!("should go from the smaller to the larger, is {} to {}", span.from, span.to)
    })
}
