//! A stage for each variant: trained, then measured on the test.

use std::num::NonZeroUsize;

use anyhow::{Context, ensure};
use burn::module::Module;
use lapidary_data::BatchOptions;
use lapidary_models::checkpoint::{FolderContents, TensorSource, write_folder};
use lapidary_models::load::export;
use lapidary_models::objective::PictureClassification;
use lapidary_models::parameters;
use lapidary_models::resnet::ResNet;
use lapidary_train::optimizer::Block;
use lapidary_train::study::Seen;
use lapidary_train::{MetricsRow, PictureBatches, Schedule, TrainOptions, Training, train_among};
use serde::{Deserialize, Serialize};

use super::{PictureRun, data};
use crate::recipe::PictureVariant;
use crate::stage::{Inputs, Stage};
use crate::together;

/// What a training gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trained {
    /// What results call it.
    pub name: String,
    /// Its optimizer, as people call it.
    pub optimizer: String,
    /// Of the network.
    pub parameters: u64,
    /// Steps of training.
    pub steps: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Of the test, in per cent, at the step that was best on the kept pictures.
    pub accuracy: f64,
    /// Of the test, in nats.
    pub loss: f64,
    /// On the kept pictures at that step, in per cent.
    pub kept_accuracy: f64,
    /// That step.
    pub best_step: u64,
    /// The noise scale of the gradient at the end, in pictures, if it was measured.
    pub noise_scale: Option<f64>,
    /// Of K-FAC, which block each parameter had.
    pub blocks: Vec<(String, Block)>,
    /// The most memory that the process had held by then.
    pub peak_rss_bytes: u64,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// Trains a variant, or finds it trained. The stage's folder has the checkpoint `model`.
pub fn train(run: &PictureRun, variant: &PictureVariant) -> anyhow::Result<Trained> {
    let (recipe, settings, pictures) = (run.recipe, &run.recipe.train, run.pictures);
    let parts = together::parts(run.ranks, "train", settings.batch_size, settings.accumulate)?;
    let mut shared = serde_json::to_value(settings)?;
    if let Some(fields) = shared.as_object_mut() {
        fields.remove("variant");
        // How many ranks there were is nothing to a training, but for the parts of its steps.
        fields.insert("accumulate".into(), parts.into());
    }
    let inputs = Inputs::new(&serde_json::json!({
        "data": data::settings(recipe, pictures),
        "model": recipe.model,
        "train": shared,
        "variant": variant,
        "seed": recipe.seed,
    }))?;
    let stage = run.folder.stage(&format!("train/{}", variant.name), &inputs.on(run.device))?;
    if let Some(done) = together::begin::<Trained>(run.ranks, &stage)? {
        tracing::info!("{}: done before", stage.name());
        return Ok(done);
    }

    ensure!(
        settings.batch_size <= pictures.train.len(),
        "train.batch_size is {}, and there are {} pictures to train on: lower it",
        settings.batch_size,
        pictures.train.len()
    );
    let options = BatchOptions {
        batch_size: NonZeroUsize::new(settings.batch_size / parts).context("train.batch_size is 0")?,
        bucket_batches: NonZeroUsize::MIN,
        seed: recipe.seed,
    };
    let batches = PictureBatches::new(&pictures.train, pictures.normalization, pictures.augmentation, options)?;
    let an_epoch = pictures.train.len().div_ceil(settings.batch_size) as u64;
    let total = an_epoch * settings.epochs as u64;
    let options = TrainOptions {
        name: variant.name.clone(),
        schedule: Schedule::new(variant.learning_rate, variant.warmup, total).with_decay(variant.decay),
        optimizer: variant.optimizer,
        accumulate: parts as u64,
        clip: settings.clip,
        precision: settings.precision,
        dropout: 0.0,
        seed: recipe.seed,
        evaluate_every: an_epoch * settings.evaluate_every as u64,
        save_every: an_epoch * settings.evaluate_every as u64,
        keep: 1,
        noise_scale: settings.noise_scale,
        sync_batch_norm: settings.sync_batch_norm,
    };
    let fresh = data::fresh(recipe, pictures, recipe.seed, run.device)?;
    let trained = train_among(
        fresh,
        &Training { objective: &PictureClassification, source: &batches, options: &options, ranks: run.ranks },
        &mut |model: &ResNet| Ok(pictures.evaluate(&model.valid(), &pictures.kept)?.accuracy),
        &stage.path().join("training"),
        run.interrupt,
    )?;
    together::finish(run.ranks, &stage, || finish(run, variant, &stage, total, trained))
}

/// Measures what was trained, and writes it.
fn finish(
    run: &PictureRun,
    variant: &PictureVariant,
    stage: &Stage,
    total: u64,
    trained: lapidary_train::Trained<ResNet>,
) -> anyhow::Result<Trained> {
    let (recipe, pictures) = (run.recipe, run.pictures);
    let model = trained.model.valid();
    let Seen { loss, accuracy } = pictures.evaluate(&model, &pictures.test)?;
    tracing::info!("{}: {accuracy:.2} % of the test", stage.name());
    let config = recipe.model.config(pictures.train.classes.len())?.to_json(&pictures.train.classes);
    let tensors =
        export(&model).into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect();
    let card = format!(
        "# {} {}\n\nA residual network of {} layers, trained for {total} steps by {}. {accuracy:.2} % of the test.\n",
        recipe.name,
        variant.name,
        recipe.model.layers,
        variant.optimizer.title()
    );
    let config = config.as_object().context("a config is an object")?;
    write_folder(&stage.path().join("model"), FolderContents { config, tensors, tokenizer: None, model_card: &card })?;
    let mut count = 0;
    parameters::visit(&trained.model, &mut |parameter| {
        if parameter.trained {
            count += parameter.shape.iter().product::<usize>() as u64;
        }
    });
    let done = Trained {
        name: variant.name.clone(),
        optimizer: variant.optimizer.title().to_owned(),
        parameters: count,
        steps: total,
        seconds: trained.seconds,
        accuracy,
        loss,
        kept_accuracy: trained.best.0,
        best_step: trained.best.1,
        noise_scale: trained.rows.iter().rev().find_map(|row| row.noise_scale),
        blocks: trained.blocks,
        peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
        curve: trained.rows,
    };
    stage.finish(&done)?;
    Ok(done)
}
