//! Which trials there are.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::{Context, ensure};
use lapidary_collective::Ranks;
use lapidary_data::BatchOptions;
use lapidary_models::objective::PictureClassification;
use lapidary_train::optimizer::Interval;
use lapidary_train::study::{Status, StudyTrial, TrialOptions, TrialOutcome, evenly, grid};
use lapidary_train::{
    KfacOptions, Optimizer, OptimizerOptions, PictureBatches, Schedule, TrainOptions, Training, step,
};

use super::super::{PictureRun, data};
use crate::recipe::{Search, Study};

/// The search's trials: a setting of every size and optimizer, then the next setting, so that a study which is not done
/// knows something of everything.
///
/// # Errors
/// More steps than can be counted.
pub fn search(study: &Study, seed: u64, pictures: usize) -> anyhow::Result<Vec<StudyTrial>> {
    let mut batches = study.batch_sizes.clone();
    batches.sort_unstable();
    let smallest = batches.first().copied().unwrap_or(1);
    let points = |batch: usize, index: usize| {
        let dimensions = 1 + usize::from(study.optimizers[index].damping.is_some());
        match (study.search, dimensions) {
            // Other settings for each size and optimizer: what they share by accident says nothing then.
            (Search::Random, _) => {
                let place = (batch as u64) << 8 | index as u64;
                evenly(study.settings, dimensions, seed.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            }
            // A grid over one axis has all its points there.
            (Search::Grid, 1) => grid(study.settings, 1),
            (Search::Grid, _) => grid(study.settings.isqrt().max(1), dimensions),
        }
    };
    let places: BTreeMap<(usize, usize), Vec<Vec<f64>>> = batches
        .iter()
        .flat_map(|batch| (0..study.optimizers.len()).map(move |index| (*batch, index)))
        .map(|(batch, index)| ((batch, index), points(batch, index)))
        .collect();
    let mut trials = Vec::new();
    for setting in 0..study.settings {
        for &batch in batches.iter().rev() {
            for (index, studied) in study.optimizers.iter().enumerate() {
                let Some(point) = places.get(&(batch, index)).and_then(|points| points.get(setting)) else { continue };
                let times = batch as f64 / smallest as f64;
                let an_epoch = pictures.div_ceil(batch) as u64;
                let epochs = study.epochs_for(times);
                let steps = (epochs * an_epoch as f64).ceil().max(1.0);
                ensure!(steps < 1e12, "study.epochs makes {steps:.0} steps at a batch of {batch}; lower it");
                let steps = (steps as u64).min(study.most_steps.unwrap_or(u64::MAX));
                let rate = studied.learning_rate.at(point[0]) * study.scaling.factor(times);
                let optimizer = match (studied.optimizer, studied.damping) {
                    (OptimizerOptions::Kfac(mut kfac), Some(damping)) => {
                        kfac.damping = damping.at(point[1]);
                        OptimizerOptions::Kfac(kfac)
                    }
                    (optimizer, _) => optimizer,
                };
                let warmup = (study.warmup_epochs * an_epoch as f64 / steps as f64).min(1.0);
                let options = TrialOptions {
                    optimizer,
                    schedule: Schedule::new(rate, warmup, steps).with_decay(study.decay),
                    accumulate: 1,
                    look_every: (an_epoch / study.looks as u64).max(1),
                    seed,
                    target_loss: study.target_loss,
                    target_accuracy: study.target_accuracy,
                    stop_at_targets: study.stop_at_targets,
                };
                trials.push(StudyTrial {
                    id: 0,
                    optimizer: studied.name.clone(),
                    batch,
                    setting,
                    repetition: 0,
                    options,
                    status: Status::Pending,
                    outcome: None,
                });
            }
        }
    }
    Ok(trials)
}

/// The repetition that measures the noise of the gradient.
pub const NOISE: usize = 1_000_000;

/// Of every size and optimizer whose search is done, the best setting again, with seeds of their own.
pub fn repetitions(study: &Study, trials: &[StudyTrial]) -> Vec<StudyTrial> {
    let places: BTreeSet<(&str, usize)> = trials.iter().map(|trial| (trial.optimizer.as_str(), trial.batch)).collect();
    let mut planned = Vec::new();
    for (optimizer, batch) in places {
        let of_search: Vec<&StudyTrial> = searched(trials, optimizer, batch).collect();
        if of_search.iter().any(|trial| trial.status != Status::Done) {
            continue;
        }
        let Some(best) = best(&of_search) else { continue };
        // The noise is measured by a training of its own: in two halves a norm has other statistics.
        let measures = study.noise_scale && batch.is_multiple_of(2);
        let noise = measures.then_some((NOISE, 0, 2));
        let again = (1..study.seeds).map(|repetition| (repetition, repetition as u64, 1));
        for (repetition, seed, accumulate) in again.chain(noise) {
            let seed = best.options.seed.wrapping_add(seed);
            let options = TrialOptions { seed, accumulate, ..best.options.clone() };
            let (status, outcome) = (Status::Pending, None);
            planned.push(StudyTrial { id: 0, repetition, options, status, outcome, ..best.clone() });
        }
    }
    planned
}

/// The trials of the search of one size and optimizer.
pub fn searched<'a>(
    trials: &'a [StudyTrial],
    optimizer: &'a str,
    batch: usize,
) -> impl Iterator<Item = &'a StudyTrial> {
    trials.iter().filter(move |it| it.optimizer == optimizer && it.batch == batch && it.repetition == 0)
}

/// The one that came to its target in the fewest steps; where none did, that of the lowest loss at its end.
pub fn best<'a>(of_search: &[&'a StudyTrial]) -> Option<&'a StudyTrial> {
    let rank = |trial: &StudyTrial| {
        let outcome = trial.outcome.as_ref()?;
        let steps = outcome.steps_to_loss.unwrap_or(f64::INFINITY);
        let loss = if outcome.diverged_at.is_some() { f64::INFINITY } else { outcome.last_loss()? };
        Some((steps, loss))
    };
    let ranked = of_search.iter().filter_map(|trial| Some((rank(trial)?, *trial)));
    ranked.min_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))).map(|(_, trial)| trial)
}

/// The damping of a trial that has one.
pub fn damping(options: &TrialOptions) -> Option<f64> {
    match &options.optimizer {
        OptimizerOptions::Kfac(kfac) => Some(kfac.damping),
        _ => None,
    }
}

/// Whether an outcome counts as one that held.
pub fn held(outcome: &TrialOutcome) -> bool {
    outcome.diverged_at.is_none()
}

/// What a study costs if every training runs to its end.
pub struct Cost {
    /// Of each optimizer and size: its name, pictures a step, trials, steps of each.
    pub parts: Vec<(String, usize, usize, u64)>,
    /// Pictures that are shown, in all.
    pub pictures: f64,
    /// Seconds, from a few steps of each optimizer at the smallest batch.
    pub seconds: f64,
}

/// What is left to do of some trials, the repetitions that are not planned yet counted with them.
///
/// # Errors
/// A step that fails.
pub fn cost(run: &PictureRun, study: &Study, trials: &[StudyTrial]) -> anyhow::Result<Cost> {
    let mut parts = Vec::new();
    let (mut pictures, mut seconds) = (0.0, 0.0);
    for studied in &study.optimizers {
        let a_picture = seconds_a_picture(run, study, &studied.optimizer)?;
        let mut batches = study.batch_sizes.clone();
        batches.sort_unstable();
        for batch in batches {
            let of_search: Vec<&StudyTrial> = searched(trials, &studied.name, batch).collect();
            let steps = of_search.first().map_or(0, |trial| trial.options.schedule.total);
            let left = of_search.iter().filter(|trial| trial.status != Status::Done).count();
            let again = trials.iter().filter(|it| {
                it.optimizer == studied.name && it.batch == batch && it.repetition > 0 && it.status == Status::Done
            });
            let measures = usize::from(study.noise_scale && batch.is_multiple_of(2));
            let left = left + (study.seeds - 1 + measures).saturating_sub(again.count());
            let shown = left as f64 * steps as f64 * batch as f64;
            pictures += shown;
            seconds += shown * a_picture;
            parts.push((studied.name.clone(), batch, left, steps));
        }
    }
    Ok(Cost { parts, pictures, seconds })
}

/// Seconds of training for a picture, at the smallest batch: of K-FAC plain steps, looks at the factors and inversions are
/// timed apart and weighed by their intervals.
fn seconds_a_picture(run: &PictureRun, study: &Study, optimizer: &OptimizerOptions) -> anyhow::Result<f64> {
    let batch = study.batch_sizes.iter().copied().min().unwrap_or(1);
    let seconds = match *optimizer {
        OptimizerOptions::Kfac(kfac) => {
            let every = |factors: u64, inverses: u64| {
                let [factors, inverses] = [factors, inverses].map(|every| Interval { burn_in: 0, every });
                seconds_a_step(run, batch, &OptimizerOptions::Kfac(KfacOptions { factors, inverses, ..kfac }))
            };
            let (plain, looking, all) = (every(u64::MAX, u64::MAX)?, every(1, u64::MAX)?, every(1, 1)?);
            plain
                + (looking - plain).max(0.0) / kfac.factors.every as f64
                + (all - looking).max(0.0) / kfac.inverses.every as f64
        }
        optimizer => seconds_a_step(run, batch, &optimizer)?,
    };
    Ok(seconds / batch as f64)
}

/// The mean of a few steps after the first, on which K-FAC has all to do.
fn seconds_a_step(run: &PictureRun, batch: usize, optimizer: &OptimizerOptions) -> anyhow::Result<f64> {
    const STEPS: u64 = 3;
    let size = NonZeroUsize::new(batch).context("a batch of no pictures")?;
    let options = BatchOptions { batch_size: size, bucket_batches: NonZeroUsize::MIN, seed: run.recipe.seed };
    let pictures = run.pictures;
    let batches = PictureBatches::new(&pictures.train, pictures.normalization, pictures.augmentation, options)?;
    let mut model = data::fresh(run.recipe, pictures, run.recipe.seed, run.device)?;
    let options = TrainOptions {
        name: String::new(),
        schedule: Schedule::new(1e-4, 0.0, STEPS),
        optimizer: *optimizer,
        accumulate: 1,
        clip: 0.0,
        precision: lapidary_kernels::precision::Precision::F32,
        dropout: 0.0,
        seed: run.recipe.seed,
        evaluate_every: 0,
        save_every: 0,
        keep: 1,
        noise_scale: false,
        sync_batch_norm: false,
    };
    let mut optimizer = Optimizer::new(optimizer);
    let training =
        Training { objective: &PictureClassification, source: &batches, options: &options, ranks: &Ranks::alone() };
    let mut begun = Instant::now();
    for at in 0..=STEPS {
        if at == 1 {
            begun = Instant::now();
        }
        (model, _) = step(model, &training, &mut optimizer, at, 1e-4)?;
    }
    Ok(begun.elapsed().as_secs_f64() / STEPS as f64)
}
