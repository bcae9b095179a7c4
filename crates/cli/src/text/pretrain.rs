//! A stage for each model: trained on windows of the text, then measured on what was held out.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use burn::module::Module;
use lapidary_data::{TokenStore, Tokenizer};
use lapidary_models::Pass;
use lapidary_models::checkpoint::{FolderContents, TensorSource, write_folder};
use lapidary_models::decoder::{Decoder, DecoderConfig};
use lapidary_models::load::export;
use lapidary_models::objective::{Autoregressive, Denoising, Objective, TextBatch, TextObjective};
use lapidary_train::{AdamWOptions, MetricsRow, Progress, Schedule, TrainError, TrainOptions, WindowBatches, train};
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::likelihood;
use crate::recipe::{ObjectiveName, PretrainVariant};
use crate::stage::{Inputs, Stage};

/// What a training gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pretrained {
    /// What results call it.
    pub name: String,
    /// Of the model.
    pub parameters: u64,
    /// On the held-out text, token after token: `None` for a model that does not write so.
    pub bits_a_byte: Option<f64>,
    /// The same as `exp` of the mean loss a token.
    pub perplexity: Option<f64>,
    /// On the held-out text, the loss of denoising in nats a token: `None` for a model that does not repair.
    pub denoising: Option<f64>,
    /// Steps of training.
    pub steps: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had held by then.
    pub peak_rss_bytes: u64,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// Windows of the training text that the curve's looks are at, and of the held-out text that denoising is measured on.
const WINDOWS: usize = 64;

/// Trains a variant, or finds it trained. The folder has the checkpoint `model`.
pub fn pretrain(run: &TextRun, corpus: &Stage, variant: &PretrainVariant) -> anyhow::Result<Pretrained> {
    let (recipe, settings) = (run.recipe, &run.recipe.pretrain);
    let inputs = Inputs::new(&serde_json::json!({
        "model": recipe.model,
        "pretrain": { "batch_size": settings.batch_size, "precision": settings.precision,
            "learning_rate": settings.learning_rate, "warmup": settings.warmup,
            "weight_decay": settings.weight_decay, "clip": settings.clip,
            "evaluate_every": settings.evaluate_every },
        "variant": variant,
        "seed": recipe.seed,
    }))?;
    let stage = run.folder.stage(&format!("pretrain/{}", variant.name), &inputs.on(run.device).after(corpus))?;
    if let Some(done) = stage.done::<Pretrained>()? {
        tracing::info!("{}: done before", stage.name());
        return Ok(done);
    }
    stage.begin()?;

    let tokenizer = Tokenizer::load(corpus.path())?;
    let store = TokenStore::open(&corpus.path().join("train"))?;
    let held_out = TokenStore::open(&corpus.path().join("held_out"))?;
    for store in [&store, &held_out] {
        store.check_tokenizer(&tokenizer)?;
    }
    let config = DecoderConfig {
        vocabulary: tokenizer.vocab_size(),
        positions: recipe.model.positions,
        width: recipe.model.width,
        heads: recipe.model.heads,
        feed_forward: recipe.model.feed_forward,
        blocks: recipe.model.blocks,
    };
    let denoising = Denoising {
        weights: variant.unroll.iter().map(|weight| *weight as f32).collect(),
        vocabulary: config.vocabulary,
    };
    let autoregressive = Autoregressive { prompts: true };
    let objective = match variant.objective {
        ObjectiveName::Autoregressive => TextObjective::Autoregressive(autoregressive),
        ObjectiveName::Denoising => TextObjective::Denoising(denoising.clone()),
        ObjectiveName::Both => TextObjective::Both(autoregressive, denoising.clone()),
    };
    let (repairs, writes) =
        (variant.objective != ObjectiveName::Autoregressive, variant.objective != ObjectiveName::Denoising);

    let length = NonZeroUsize::new(config.positions).context("model.positions is 0")?;
    let rows = NonZeroUsize::new(settings.batch_size).context("pretrain.batch_size is 0")?;
    let batches = WindowBatches::new(&store, length, rows, repairs, recipe.seed)?;
    let options = TrainOptions {
        name: variant.name.clone(),
        schedule: Schedule::new(settings.learning_rate, settings.warmup, variant.steps as u64),
        optimizer: AdamWOptions { weight_decay: settings.weight_decay, ..AdamWOptions::default() },
        accumulate: 1,
        clip: settings.clip,
        precision: settings.precision,
        dropout: 0.0,
        seed: recipe.seed,
        evaluate_every: settings.evaluate_every as u64,
        save_every: settings.evaluate_every as u64,
        keep: 1,
    };
    // Of the training text: the held-out one is for the end. Another seed than training's.
    let look = looks(&store, length, recipe.seed.wrapping_add(1))?;
    let trained = train(
        Decoder::new(&config, recipe.seed, &run.device.clone().autodiff()),
        &objective,
        &batches,
        &mut |model: &Decoder| Ok(-mean_loss(&model.valid(), &objective, &look)?),
        &options,
        &stage.path().join("training"),
        run.interrupt,
    )?;
    let model = trained.model.valid();
    save(&model, &config, &tokenizer, &stage.path().join("model"), run, variant)?;

    let mut done = Pretrained {
        name: variant.name.clone(),
        parameters: config.parameters() as u64,
        bits_a_byte: None,
        perplexity: None,
        denoising: None,
        steps: variant.steps as u64,
        seconds: trained.seconds,
        peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
        curve: trained.rows,
    };
    if writes {
        tracing::info!("{}: reading the {} held-out tokens", stage.name(), held_out.tokens());
        let mut progress = Progress::new("held-out text", 100, 0);
        let part = 0..held_out.tokens();
        let all =
            likelihood::autoregressive(&model, &held_out, part, config.positions, &Pass::evaluation(), |share| {
                progress.set((100.0 * share) as u64, "per cent");
                !run.interrupt.raised()
            })?;
        progress.finish(&format!("{:.3} bits a byte", all.bits_a_byte(held_out.bytes())));
        done.bits_a_byte = Some(all.bits_a_byte(held_out.bytes()));
        done.perplexity = Some(all.perplexity());
    }
    if repairs {
        let looks = looks(&held_out, length, recipe.seed)?;
        done.denoising = Some(mean_loss(&model, &TextObjective::Denoising(denoising), &looks)?);
    }
    stage.finish(&done)?;
    Ok(done)
}

/// Some windows of a store, always the same.
fn looks(store: &TokenStore, length: NonZeroUsize, seed: u64) -> anyhow::Result<Vec<TextBatch>> {
    const ROWS: NonZeroUsize = NonZeroUsize::new(8).expect("not 0");
    let batches = WindowBatches::new(store, length, ROWS, false, seed)?;
    let batch = |i| lapidary_train::BatchSource::micro_batch(&batches, i);
    Ok((0..(WINDOWS / ROWS) as u64).map(batch).collect::<Result<_, _>>()?)
}

/// Nats a target.
fn mean_loss(model: &Decoder, objective: &TextObjective, batches: &[TextBatch]) -> Result<f64, TrainError> {
    let (mut sum, mut targets) = (0.0, 0);
    for batch in batches {
        let loss = objective.loss(model, batch, &Pass::evaluation(), 1.0)?;
        sum += f64::from(loss.into_scalar::<f32>());
        targets += objective.targets(batch);
    }
    Ok(sum / targets.max(1) as f64)
}

fn save(
    model: &Decoder,
    config: &DecoderConfig,
    tokenizer: &Tokenizer,
    path: &Path,
    run: &TextRun,
    variant: &PretrainVariant,
) -> anyhow::Result<()> {
    let objective = match variant.objective {
        ObjectiveName::Autoregressive => "to predict the next token",
        ObjectiveName::Denoising => "to repair corrupted text",
        ObjectiveName::Both => "to predict the next token and, in turn, to repair corrupted text",
    };
    let card = format!("# {} {}\n\nTrained for {} steps {objective}.\n", run.recipe.name, variant.name, variant.steps);
    let tensors =
        export(model).into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect();
    let config = config.to_json();
    let config = config.as_object().context("a config is an object")?;
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: &card })?;
    tokenizer.save(path)?;
    Ok(())
}
