//! `lapidary study`: the trials of a recipe, run one after the other or in several processes, and what follows from them.

mod analysis;
mod plan;
mod report;

use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use burn::module::Module;
use lapidary_data::BatchOptions;
use lapidary_models::Pass;
use lapidary_models::objective::PictureClassification;
use lapidary_models::resnet::ResNet;
use lapidary_train::study::{Counts, Seen, StudyStore, StudyTrial, TrialOptions, TrialOutcome, run_trial};
use lapidary_train::{PictureBatches, Progress};

use super::{PictureRun, data};
use crate::device;
use crate::recipe::Study;

pub use plan::{Cost, cost};
pub use report::write;

/// The file of a study, in its folder.
pub const FILE: &str = "study.sqlite";

/// Pictures of the training part that the training loss is looked at on.
const SAMPLE: usize = 1000;

/// The study of a recipe that has one.
///
/// # Errors
/// It has none, or one whose batches the data are too few for.
pub fn of<'a>(run: &PictureRun<'a>) -> anyhow::Result<&'a Study> {
    let study = run
        .recipe
        .study
        .as_ref()
        .context("the recipe has no [study]; CONTRIBUTING.md and recipes/kfac-cifar10.toml show one")?;
    if let Some(batch) = study.batch_sizes.iter().find(|batch| **batch > run.pictures.train.len()) {
        bail!(
            "study.batch_sizes has {batch}, and there are {} pictures to train on: take smaller batches or more pictures",
            run.pictures.train.len()
        );
    }
    Ok(study)
}

/// Opens the file of the study, with all trials of the search in it.
///
/// # Errors
/// A damaged file, or that of another recipe.
pub fn open(run: &PictureRun, study: &Study) -> anyhow::Result<StudyStore> {
    let (recipe, path) = (run.recipe, run.folder.path().join(FILE));
    let mut of_study = serde_json::to_value(study)?;
    if let Some(fields) = of_study.as_object_mut() {
        // More of them are more rows, and change none.
        fields.remove("seeds");
    }
    let settings = serde_json::json!({
        "seed": recipe.seed,
        "data": data::settings(recipe, run.pictures),
        "model": recipe.model,
        "study": of_study,
        "device": device::name(run.device),
    });
    let mut store = StudyStore::open(&path, &settings)?;
    store.plan(&plan::search(study, recipe.seed, run.pictures.train.len())?)?;
    Ok(store)
}

/// Takes trials until there are none left, nor any that others are still at and more may follow from. A process that was
/// started by a `watcher` ends with it.
///
/// # Errors
/// What has nothing to do with a trial's settings; stopped by a signal.
pub fn work(run: &PictureRun, study: &Study, store: &mut StudyStore, watcher: Option<u32>) -> anyhow::Result<()> {
    loop {
        ensure!(watcher.is_none_or(|id| parent() == Some(id)), "the process that watched this study has ended");
        let Some(trial) = store.take()? else {
            if store.counts()?.running == 0 {
                return Ok(());
            }
            ensure!(!run.interrupt.raised(), "stopped; run the same command again to go on");
            std::thread::sleep(Duration::from_millis(500));
            continue;
        };
        let begun = Instant::now();
        let outcome = trial_outcome(run, &trial)?;
        if !store.finish(trial.id, &outcome)? {
            tracing::warn!("{}: another process has taken it meanwhile, and its outcome counts", title(&trial));
        }
        store.plan(&plan::repetitions(study, &store.trials()?))?;
        tracing::info!("{}: {} [{:.0} s]", title(&trial), summary(&outcome), begun.elapsed().as_secs_f64());
    }
}

/// The process that started this one.
fn parent() -> Option<u32> {
    #[cfg(unix)]
    return Some(std::os::unix::process::parent_id());
    #[cfg(not(unix))]
    None
}

/// A trial in a few words.
fn title(trial: &StudyTrial) -> String {
    let StudyTrial { optimizer, batch, setting, repetition, options, .. } = trial;
    let rate = options.schedule.peak;
    let damping = plan::damping(options).map_or(String::new(), |damping| format!(", damping {damping:.2e}"));
    let again = if *repetition > 0 { format!(", seed {}", options.seed) } else { String::new() };
    format!("{optimizer}, batch {batch}, setting {setting} (rate {rate:.2e}{damping}{again})")
}

fn summary(outcome: &TrialOutcome) -> String {
    match (outcome.steps_to_loss, outcome.diverged_at, outcome.last_loss()) {
        (Some(steps), ..) => format!("at the target after {steps:.0} steps"),
        (None, Some(step), _) => format!("diverged at step {step}"),
        (None, None, Some(loss)) => format!("not at the target after {} steps, loss {loss:.3}", outcome.steps),
        (None, None, None) => format!("not at the target after {} steps", outcome.steps),
    }
}

fn trial_outcome(run: &PictureRun, trial: &StudyTrial) -> anyhow::Result<TrialOutcome> {
    let TrialOptions { seed, accumulate, .. } = trial.options;
    let pictures = run.pictures;
    let size = NonZeroUsize::new(trial.batch / accumulate.max(1) as usize).context("a batch of no pictures")?;
    let options = BatchOptions { batch_size: size, bucket_batches: NonZeroUsize::MIN, seed };
    let batches = PictureBatches::new(&pictures.train, pictures.normalization, pictures.augmentation, options)?;
    let fresh = data::fresh(run.recipe, pictures, seed, run.device)?;
    // The statistics that a network remembers lag some twenty steps behind, which is most of a training by large batches:
    // what is looked at has its own.
    let pass = Pass::batch_statistics();
    let mut look = |model: &ResNet| {
        let model = model.valid();
        let Seen { loss, .. } = pictures.look(&model, &pictures.train, SAMPLE.min(pictures.train.len()), &pass)?;
        let Seen { accuracy, .. } = pictures.look(&model, &pictures.kept, pictures.kept.len(), &pass)?;
        Ok(Seen { loss, accuracy })
    };
    Ok(run_trial(fresh, &PictureClassification, &batches, &mut look, &trial.options, run.interrupt)?)
}

/// Runs all trials that are left, in this process or in as many others as are asked for.
///
/// # Errors
/// As [`work`], and a process that ended otherwise than it should.
pub fn run(run: &PictureRun, study: &Study, store: &mut StudyStore, workers: &Workers) -> anyhow::Result<()> {
    release(store, study)?;
    if workers.count.get() == 1 {
        let Counts { done, all, .. } = store.counts()?;
        tracing::info!("{done} of {all} trials are done");
        return work(run, study, store, None);
    }
    let mut children: Vec<Child> = (0..workers.count.get()).map(|_| workers.start()).collect::<Result<_, _>>()?;
    let watched = watch(run, store, &mut children);
    if watched.is_err() {
        for child in &mut children {
            // One that has ended already cannot be ended again.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
    watched
}

/// Readies a study that may have been stopped for the first of its processes.
///
/// # Errors
/// Those of its file.
pub fn release(store: &mut StudyStore, study: &Study) -> anyhow::Result<()> {
    let lost = store.release()?;
    if lost > 0 {
        tracing::info!("{lost} trials were in flight when the study was stopped; they begin again");
    }
    // Of a study that was stopped between the two.
    Ok(store.plan(&plan::repetitions(study, &store.trials()?))?)
}

/// Shows how far the processes are, until all have ended.
fn watch(run: &PictureRun, store: &StudyStore, children: &mut [Child]) -> anyhow::Result<()> {
    let mut progress: Option<(usize, Progress)> = None;
    loop {
        let Counts { done, all, .. } = store.counts()?;
        if progress.as_ref().is_none_or(|(known, _)| *known != all) {
            progress = Some((all, Progress::new("study", all as u64, done as u64)));
        }
        if let Some((_, progress)) = &mut progress {
            progress.set(done as u64, "trials");
        }
        let mut running = 0;
        for child in children.iter_mut() {
            match child.try_wait()? {
                None => running += 1,
                Some(status) => {
                    ensure!(status.success() || run.interrupt.raised(), "a process of the study ended with {status}")
                }
            }
        }
        if running == 0 {
            ensure!(!run.interrupt.raised(), "stopped; run the same command again to go on");
            return Ok(());
        }
        // Not every signal reaches the others; what they are at is lost either way.
        ensure!(!run.interrupt.raised(), "stopped; run the same command again to go on");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// Processes that trials are shared out to.
pub struct Workers {
    pub count: NonZeroUsize,
    /// Threads of each.
    pub threads: usize,
    /// Arguments of `lapidary study` that say which recipe it is.
    pub arguments: Vec<String>,
}

impl Workers {
    fn start(&self) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let mut command = Command::new(program);
        command.args(&self.arguments).args(["--threads", &self.threads.to_string()]);
        command.args(["--worker", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // Each trial's line from several processes would be too many.
        if std::env::var_os("LAPIDARY_LOG").is_none() {
            command.env("LAPIDARY_LOG", "warn");
        }
        command.spawn().context("cannot start a process of the study")
    }
}
