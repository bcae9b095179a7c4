//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_collective::{CollectiveError, Ranks};
use lapidary_curvature::Selection;
use lapidary_curvature::kronecker::{FactorSums, LayerFactors, Sharing};
use lapidary_kernels::precision::Precision;
use lapidary_models::objective::Objective;
use lapidary_models::parameters::GradientMap;
use lapidary_models::taps::{Positions, Taps};
use lapidary_models::{Pass, parameters};
use lapidary_ops::Reduction;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::noise_scale::NoiseSample;
use crate::optimizer::{Before, Block, FactorEstimate, Optimizer, Raised, StepSize, accumulate, gradient_norm};
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
    /// Whether batch norm takes the statistics of all of a step, and not of each part's alone: wants a rank for each part.
    #[serde(default, skip_serializing_if = "is_no")]
    pub sync_batch_norm: bool,
}

fn is_no(flag: &bool) -> bool {
    !flag
}

/// What a training's steps are made of, which stays the same from one to the next.
pub struct Training<'a, O, S> {
    /// What is minimized.
    pub objective: &'a O,
    /// What of.
    pub source: &'a S,
    /// How.
    pub options: &'a TrainOptions,
    /// Who the micro-batches of a step are shared out to: rank `r` of `n` has those whose number is `r` modulo `n`.
    pub ranks: &'a Ranks,
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
    train_among(model, &Training { objective, source, options, ranks: &Ranks::alone() }, validate, folder, interrupt)
}

/// [`train`] by several ranks, each of which calls it alike. All of them read the state from `folder`, which has to be one
/// that they share; the first alone validates and writes. The steps are those of one rank with as many micro-batches or,
/// with [`TrainOptions::sync_batch_norm`], with one that has all their examples, up to the rounding of sums in another
/// order and what batch norm remembers, of which validation and states have the mean over the ranks.
///
/// # Errors
/// As [`train`]; another rank that is gone, micro-batches that cannot be shared out evenly, folders that are not one.
pub fn train_among<M, O, S>(
    model: M,
    training: &Training<'_, O, S>,
    validate: &mut dyn FnMut(&M) -> Result<f64, TrainError>,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<Trained<M>, TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    let Training { options, ranks, .. } = *training;
    if options.noise_scale && options.accumulate < 2 {
        return Err(TrainError::NoiseScale);
    }
    let parts = options.accumulate.max(1);
    let fits = match options.sync_batch_norm {
        // Else the statistics, and so the training, would depend on how many ranks there are.
        true => parts == ranks.count() as u64,
        false => parts.is_multiple_of(ranks.count() as u64),
    };
    if !fits {
        return Err(TrainError::Parts { parts, ranks: ranks.count(), sync_batch_norm: options.sync_batch_norm });
    }
    fs::create_dir_all(folder).map_err(|source| TrainError::Log { path: folder.to_owned(), source })?;
    let run = serde_json::to_string(options).unwrap_or_default();
    let states = StateFolder::new(folder, options.keep);
    let mut optimizer = Optimizer::new(&options.optimizer);
    let (mut model, position) = states.load(model, &mut optimizer, &run)?;
    let mut position = position.unwrap_or_else(|| Position { run, ..Position::default() });
    same_state(ranks, position.step, folder)?;
    optimizer.keep_own(ranks);

    let log_path: PathBuf = folder.join("metrics.jsonl");
    let total = options.schedule.total;
    if position.step < total {
        let mut outputs =
            if ranks.is_first() { Some(Outputs::open(options, folder, &log_path, position.step)?) } else { None };
        let begun = Instant::now();
        let before = position.seconds;
        let mut shown = None;
        while position.step < total {
            let step = position.step;
            let rate = options.schedule.rate(step);
            let done;
            (model, done) = self::step(model, training, &mut optimizer, step, rate)?;
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
            let looks = last || (options.evaluate_every > 0 && position.step.is_multiple_of(options.evaluate_every));
            if looks {
                model = remembered_alike(model, ranks)?;
                let metric = of_first(ranks, || validate(&model))?;
                if !metric.is_finite() {
                    return Err(TrainError::NotFinite { what: "the validation metric", value: metric, step, rate });
                }
                row.validation = Some(metric);
                if position.best.is_none_or(|(best, _)| metric > best) {
                    position.best = Some((metric, position.step));
                    if ranks.is_first() {
                        states.save_best(&model)?;
                    }
                }
            }
            if let Some(outputs) = &mut outputs {
                outputs.write(&row, smooth, position.best)?;
            }
            let stop = raised_anywhere(interrupt, ranks)? && !last;
            if last || stop || (options.save_every > 0 && position.step.is_multiple_of(options.save_every)) {
                model = remembered_alike(model, ranks)?;
                optimizer.gather(ranks)?;
                if let Some(outputs) = &mut outputs {
                    outputs.flush()?;
                    states.save(&model, &optimizer, &position)?;
                }
                optimizer.keep_own(ranks);
            }
            if stop {
                // None goes before the state is there.
                ranks.wait_for_all()?;
                return Err(TrainError::Interrupted { step: position.step, total });
            }
        }
        if let Some(outputs) = outputs {
            let best = position.best.unwrap_or_default();
            outputs.progress.finish(&format!("done, best validation {:.2} at step {}", best.0, best.1));
        }
    }
    ranks.wait_for_all()?;
    let blocks = optimizer.blocks(&model);
    let model = states.load_best(model)?;
    let rows = MetricsLog::read(&log_path)?;
    // What one rank reads another may be about to begin anew.
    ranks.wait_for_all()?;
    Ok(Trained { model, best: position.best.unwrap_or_default(), seconds: position.seconds, rows, blocks })
}

/// What a training writes as it goes.
struct Outputs {
    log: MetricsLog,
    events: EventWriter,
    progress: Progress,
}

impl Outputs {
    fn open(options: &TrainOptions, folder: &Path, log: &Path, step: u64) -> Result<Self, TrainError> {
        let progress = Progress::new(&options.name, options.schedule.total, step);
        Ok(Self { log: MetricsLog::open(log, step)?, events: EventWriter::create(folder)?, progress })
    }

    fn write(&mut self, row: &MetricsRow, smooth: f64, best: Option<(f64, u64)>) -> Result<(), TrainError> {
        self.log.write(row)?;
        for (name, value) in [
            ("validation", row.validation),
            ("loss", row.loss),
            ("learning_rate", row.rate),
            ("gradient_norm", row.gradient_norm),
            ("damping", row.damping),
            ("noise_scale", row.noise_scale),
        ] {
            if let Some(value) = value {
                self.events.scalar(name, row.step, value)?;
            }
        }
        let best = best.map_or(String::new(), |(best, _)| format!(", best validation {best:.2}"));
        let rate = row.rate.unwrap_or_default();
        self.progress.set(row.step, &format!("loss {smooth:.4}, rate {rate:.2e}{best}"));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        self.log.flush()?;
        self.events.flush()
    }
}

/// Whether all ranks go on from the same step.
fn same_state(ranks: &Ranks, step: u64, folder: &Path) -> Result<(), TrainError> {
    let mut of_first = [if ranks.is_first() { step as f64 } else { 0.0 }];
    ranks.sum_f64(&mut of_first)?;
    let differs = of_first[0] != step as f64;
    let mut differing = [f64::from(u8::from(differs))];
    ranks.sum_f64(&mut differing)?;
    match differing[0] > 0.0 {
        true => Err(TrainError::NotShared { rank: ranks.rank(), found: step, path: folder.to_owned() }),
        false => Ok(()),
    }
}

/// Whether any rank was asked to stop.
fn raised_anywhere(interrupt: &Interrupt, ranks: &Ranks) -> Result<bool, TrainError> {
    let mut raised = [f64::from(u8::from(interrupt.raised()))];
    ranks.sum_f64(&mut raised)?;
    Ok(raised[0] > 0.0)
}

/// A number that the first rank makes.
fn of_first(ranks: &Ranks, make: impl FnOnce() -> Result<f64, TrainError>) -> Result<f64, TrainError> {
    let mut number = [if ranks.is_first() { make()? } else { 0.0 }];
    ranks.sum_f64(&mut number)?;
    Ok(number[0])
}

/// The model with what is remembered and not trained, such as running statistics, being its mean over the ranks.
fn remembered_alike<M: Module>(model: M, ranks: &Ranks) -> Result<M, TrainError> {
    if ranks.is_alone() {
        return Ok(model);
    }
    let mut numbers = Vec::new();
    parameters::visit(&model, &mut |parameter| {
        if !parameter.trained {
            numbers.extend(parameters::elements(parameter.value));
        }
    });
    ranks.sum(&mut numbers)?;
    let share = 1.0 / ranks.count() as f32;
    let mut rest = numbers.as_slice();
    Ok(parameters::map(model, &mut |parameter| {
        if parameter.trained {
            return parameter.value;
        }
        let (sums, behind) = rest.split_at(parameter.shape.iter().product());
        rest = behind;
        let means: Vec<f32> = sums.iter().map(|sum| sum * share).collect();
        let device = parameter.value.device();
        Tensor::from_data(TensorData::new(means, [sums.len()]), &device)
    }))
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

/// Micro-batches of one rank, with their numbers, and how many targets those of all ranks have.
type Own<B> = (Vec<(u64, B)>, f32);

/// A step of [`train`]: forward and backward over its micro-batches, clipping, update.
///
/// # Errors
/// As [`train_among`], but for what becomes of files.
pub fn step<M, O, S>(
    model: M,
    training: &Training<'_, O, S>,
    optimizer: &mut Optimizer,
    step: u64,
    rate: f64,
) -> Result<(M, StepDone), TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    let Training { objective, source, options, ranks } = *training;
    let parts = options.accumulate.max(1);
    let first = step * parts;
    // Those of this rank, of the step that begins with a micro-batch.
    let own = |first: u64| (first + ranks.rank() as u64..first + parts).step_by(ranks.count());
    let batches = |first: u64| -> Result<Own<O::Batch>, TrainError> {
        let batches = own(first).map(|i| Ok((i, source.micro_batch(i)?))).collect::<Result<Vec<_>, TrainError>>()?;
        let mut targets = [batches.iter().map(|(_, batch)| objective.targets(batch)).sum::<usize>() as f64];
        ranks.sum_f64(&mut targets)?;
        Ok((batches, targets[0] as f32))
    };
    let (of_step, normalizer) = batches(first)?;
    let reduction = (options.sync_batch_norm && !ranks.is_alone()).then(|| SharedReduction::new(ranks));
    let pass = |i: u64| {
        let pass = Pass::training(options.dropout, options.seed, i).with_precision(options.precision);
        match &reduction {
            Some(shared) => pass.with_reduction(shared.reduction.clone()),
            None => pass,
        }
    };
    let mut factors = match optimizer {
        Optimizer::Kfac(kfac) if kfac.wants_factors() => Some(Factors::new(&model, kfac.options(), parts)?),
        _ => None,
    };
    let device = model.devices().pop().unwrap_or(Device::flex()).without_autodiff();
    let mut gradients = GradientMap::new();
    let mut loss = 0.0;
    let mut squares = 0.0;
    for (turn, (i, batch)) in of_step.iter().enumerate() {
        let tapped = factors.as_ref().filter(|factors| factors.estimate == FactorEstimate::Empirical);
        let taps = tapped.map(|factors| factors.taps(&objective.positions(&model, batch)));
        let of_batch = match &taps {
            Some(taps) => pass(*i).with_taps(taps.clone()),
            None => pass(*i),
        };
        // With the last micro-batch a gradient is complete, and goes to the other ranks while the next is computed.
        let exchange =
            (!ranks.is_alone() && turn + 1 == of_step.len()).then(|| Exchange::new(&model, ranks, &gradients));
        let watched = exchange.as_ref().map(|exchange| exchange.watch(model.clone()));
        let share = objective.loss(watched.as_ref().unwrap_or(&model), batch, &of_batch, normalizer)?;
        loss += f64::from(share.clone().into_scalar::<f32>());
        // Among ranks all have to hear of it, below.
        if !loss.is_finite() && ranks.is_alone() {
            return Err(TrainError::NotFinite { what: "the loss", value: loss, step, rate });
        }
        let backward = share.backward();
        if let (Some(factors), Some(taps)) = (&mut factors, taps) {
            factors.take(taps, &objective.positions(&model, batch));
        }
        if options.noise_scale || exchange.is_none() {
            let of_batch = parameters::gradients(&model, backward);
            if options.noise_scale {
                squares += gradient_norm(&model, &of_batch).powi(2);
            }
            if exchange.is_none() {
                accumulate(&mut gradients, of_batch);
            }
        }
        if let Some(exchange) = exchange {
            gradients = exchange.finish(&device)?;
        }
    }
    if let Some(shared) = &reduction {
        shared.check()?;
    }
    let mut sums = [loss, squares];
    ranks.sum_f64(&mut sums)?;
    let [loss, squares] = sums;
    if !loss.is_finite() {
        return Err(TrainError::NotFinite { what: "the loss", value: loss, step, rate });
    }
    let norm = gradient_norm(&model, &gradients);
    if !norm.is_finite() {
        return Err(TrainError::NotFinite { what: "the gradient's norm", value: norm, step, rate });
    }
    // The gradients of micro-batches are shares of a mean over the step's targets.
    let noise = options.noise_scale.then(|| NoiseSample::new(squares, norm * norm, parts, f64::from(normalizer)));
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
                        for (i, batch) in &of_step {
                            let pass = pass(*i).forgetting();
                            let sampled = objective.sampled(&model, batch, &pass, (options.seed, *i))?;
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
                        let (next, normalizer) = batches(first + parts)?;
                        for (i, batch) in &next {
                            factors.add(&model, objective, batch, pass(*i).forgetting(), normalizer)?;
                        }
                        factors.targets = Some(normalizer);
                    }
                }
                let targets = f64::from(factors.targets.unwrap_or(normalizer));
                kfac.observe(factors.finish(ranks, parts, targets)?)?;
                let without = kfac.without_factors(&model, &gradients);
                if kfac.options().strict && !without.is_empty() {
                    return Err(TrainError::WithoutFactors { paths: without.join(", ") });
                }
            }
            let before = kfac.asks_for_change_at(step + 1).then(|| Before::of(&model, &gradients));
            let size = StepSize { targets: normalizer.into(), rate, scale };
            let (model, raised) = kfac.step(model, gradients, size, ranks)?;
            for Raised { weight, damping } in raised {
                tracing::warn!("step {step}: the factors of {weight} were inverted with a damping of {damping:.1e}");
            }
            if let Some(before) = before {
                let mut after = [0.0];
                for (i, batch) in &of_step {
                    let share = objective.loss(&model, batch, &pass(*i).forgetting(), normalizer)?;
                    after[0] += f64::from(share.into_scalar::<f32>());
                }
                ranks.sum_f64(&mut after)?;
                let expected = kfac.expected_change(&before, &model)?;
                kfac.adapt(after[0] - loss, expected);
            }
            model
        }
    };
    Ok((model, done))
}

/// Sums over ranks from within a pass, which cannot fail: they are NaN then, and the error is told afterwards.
struct SharedReduction {
    reduction: Reduction,
    failed: Arc<Mutex<Option<CollectiveError>>>,
}

impl SharedReduction {
    fn new(ranks: &Ranks) -> Self {
        let failed: Arc<Mutex<Option<CollectiveError>>> = Arc::default();
        let (ranks, slot) = (ranks.clone(), failed.clone());
        let reduction = Reduction::new(move |numbers| {
            if let Err(error) = ranks.sum_f64(numbers) {
                numbers.fill(f64::NAN);
                slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        });
        Self { reduction, failed }
    }

    fn check(&self) -> Result<(), CollectiveError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
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

    /// The factors of all ranks' parts of a step, in which so many targets have been summed over.
    fn finish(mut self, ranks: &Ranks, parts: u64, targets: f64) -> Result<Vec<LayerFactors>, TrainError> {
        if !ranks.is_alone() {
            self.sums.join(&mut |numbers| ranks.sum_f64(numbers))?;
        }
        let mut share = [self.share];
        ranks.sum_f64(&mut share)?;
        Ok(self.sums.finish(share[0] / parts as f64 / targets)?)
    }

    /// For a pass over examples of which no more count than should.
    fn taps(&self, positions: &Positions) -> Taps {
        Taps::of_first(self.most.min(positions.examples), positions.examples)
    }

    /// Adds what a pass over examples has written down.
    fn take(&mut self, taps: Taps, positions: &Positions) {
        let counted = positions.of_first(self.most);
        self.share += counted.examples as f64 / positions.examples.max(1) as f64;
        self.sums.add(taps.take(), &counted, true);
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
        let positions = objective.positions(model, batch);
        let taps = self.taps(&positions);
        objective.loss(model, batch, &pass.with_taps(taps.clone()), normalizer)?.backward();
        self.take(taps, &positions);
        Ok(())
    }
}
