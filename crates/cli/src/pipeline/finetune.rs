//! The first stage: the pretrained model learns the task in f32.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Device;
use lapidary_data::BatchOptions;
use lapidary_models::checkpoint::{Checkpoint, Component, FolderContents, Summary, TensorSource, write_folder};
use lapidary_models::load::{export, load};
use lapidary_models::objective::Classification;
use lapidary_quant::megabytes;
use lapidary_train::{AdamWOptions, BatchSource, EpochBatches, MetricsRow, Schedule, TrainOptions, train};
use serde::{Deserialize, Serialize};

use super::evaluate::{Scored, score, validator};
use super::{ModelSource, Run, report};
use crate::stage::{Inputs, Stage};

/// What fine-tuning leaves for the stages after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finetuned {
    /// The main score on the validation part, and its step.
    pub validation: (f64, u64),
    /// Scores on the test part.
    pub test: Scored,
    /// Size of the tensors, MB of 2^20 bytes.
    pub size_mb: f64,
    /// The same without the tables of vectors.
    pub size_mb_without_embeddings: f64,
    /// Tensors that began fresh.
    pub fresh: Vec<String>,
    /// Tensors of the pretrained checkpoint without use here.
    pub extra: Vec<String>,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had held by then.
    #[serde(default)]
    pub peak_rss_bytes: u64,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// A finished stage with the checkpoint that it wrote.
pub struct Checkpointed {
    /// The stage.
    pub stage: Stage,
    /// The checkpoint.
    pub folder: PathBuf,
}

/// Fine-tunes with one seed, or finds it done.
pub fn finetune<S: ModelSource>(run: &Run, source: &S, seed: u64) -> anyhow::Result<(Checkpointed, Finetuned)> {
    let settings = &run.recipe.finetune;
    let mut inputs = Inputs::new(&serde_json::json!({
        "finetune": settings,
        "labels": run.examples.task.labels(),
        "data": run.recipe.data,
        "seed": seed,
        "config": source.config(),
    }))?
    .on(run.device);
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
        return Ok((Checkpointed { stage, folder: checkpoint }, done));
    }
    stage.begin()?;

    let (model, unshared) = source.build(seed, &run.device.clone().autodiff())?;
    let pad_id = run.examples.tokenizer.pad_id()?;
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
        optimizer: settings
            .optimizer
            .unwrap_or_else(|| AdamWOptions { weight_decay: settings.weight_decay, ..AdamWOptions::default() }.into()),
        accumulate: accumulate as u64,
        clip: settings.clip,
        dropout: settings.dropout as f32,
        precision: settings.precision,
        seed,
        evaluate_every: settings.evaluate_every as u64,
        save_every: settings.evaluate_every as u64,
        keep: settings.keep,
        noise_scale: settings.noise_scale,
        sync_batch_norm: false,
    };
    let mut validate = validator(run);
    let trained = train(
        model,
        &Classification,
        &batches,
        &mut |model| validate(&model.valid()),
        &options,
        &stage.path().join("training"),
        run.interrupt,
    )?;
    drop(validate);
    let test = score(&trained.model.valid(), &run.examples.test, run)?;
    let card = format!(
        "# {}, fine-tuned\n\nSeed {seed}, {total} steps; {} on the validation part {:.2} % at step {}.\n",
        run.recipe.name,
        report::metric(&test.main.name).to_lowercase(),
        trained.best.0,
        trained.best.1
    );
    save_dense(&trained.model, source, &checkpoint, &card, run)?;
    let summary = Summary::of(&Checkpoint::open(&checkpoint)?)?;
    let done = Finetuned {
        validation: trained.best,
        test,
        size_mb: megabytes(summary.bytes),
        size_mb_without_embeddings: megabytes(summary.bytes_without(Component::Embeddings)),
        fresh: unshared.fresh,
        extra: unshared.extra,
        seconds: trained.seconds,
        peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
        curve: trained.rows,
    };
    stage.finish(&done)?;
    Ok((Checkpointed { stage, folder: checkpoint }, done))
}

/// Writes a model as a checkpoint folder in f32.
fn save_dense<S: ModelSource>(
    model: &S::Model,
    source: &S,
    path: &std::path::Path,
    card: &str,
    run: &Run,
) -> anyhow::Result<()> {
    let config = &source.config();
    let tensors =
        export(model).into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect();
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: card })?;
    run.examples.tokenizer.save(path)?;
    Ok(())
}

/// Reads a checkpoint that an earlier stage wrote.
pub fn reload<S: ModelSource>(source: &S, path: &std::path::Path, device: &Device) -> anyhow::Result<S::Model> {
    let (model, _) = source.build(0, device)?;
    Ok(load(model, &Checkpoint::open(path)?)?.0)
}
