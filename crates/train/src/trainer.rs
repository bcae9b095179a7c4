//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use lapidary_curvature::Selection;
use lapidary_curvature::kronecker::{FactorSums, Sharing};
use lapidary_kernels::precision::Precision;
use lapidary_models::objective::Objective;
use lapidary_models::parameters::GradientMap;
use lapidary_models::taps::{LayerUse, Positions, Taps};
use lapidary_models::{Pass, parameters};
use serde::{Deserialize, Serialize};

use crate::noise_scale::NoiseSample;
use crate::optimizer::{Before, Block, FactorEstimate, Optimizer, Raised, accumulate, gradient_norm};
use crate::state::{Position, StateFolder};
use crate::{
    BatchSource, EventWriter, Interrupt, KfacOptions, MetricsLog, MetricsRow, OptimizerOptions, Progress, Schedule,
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
    pub optimizer: OptimizerOptions,
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
    /// Whether the noise of the gradient is measured: see [`NoiseScale`](crate::NoiseScale). It takes two micro-batches a step or more.
    pub noise_scale: bool,
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
    /// Of K-FAC, which block each parameter had; of other optimizers none.
    pub blocks: Vec<(String, Block)>,
}

/// Trains a model to the end of its schedule and returns the best of what validation saw.
///
/// `validate` gives a metric that is better when larger. Everything that the run leaves is in `folder`:
/// `metrics.jsonl`, TensorBoard events, the last states, the best parameters. If the folder holds a state of the same
/// run, the training goes on from there and gives the same losses as one that was never stopped.
///
/// # Errors
/// Nothing to train on, a target outside the classes, a matrix without factors where these are wanted, a loss that is not finite, a full disk, a state of another run,
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
    if options.noise_scale && options.accumulate < 2 {
        return Err(TrainError::NoiseScale);
    }
    fs::create_dir_all(folder).map_err(|source| TrainError::Log { path: folder.to_owned(), source })?;
    let run = serde_json::to_string(options).unwrap_or_default();
    let states = StateFolder::new(folder, options.keep);
    let mut optimizer = Optimizer::new(&options.optimizer);
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
            let done;
            (model, done) = self::step(model, objective, source, &mut optimizer, options, step, rate)?;
            let StepDone { loss, gradient_norm, .. } = done;
            if let Some(noise) = done.noise {
                position.noise = position.noise.with(noise);
            }
            position.step += 1;
            position.seconds = before + begun.elapsed().as_secs_f64();
            let mut row = MetricsRow {
                step: position.step,
                loss: Some(loss),
                rate: Some(rate),
                gradient_norm: Some(gradient_norm),
                validation: None,
                damping: optimizer.damping(),
                noise_scale: position.noise.scale(),
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
            for (name, value) in [("damping", row.damping), ("noise_scale", row.noise_scale)] {
                if let Some(value) = value {
                    events.scalar(name, position.step, value)?;
                }
            }
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
    let blocks = optimizer.blocks(&model);
    let model = states.load_best(model)?;
    let rows = MetricsLog::read(&log_path)?;
    Ok(Trained { model, best: position.best.unwrap_or_default(), seconds: position.seconds, rows, blocks })
}

/// What a step leaves behind beside the model.
pub struct StepDone {
    /// Over the step's batches, before the step.
    pub loss: f64,
    /// Of the whole gradient, before clipping.
    pub gradient_norm: f64,
    /// If it is measured.
    pub noise: Option<NoiseSample>,
}

/// A step of [`train`]: forward and backward over its micro-batches, clipping, update.
///
/// # Errors
/// As [`train`], but for what becomes of files.
pub fn step<M, O, S>(
    model: M,
    objective: &O,
    source: &S,
    optimizer: &mut Optimizer,
    options: &TrainOptions,
    step: u64,
    rate: f64,
) -> Result<(M, StepDone), TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    let accumulated = options.accumulate.max(1);
    let first = step * accumulated;
    let batches = |first: u64| -> Result<Vec<O::Batch>, TrainError> {
        (first..first + accumulated).map(|i| source.micro_batch(i)).collect()
    };
    let of_step = batches(first)?;
    let normalizer = of_step.iter().map(|batch| objective.targets(batch)).sum::<usize>() as f32;
    let pass =
        |i: usize| Pass::training(options.dropout, options.seed, first + i as u64).with_precision(options.precision);
    let mut factors = match optimizer {
        Optimizer::Kfac(kfac) if kfac.wants_factors() => Some(Factors::new(&model, kfac.options(), accumulated)?),
        _ => None,
    };
    let mut gradients = GradientMap::new();
    let mut loss = 0.0;
    let mut squares = 0.0;
    for (i, batch) in of_step.iter().enumerate() {
        let tapped = factors.as_ref().filter(|factors| factors.estimate == FactorEstimate::Empirical);
        let taps = tapped.map(|_| Taps::default());
        let of_batch = match &taps {
            Some(taps) => pass(i).with_taps(taps.clone()),
            None => pass(i),
        };
        let share = objective.loss(&model, batch, &of_batch, normalizer)?;
        loss += f64::from(share.clone().into_scalar::<f32>());
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { what: "the loss", value: loss, step, rate });
        }
        let mut backward = share.backward();
        if let (Some(factors), Some(taps)) = (&mut factors, taps) {
            factors.take(taps.take(&mut backward), &objective.positions(&model, batch));
        }
        let of_batch = parameters::gradients(&model, backward);
        if options.noise_scale {
            squares += gradient_norm(&model, &of_batch).powi(2);
        }
        accumulate(&mut gradients, of_batch);
    }
    let norm = gradient_norm(&model, &gradients);
    if !norm.is_finite() {
        return Err(TrainError::NotFinite { what: "the gradient's norm", value: norm, step, rate });
    }
    // The gradients of micro-batches are shares of a mean over the step's targets.
    let noise = options.noise_scale.then(|| NoiseSample::new(squares, norm * norm, accumulated, f64::from(normalizer)));
    // PyTorch's clip_grad_norm_, its 1e-6 included.
    let scale = if options.clip > 0.0 { (options.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    let done = StepDone { loss, gradient_norm: norm, noise };
    let model = match optimizer {
        Optimizer::AdamW(adamw) => adamw.step(model, gradients, rate, scale),
        Optimizer::Sgd(sgd) => sgd.step(model, gradients, rate, scale),
        Optimizer::Kfac(kfac) => {
            if let Some(mut factors) = factors {
                match factors.estimate {
                    FactorEstimate::Empirical => (),
                    FactorEstimate::Sampled => {
                        for (i, batch) in of_step.iter().enumerate() {
                            let pass = pass(i).forgetting();
                            let draw = (options.seed, first + i as u64);
                            let sampled = objective.sampled(&model, batch, &pass, draw)?;
                            factors.add(
                                &model,
                                objective,
                                &sampled.ok_or(TrainError::NotSampled)?,
                                pass,
                                normalizer,
                            )?;
                        }
                    }
                    FactorEstimate::TwoBatch => {
                        let next = batches(first + accumulated)?;
                        let normalizer = next.iter().map(|batch| objective.targets(batch)).sum::<usize>() as f32;
                        for (i, batch) in next.iter().enumerate() {
                            factors.add(&model, objective, batch, pass(i).forgetting(), normalizer)?;
                        }
                        factors.targets = Some(normalizer);
                    }
                }
                let targets = f64::from(factors.targets.unwrap_or(normalizer));
                let share = factors.share / accumulated as f64;
                kfac.observe(factors.sums.finish(share / targets)?)?;
                let without = kfac.without_factors(&model, &gradients);
                if kfac.options().strict && !without.is_empty() {
                    return Err(TrainError::WithoutFactors { paths: without.join(", ") });
                }
            }
            let before = kfac.asks_for_change_at(step + 1).then(|| Before::of(&model, &gradients));
            let (model, raised) = kfac.step(model, gradients, normalizer.into(), rate, scale)?;
            for Raised { weight, damping } in raised {
                tracing::warn!("step {step}: the factors of {weight} were inverted with a damping of {damping:.1e}");
            }
            if let Some(before) = before {
                let mut after = 0.0;
                for (i, batch) in of_step.iter().enumerate() {
                    let share = objective.loss(&model, batch, &pass(i).forgetting(), normalizer)?;
                    after += f64::from(share.into_scalar::<f32>());
                }
                let expected = kfac.expected_change(&before, &model)?;
                kfac.adapt(after - loss, expected);
            }
            model
        }
    };
    Ok((model, done))
}

/// Factors on their way.
struct Factors {
    sums: FactorSums,
    estimate: FactorEstimate,
    /// Examples of a micro-batch that count.
    most: usize,
    /// Sum over micro-batches of the share of the examples that counted.
    share: f64,
    /// Of a batch that is not the step's.
    targets: Option<f32>,
}

impl Factors {
    fn new<M: Module>(model: &M, options: &KfacOptions, parts: u64) -> Result<Self, TrainError> {
        let selection = Selection::of(model, |_| true)?;
        let most = match options.examples {
            0 => usize::MAX,
            most => most.div_ceil(parts as usize),
        };
        let sums = FactorSums::new(model, &selection, Sharing::Expand);
        Ok(Self { sums, estimate: options.estimate, most, share: 0.0, targets: None })
    }

    fn take(&mut self, uses: Vec<LayerUse>, positions: &Positions) {
        self.share += self.sums.add_some(uses, positions, self.most);
    }

    /// Adds those of a batch by a pass of its own.
    fn add<M: Module, O: Objective<M>>(
        &mut self,
        model: &M,
        objective: &O,
        batch: &O::Batch,
        pass: Pass,
        normalizer: f32,
    ) -> Result<(), TrainError> {
        let taps = Taps::default();
        let mut backward = objective.loss(model, batch, &pass.with_taps(taps.clone()), normalizer)?.backward();
        self.take(taps.take(&mut backward), &objective.positions(model, batch));
        Ok(())
    }
}
