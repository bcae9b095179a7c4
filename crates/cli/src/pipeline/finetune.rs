//! The first stage: the pretrained model learns the task in f32.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use lapidary_data::BatchOptions;
use lapidary_models::checkpoint::{Checkpoint, FolderContents, TensorSource, write_folder};
use lapidary_models::load::{export, load};
use lapidary_models::objective::Classification;
use lapidary_train::{AdamWOptions, BatchSource, EpochBatches, MetricsRow, Schedule, TrainOptions, train};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::evaluate::accuracy;
use super::{ModelSource, Run};
use crate::stage::{Inputs, Stage};

/// What fine-tuning leaves for the stages after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finetuned {
    /// Accuracy on the validation part, and its step.
    pub validation: (f64, u64),
    /// Tensors that began fresh.
    pub fresh: Vec<String>,
    /// Tensors of the pretrained checkpoint without use here.
    pub extra: Vec<String>,
    /// Seconds of training.
    pub seconds: f64,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// Fine-tunes with one seed, or finds it done; gives the stage, its outcome and the checkpoint's folder.
pub fn finetune<S: ModelSource>(run: &Run, source: &S, seed: u64) -> anyhow::Result<(Stage, Finetuned, PathBuf)> {
    let settings = &run.recipe.finetune;
    let mut inputs = Inputs::new(&serde_json::json!({
        "finetune": settings,
        "labels": run.recipe.model.labels,
        "data": run.recipe.data,
        "seed": seed,
        "config": source.config(),
    }))?;
    for (role, path) in &run.examples.files {
        inputs = inputs.file(role, path);
    }
    if let Some(folder) = source.folder() {
        inputs = inputs.file("checkpoint", folder);
    }
    let stage = run.folder.stage(&format!("seed{seed}/finetune"), &inputs)?;
    let checkpoint = stage.path().join("model");
    if let Some(done) = stage.done::<Finetuned>()? {
        tracing::info!("{}: done before, validation {:.2} %", stage.name(), done.validation.0);
        return Ok((stage, done, checkpoint));
    }
    stage.begin()?;

    let (model, unshared) = source.build(seed, &Device::flex().autodiff())?;
    let pad_id = run.examples.tokenizer.pad_id();
    let accumulate = settings.accumulate;
    let options = BatchOptions {
        batch_size: NonZeroUsize::new(settings.batch_size / accumulate).context("finetune.batch_size is 0")?,
        bucket_batches: NonZeroUsize::new(settings.bucket_batches).context("finetune.bucket_batches is 0")?,
        seed,
    };
    let batches = EpochBatches::new(&run.examples.train, options, pad_id)?;
    let total = (batches.per_epoch() * settings.epochs as u64).div_ceil(accumulate as u64);
    let options = TrainOptions {
        name: format!("seed {seed} fine-tune"),
        schedule: Schedule::new(settings.learning_rate, settings.warmup, total),
        optimizer: AdamWOptions { weight_decay: settings.weight_decay, ..AdamWOptions::default() },
        accumulate: accumulate as u64,
        clip: settings.clip,
        dropout: settings.dropout as f32,
        seed,
        evaluate_every: settings.evaluate_every as u64,
        save_every: settings.evaluate_every as u64,
        keep: settings.keep,
    };
    let classes = source.labels().len();
    let mut failed = None;
    let trained = train(
        model,
        &Classification,
        &batches,
        &mut |model| {
            let measured = accuracy(&model.valid(), &run.examples.validation, pad_id, classes);
            Ok(measured.map_or_else(
                |error| {
                    failed.get_or_insert(error);
                    f64::NEG_INFINITY
                },
                |accuracy| accuracy.percent(),
            ))
        },
        &options,
        &stage.path().join("training"),
        run.interrupt,
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    let card = format!(
        "# {}, fine-tuned\n\nSeed {seed}, {total} steps; validation accuracy {:.2} % at step {}.\n",
        run.recipe.name, trained.best.0, trained.best.1
    );
    save_dense(&trained.model, source, &source.config(), &checkpoint, &card, run)?;
    let done = Finetuned {
        validation: trained.best,
        fresh: unshared.fresh,
        extra: unshared.extra,
        seconds: trained.seconds,
        curve: trained.rows,
    };
    stage.finish(&done)?;
    Ok((stage, done, checkpoint))
}

/// Writes a model as a checkpoint folder in f32.
fn save_dense<S: ModelSource>(
    model: &S::Model,
    _source: &S,
    config: &Map<String, Value>,
    path: &std::path::Path,
    card: &str,
    run: &Run,
) -> anyhow::Result<()> {
    let exported = export(model);
    let tensors =
        exported.into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect();
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: card })?;
    run.examples.tokenizer.save(path)?;
    Ok(())
}

/// Reads a checkpoint that an earlier stage wrote.
pub fn reload<S: ModelSource>(source: &S, path: &std::path::Path, device: &Device) -> anyhow::Result<S::Model> {
    let (model, _) = source.build(0, device)?;
    Ok(load(model, &Checkpoint::open(path)?)?.0)
}
