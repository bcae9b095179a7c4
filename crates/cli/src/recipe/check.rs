//! Values that have the right type and still make no sense.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use lapidary_train::OptimizerOptions;

use super::{Bits, Curvature, Data, Finetune, Format, Model, Quantize, Recipe, Variant};

/// A value that cannot be used.
#[derive(Debug)]
pub struct Fault {
    /// Its path, with numbers for the elements of arrays.
    pub key: String,
    pub message: String,
}

pub type Checked = Result<(), Fault>;

/// More than any machine has, and far from where products of counts overflow.
pub const MANY: usize = 1_000_000_000;

/// Checks everything that can be told from the recipe alone.
pub fn check(recipe: &Recipe) -> Checked {
    name("name", &recipe.name)?;
    ensure("seeds", !recipe.seeds.is_empty(), || "should have at least one seed".to_owned())?;
    distinct("seeds", &recipe.seeds)?;
    model(&recipe.model, recipe.data.format)?;
    data(&recipe.data)?;
    finetune(&recipe.finetune)?;
    curvature(&recipe.curvature)?;
    quantize(&recipe.quantize)
}

fn model(model: &Model, format: Format) -> Checked {
    filled("model.checkpoint", &model.checkpoint)?;
    let labels = &model.labels;
    ensure("model.labels", labels.len() >= 2 || !format.is_table(), || {
        format!("should name two classes or more, names {}", labels.len())
    })?;
    ensure("model.labels", labels.is_empty() || format != Format::Squad, || {
        "answers in passages have no classes: leave it out".to_owned()
    })?;
    for (index, label) in labels.iter().enumerate() {
        filled(&format!("model.labels.{index}"), label)?;
    }
    distinct("model.labels", labels)
}

fn data(data: &Data) -> Checked {
    for (key, files) in [("data.train", Some(&data.train)), ("data.validation", data.validation.as_ref())] {
        let Some(files) = files else { continue };
        ensure(key, !files.names().is_empty(), || "should name a file".to_owned())?;
        for file in files.names() {
            filled(key, file)?;
        }
    }
    filled("data.dev", &data.dev)?;
    let table = data.format.is_table();
    for (key, column, needed) in
        [("data.text", &data.text, true), ("data.label", &data.label, true), ("data.pair", &data.pair, false)]
    {
        match column {
            Some(column) => {
                ensure(key, table, || "only tables have columns by name: leave it out".to_owned())?;
                filled(key, column)?;
            }
            None => ensure(key, !(table && needed), || "is missing: name a column of the table".to_owned())?,
        }
    }
    if let Some(rows) = data.validation_rows {
        ensure("data.validation_rows", data.validation.is_none(), || {
            "says how many training rows to keep out, and data.validation names files: leave one of them out".to_owned()
        })?;
        count("data.validation_rows", rows, 1..=MANY)?;
    }
    for (key, length, format) in
        [("data.stride", data.stride, Format::Squad), ("data.question_length", data.question_length, Format::Squad)]
    {
        ensure(key, length.is_none() || data.format == format, || "only passages have it: leave it out".to_owned())?;
    }
    ensure("data.columns", data.columns.is_none() || data.format == Format::Conll, || {
        "is for the columns of CoNLL: leave it out".to_owned()
    })?;
    let lengths = data.lengths();
    // Two special tokens and one of the text.
    count("data.max_length", lengths.max_length, 3..=1_000_000)?;
    if data.format == Format::Squad {
        count("data.question_length", lengths.question_length, 1..=MANY)?;
        // Three special tokens; a window has to move on.
        let room = lengths.max_length.saturating_sub(3).saturating_sub(lengths.question_length);
        ensure("data.stride", lengths.stride < room, || {
            format!(
                "should be below the {room} tokens that {} leave a passage beside a question of {}, is {}",
                lengths.max_length, lengths.question_length, lengths.stride
            )
        })?;
    }
    Ok(())
}

fn finetune(finetune: &Finetune) -> Checked {
    count("finetune.epochs", finetune.epochs, 1..=100_000)?;
    let Finetune { batch_size, accumulate, learning_rate, warmup, weight_decay, clip, evaluate_every, .. } = *finetune;
    Training { batch_size, learning_rate, warmup, weight_decay, clip, evaluate_every }.check("finetune")?;
    count("finetune.accumulate", accumulate, 1..=batch_size)?;
    ensure("finetune.accumulate", batch_size % accumulate == 0, || {
        format!("should divide the batch size of {batch_size}, is {accumulate}")
    })?;
    noise_scale("finetune", finetune.noise_scale, accumulate)?;
    let own = Finetune::default().weight_decay;
    optimizer("finetune", finetune.optimizer.as_ref(), weight_decay != own)?;
    dropout("finetune.dropout", finetune.dropout)?;
    count("finetune.bucket_batches", finetune.bucket_batches, 1..=1_000_000)?;
    count("finetune.keep", finetune.keep, 1..=MANY)
}

/// What all trainings have.
pub struct Training {
    pub batch_size: usize,
    pub learning_rate: f64,
    pub warmup: f64,
    pub weight_decay: f64,
    pub clip: f64,
    pub evaluate_every: usize,
}

impl Training {
    /// Checks the settings of a section of the recipe.
    pub fn check(&self, section: &str) -> Checked {
        let key = |field: &str| format!("{section}.{field}");
        count(&key("batch_size"), self.batch_size, 1..=1_000_000)?;
        positive(&key("learning_rate"), self.learning_rate)?;
        share(&key("warmup"), self.warmup)?;
        not_negative(&key("weight_decay"), self.weight_decay)?;
        positive(&key("clip"), self.clip)?;
        count(&key("evaluate_every"), self.evaluate_every, 1..=MANY)
    }
}

/// Whether the noise of the gradient can be measured.
pub fn noise_scale(section: &str, measured: bool, accumulate: usize) -> Checked {
    ensure(&format!("{section}.noise_scale"), !measured || accumulate > 1, || {
        format!("is measured between the micro-batches of a step: set {section}.accumulate to 2 or more")
    })
}

/// An optimizer that a section may name, and its weight decay, which is set beside it or not.
pub fn optimizer(section: &str, options: Option<&OptimizerOptions>, decays: bool) -> Checked {
    let Some(options) = options else { return Ok(()) };
    ensure(&format!("{section}.weight_decay"), !decays, || {
        format!("is part of {section}.optimizer where there is one: set it there")
    })?;
    super::pictures::optimizer(&format!("{section}.optimizer"), options)
}

pub fn dropout(key: &str, value: f64) -> Checked {
    share(key, value)?;
    ensure(key, value < 1.0, || "should be below 1: nothing would be left".to_owned())
}

fn curvature(curvature: &Curvature) -> Checked {
    count("curvature.samples", curvature.samples, 1..=100_000)?;
    count("curvature.examples", curvature.examples, 1..=MANY)?;
    count("curvature.iterations", curvature.iterations, 1..=1_000_000)?;
    positive("curvature.tolerance", curvature.tolerance)?;
    count("curvature.batch_size", curvature.batch_size, 1..=1_000_000)
}

fn quantize(quantize: &Quantize) -> Checked {
    count("quantize.groups", quantize.groups, 1..=MANY)?;
    count("quantize.embedding_bits", quantize.embedding_bits, 2..=8)?;
    let bits = quantize.activation_bits;
    ensure("quantize.activation_bits", matches!(bits, 2..=8 | 32), || {
        format!("should be 2 to 8, or 32 for activations that are not cut, is {bits}")
    })?;
    for (index, variant) in quantize.variants.iter().enumerate() {
        let key = |field: &str| format!("quantize.variant.{index}.{field}");
        check_variant(variant, key)?;
        let taken = quantize.variants[..index].iter().any(|other| other.name == variant.name);
        ensure(&key("name"), !taken, || format!("`{}` names two variants", variant.name))?;
    }
    Ok(())
}

fn check_variant(variant: &Variant, key: impl Fn(&str) -> String) -> Checked {
    name(&key("name"), &variant.name)?;
    match (variant.bits, variant.high_layers) {
        (Bits::Mixed { .. }, None) => {
            return Err(fault(
                &key("high_layers"),
                "is missing: with mixed bits, how many layers get the more".to_owned(),
            ));
        }
        (Bits::Uniform(bits), Some(_)) => {
            return Err(fault(&key("high_layers"), format!("is only for mixed bits, and all layers get {bits}")));
        }
        (Bits::Mixed { .. }, Some(layers)) => count(&key("high_layers"), layers, 1..=1_000_000)?,
        (Bits::Uniform(_), None) => {}
    }
    count(&key("steps"), variant.steps, 1..=MANY)?;
    positive(&key("learning_rate"), variant.learning_rate)?;
    count(&key("batch_size"), variant.batch_size, 1..=1_000_000)
}

fn fault(key: &str, message: String) -> Fault {
    Fault { key: key.to_owned(), message }
}

pub fn ensure(key: &str, holds: bool, message: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(fault(key, message())) }
}

pub fn count<T: PartialOrd + Display>(key: &str, value: T, range: RangeInclusive<T>) -> Checked {
    ensure(key, range.contains(&value), || format!("should be {} to {}, is {value}", range.start(), range.end()))
}

pub fn positive(key: &str, value: f64) -> Checked {
    ensure(key, value > 0.0 && value.is_finite(), || format!("should be a positive number, is {value}"))
}

pub fn not_negative(key: &str, value: f64) -> Checked {
    ensure(key, value >= 0.0 && value.is_finite(), || format!("should be zero or a positive number, is {value}"))
}

pub fn share(key: &str, value: f64) -> Checked {
    ensure(key, (0.0..=1.0).contains(&value), || format!("should be a share, 0 to 1, is {value}"))
}

pub fn filled(key: &str, value: &str) -> Checked {
    ensure(key, !value.trim().is_empty(), || "is empty".to_owned())
}

pub fn distinct<T: Eq + std::hash::Hash + Display>(key: &str, values: &[T]) -> Checked {
    let mut seen = HashSet::new();
    match values.iter().find(|value| !seen.insert(*value)) {
        Some(twice) => Err(fault(key, format!("has `{twice}` twice"))),
        None => Ok(()),
    }
}

/// What a name is in the keys of a result.
pub fn metric_key(name: &str) -> String {
    name.replace(['-', '.'], "_").to_lowercase()
}

/// Names that stay apart in the keys of a result, where case and some signs do not count.
pub fn distinct_keys<S: AsRef<str>>(key: &str, names: impl IntoIterator<Item = S>) -> Checked {
    let keys: Vec<String> = names.into_iter().map(|name| metric_key(name.as_ref())).collect();
    distinct(key, &keys)
}

/// Names become those of files, folders and metrics.
pub fn name(key: &str, value: &str) -> Checked {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let usable = !value.is_empty() && value.len() <= 100 && value.chars().all(plain) && !value.starts_with('.');
    ensure(key, usable, || {
        format!("should be 1 to 100 letters, digits, `-`, `_` and `.`, not first a `.`, is {value:?}")
    })
}
