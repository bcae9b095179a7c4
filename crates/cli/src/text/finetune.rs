//! A stage for each task and model: fine-tuned on the task's pairs.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use burn::module::Module;
use lapidary_data::Tokenizer;
use lapidary_data::batch::BatchOptions;
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_models::objective::{TextBatch, TextObjective};
use lapidary_train::{AdamWOptions, MetricsRow, PairBatches, Schedule, TextPair, TrainOptions, Training, train_among};
use serde::{Deserialize, Serialize};

use super::task::{TaskAmounts, TaskData, TaskFiles};
use super::teacher::{Taught, TaughtAmounts};
use super::{TextRun, model, shared};
use crate::recipe::{FinetuneVariant, Task};
use crate::stage::{Inputs, Stage};
use crate::together;

/// What a fine-tuning gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finetuned {
    /// What results call it.
    pub name: String,
    /// Of the model.
    pub parameters: u64,
    /// Steps of training.
    pub steps: u64,
    /// Of the kept part, at the best step, in nats a token of its targets.
    pub kept_loss: f64,
    /// That step.
    pub best_step: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had held by then.
    pub peak_rss_bytes: u64,
    /// Of the task.
    pub amounts: TaskAmounts,
    /// What it was trained on instead, if a teacher wrote that.
    #[serde(default)]
    pub taught: Option<TaughtAmounts>,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// What the stages of a task share.
pub struct TaskRun<'a> {
    pub task: &'a Task,
    pub files: TaskFiles,
    /// Read when the first stage needs it.
    data: std::cell::OnceCell<TaskData>,
    /// The folder of the tokenizer.
    corpus: PathBuf,
}

impl<'a> TaskRun<'a> {
    pub fn new(task: &'a Task, files: TaskFiles, corpus: &Stage) -> Self {
        Self { task, files, data: std::cell::OnceCell::new(), corpus: corpus.path().to_owned() }
    }

    pub fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        Ok(Tokenizer::load(&self.corpus)?)
    }

    /// The pairs, read once.
    ///
    /// # Errors
    /// As [`TaskData::read`].
    pub fn data(&self, positions: usize) -> anyhow::Result<&TaskData> {
        if let Some(data) = self.data.get() {
            return Ok(data);
        }
        let data = TaskData::read(self.task, &self.files, &self.tokenizer()?, positions)?;
        let TaskAmounts { train_pairs, test_sources, unusable, in_test, long_targets, cut_sources, .. } = data.amounts;
        tracing::info!("task {}: {train_pairs} pairs to train on, {test_sources} sources to test", self.task.name);
        for (count, what) in [
            (unusable as usize, "questions have no answer"),
            (in_test, "pairs left out, since the test has their source"),
            (long_targets, "pairs left out, since their target is longer than the canvas"),
            (cut_sources, "sources lost their end"),
        ] {
            if count > 0 {
                tracing::info!("task {}: {count} {what}", self.task.name);
            }
        }
        Ok(self.data.get_or_init(|| data))
    }

    /// Inputs that hold all files of the task.
    pub fn inputs(&self, settings: serde_json::Value) -> anyhow::Result<Inputs> {
        let files = self.files.all().enumerate();
        Ok(files.fold(Inputs::new(&settings)?, |inputs, (index, path)| inputs.file(&format!("file {index}"), path)))
    }
}

/// Fine-tunes a variant on a task, or finds it done. The folder has the checkpoint `model`.
///
/// `from` is the stage of the pretrained variant, if it goes on from one, and `taught` that of the teacher's texts, if
/// they take the place of the task's.
pub fn finetune(
    run: &TextRun,
    corpus: &Stage,
    task: &TaskRun,
    from: Option<&Stage>,
    taught: Option<&(Stage, Taught)>,
    variant: &FinetuneVariant,
) -> anyhow::Result<(Stage, Finetuned)> {
    let (recipe, settings) = (run.recipe, &run.recipe.finetune);
    let parts = together::parts(run.ranks, "finetune", settings.batch_size, 1)?;
    let mut shared = shared(settings)?;
    if let Some(fields) = shared.as_object_mut().filter(|_| parts > 1) {
        fields.insert("parts".into(), parts.into());
    }
    let inputs = task.inputs(serde_json::json!({
        "model": recipe.model,
        "task": task.task,
        "finetune": shared,
        "variant": variant,
        "seed": recipe.seed,
    }))?;
    let inputs = inputs.on(run.device).after(corpus);
    let inputs = from.into_iter().chain(taught.map(|(texts, _)| texts)).fold(inputs, Inputs::after);
    let stage = run.folder.stage(&format!("task/{}/{}", task.task.name, variant.name), &inputs)?;
    if let Some(done) = together::begin::<Finetuned>(run.ranks, &stage)? {
        tracing::info!("{}: done before", stage.name());
        return Ok((stage, done));
    }

    let steps = variant.steps(task.task);
    let data = task.data(recipe.model.positions)?;
    let tokenizer = task.tokenizer()?;
    let config = model::config(&recipe.model, tokenizer.vocab_size());
    let denoising = model::denoising(&variant.unroll, &config);
    // A prompt is given, and not written.
    let objective = model::objective(variant.objective, false, &denoising);
    let one = |count: usize, what: &'static str| NonZeroUsize::new(count).with_context(|| format!("{what} is 0"));
    let options = BatchOptions {
        batch_size: one(settings.batch_size / parts, "finetune.batch_size")?,
        bucket_batches: one(settings.bucket_batches, "finetune.bucket_batches")?,
        seed: recipe.seed,
    };
    let (train_pairs, kept_pairs) = match taught {
        Some((_, taught)) => (&taught.train, &taught.kept),
        None => (&data.train, &data.kept_pairs),
    };
    let batches = PairBatches::new(train_pairs, &objective, data.layout, options)?.in_pieces(variant.pieces);
    let device = run.device.clone().autodiff();
    let fresh = match from {
        Some(stage) => Decoder::open(&Checkpoint::open(&stage.path().join("model"))?, &device)?.0,
        None => Decoder::new(&config, recipe.seed, &device),
    };
    let options = TrainOptions {
        name: format!("{} {}", task.task.name, variant.name),
        schedule: Schedule::new(settings.learning_rate, settings.warmup, steps as u64),
        optimizer: AdamWOptions { weight_decay: settings.weight_decay, ..AdamWOptions::default() }.into(),
        accumulate: parts as u64,
        clip: settings.clip,
        precision: settings.precision,
        dropout: settings.dropout as f32,
        seed: recipe.seed,
        evaluate_every: settings.evaluate_every as u64,
        save_every: settings.evaluate_every as u64,
        keep: 1,
        noise_scale: false,
        sync_batch_norm: false,
    };
    let looks = looks(kept_pairs, data, &objective, recipe.seed);
    let trained = train_among(
        fresh,
        &Training { objective: &objective, source: &batches, options: &options, ranks: run.ranks },
        &mut |model: &Decoder| Ok(-model::mean_loss(&model.valid(), &objective, &looks)?),
        &stage.path().join("training"),
        run.interrupt,
    )?;
    let done = together::finish(run.ranks, &stage, || {
        let purpose = variant.objective.purpose();
        let saved = model::Saved {
            config: &config,
            objective: variant.objective,
            task: Some(task.task),
            tokenizer: &tokenizer,
            card: format!(
                "# {} {} {}\n\nFine-tuned for {steps} steps {purpose}.\n",
                recipe.name, task.task.name, variant.name
            ),
        };
        model::save(&trained.model.valid(), &saved, &stage.path().join("model"))?;
        let done = Finetuned {
            name: variant.name.clone(),
            parameters: config.parameters() as u64,
            steps: steps as u64,
            kept_loss: -trained.best.0,
            best_step: trained.best.1,
            seconds: trained.seconds,
            peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
            amounts: data.amounts,
            taught: taught.map(|(_, taught)| taught.amounts),
            curve: trained.rows,
        };
        stage.finish(&done)?;
        Ok(done)
    })?;
    Ok((stage, done))
}

/// Pairs that a look at the kept part is at, at most.
pub const LOOK: usize = 512;

/// Pairs of the kept part, laid out as the objective wants them, always the same.
fn looks(pairs: &[TextPair], data: &TaskData, objective: &TextObjective, seed: u64) -> Vec<TextBatch> {
    let rows: Vec<&TextPair> = pairs.iter().take(LOOK).collect();
    let batch = |(step, rows): (usize, &[&TextPair])| {
        let step = step as u64;
        PairBatches::collate(rows, data.layout, objective.repairs(step), DrawKey { seed: seed.wrapping_add(1), step })
    };
    rows.chunks(32).enumerate().map(batch).collect()
}
