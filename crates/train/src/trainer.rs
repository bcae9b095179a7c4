//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use lapidary_kernels::precision::Precision;
use lapidary_models::objective::Objective;
use lapidary_models::{Pass, parameters};
use serde::{Deserialize, Serialize};

use crate::optimizer::{accumulate, gradient_norm};
use crate::state::{Position, StateFolder};
use crate::{
    AdamWOptimizer, AdamWOptions, BatchSource, EventWriter, Interrupt, MetricsLog, MetricsRow, Progress, Schedule,
    TrainError,
};

/// What a training is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrainOptions {
    /// What the progress bar calls it.
    pub name: String,
    /// Learning rate by step, and how many steps there are.
    pub schedule: Schedule,
    /// The optimizer.
    pub optimizer: AdamWOptions,
    /// Micro-batches whose gradients make one step.
    pub accumulate: u64,
    /// Largest norm of the gradient; a longer one is scaled down. 0: never.
    pub clip: f64,
    /// Of matrix products.
    pub precision: Precision,
    /// Probability of dropout.
    pub dropout: f32,
    /// Seed of the dropout masks.
    pub seed: u64,
    /// Steps between two looks at the validation part.
    pub evaluate_every: u64,
    /// Steps between two saved states; 0: only at the end and on Ctrl-C.
    pub save_every: u64,
    /// Saved states that are kept.
    pub keep: usize,
}

/// A finished training.
pub struct Trained<M> {
    /// The model that did best on the validation part.
    pub model: M,
    /// Its metric and its step.
    pub best: (f64, u64),
    /// Seconds of training, over all resumptions.
    pub seconds: f64,
    /// The log.
    pub rows: Vec<MetricsRow>,
}

/// Trains a model to the end of its schedule and returns the best of what validation saw.
///
/// `validate` gives a metric that is better when larger. Everything that the run leaves is in `folder`:
/// `metrics.jsonl`, TensorBoard events, the last states, the best parameters. If the folder holds a state of the same
/// run, the training goes on from there and gives the same losses as one that was never stopped.
///
/// # Errors
/// Nothing to train on, a target outside the classes, a loss that is not finite, a full disk, a state of another run,
/// or [`TrainError::Interrupted`] after a signal.
pub fn train<M, O, S>(
    model: M,
    objective: &O,
    source: &S,
    validate: &mut dyn FnMut(&M) -> Result<f64, TrainError>,
    options: &TrainOptions,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<Trained<M>, TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    fs::create_dir_all(folder).map_err(|source| TrainError::Log { path: folder.to_owned(), source })?;
    let run = serde_json::to_string(options).unwrap_or_default();
    let states = StateFolder::new(folder, options.keep);
    let mut optimizer = AdamWOptimizer::new(options.optimizer);
    let (mut model, position) = states.load(model, &mut optimizer, &run)?;
    let mut position = position.unwrap_or_else(|| Position { run, ..Position::default() });

    let log_path: PathBuf = folder.join("metrics.jsonl");
    let mut log = MetricsLog::open(&log_path, position.step)?;
    let total = options.schedule.total;
    if position.step < total {
        let mut events = EventWriter::create(folder)?;
        let mut progress = Progress::new(&options.name, total, position.step);
        let begun = Instant::now();
        let before = position.seconds;
        let mut shown = None;
        while position.step < total {
            let step = position.step;
            let rate = options.schedule.rate(step);
            let (loss, gradient_norm);
            (model, loss, gradient_norm) = one_step(model, objective, source, &mut optimizer, options, step, rate)?;
            position.step += 1;
            position.seconds = before + begun.elapsed().as_secs_f64();
            let mut row = MetricsRow {
                step: position.step,
                loss: Some(loss),
                rate: Some(rate),
                gradient_norm: Some(gradient_norm),
                validation: None,
                seconds: position.seconds,
            };
            // Each batch's loss jumps about; people read a running mean.
            let smooth = shown.map_or(loss, |shown: f64| 0.95 * shown + 0.05 * loss);
            shown = Some(smooth);

            let last = position.step == total;
            if last || (options.evaluate_every > 0 && position.step.is_multiple_of(options.evaluate_every)) {
                let metric = validate(&model)?;
                if !metric.is_finite() {
                    return Err(TrainError::NotFinite { what: "the validation metric", value: metric, step, rate });
                }
                row.validation = Some(metric);
                events.scalar("validation", position.step, metric)?;
                if position.best.is_none_or(|(best, _)| metric > best) {
                    position.best = Some((metric, position.step));
                    states.save_best(&model)?;
                }
            }
            log.write(&row)?;
            events.scalar("loss", position.step, loss)?;
            events.scalar("learning_rate", position.step, rate)?;
            events.scalar("gradient_norm", position.step, gradient_norm)?;
            let best = position.best.map_or(String::new(), |(best, _)| format!(", best validation {best:.2}"));
            progress.set(position.step, &format!("loss {smooth:.4}, rate {rate:.2e}{best}"));

            let stop = interrupt.raised() && !last;
            if last || stop || (options.save_every > 0 && position.step.is_multiple_of(options.save_every)) {
                log.flush()?;
                events.flush()?;
                states.save(&model, &optimizer, &position)?;
            }
            if stop {
                return Err(TrainError::Interrupted { step: position.step, total });
            }
        }
        let best = position.best.unwrap_or_default();
        progress.finish(&format!("done, best validation {:.2} at step {}", best.0, best.1));
    }
    let model = states.load_best(model)?;
    let rows = MetricsLog::read(&log_path)?;
    Ok(Trained { model, best: position.best.unwrap_or_default(), seconds: position.seconds, rows })
}

/// Forward and backward over the step's micro-batches, clipping, update.
fn one_step<M, O, S>(
    model: M,
    objective: &O,
    source: &S,
    optimizer: &mut AdamWOptimizer,
    options: &TrainOptions,
    step: u64,
    rate: f64,
) -> Result<(M, f64, f64), TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    let accumulated = options.accumulate.max(1);
    let first = step * accumulated;
    let batches: Vec<O::Batch> =
        (first..first + accumulated).map(|i| source.micro_batch(i)).collect::<Result<_, _>>()?;
    let normalizer = batches.iter().map(|batch| objective.targets(batch)).sum::<usize>() as f32;
    let mut gradients = parameters::GradientMap::new();
    let mut loss = 0.0;
    for (i, batch) in batches.iter().enumerate() {
        let pass = Pass::training(options.dropout, options.seed, first + i as u64).with_precision(options.precision);
        let share = objective.loss(&model, batch, &pass, normalizer)?;
        loss += f64::from(share.clone().into_scalar::<f32>());
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { what: "the loss", value: loss, step, rate });
        }
        accumulate(&mut gradients, parameters::gradients(&model, share.backward()));
    }
    let norm = gradient_norm(&model, &gradients);
    if !norm.is_finite() {
        return Err(TrainError::NotFinite { what: "the gradient's norm", value: norm, step, rate });
    }
    // PyTorch's clip_grad_norm_, its 1e-6 included.
    let scale = if options.clip > 0.0 { (options.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    Ok((optimizer.step(model, gradients, rate, scale), loss, norm))
}
