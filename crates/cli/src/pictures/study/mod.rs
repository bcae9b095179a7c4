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
use lapidary_models::objective::PictureClassification;
use lapidary_models::resnet::ResNet;
use lapidary_train::study::{Seen, Status, StudyStore, StudyTrial, TrialOptions, TrialOutcome, run_trial};
use lapidary_train::{PictureBatches, Progress};

use super::{PictureRun, data};
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
    let settings = serde_json::json!({
        "seed": recipe.seed,
        "data": recipe.data,
        "model": recipe.model,
        "study": study,
        "pictures": [run.pictures.train.len(), run.pictures.kept.len()],
    });
    let mut store = StudyStore::open(&path, &settings)?;
    store.plan(&plan::search(study, recipe.seed, run.pictures.train.len())?)?;
    Ok(store)
}

/// Takes trials until there are none left; tells of each.
///
/// # Errors
/// What has nothing to do with a trial's settings; stopped by a signal.
pub fn work(run: &PictureRun, study: &Study, store: &mut StudyStore, say: bool) -> anyhow::Result<()> {
    while let Some(trial) = store.take()? {
        let begun = Instant::now();
        let outcome = trial_outcome(run, &trial)?;
        store.finish(trial.id, &outcome)?;
        store.plan(&plan::repetitions(study, &store.trials()?))?;
        if say {
            tracing::info!("{}: {} [{:.0} s]", title(&trial), summary(&outcome), begun.elapsed().as_secs_f64());
        }
    }
    Ok(())
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
    // Pictures from all over the training part, always the same.
    let every = (pictures.train.len() / SAMPLE).max(1);
    let sample: Vec<usize> = (0..pictures.train.len()).step_by(every).take(SAMPLE).collect();
    let mut look = |model: &ResNet| {
        let model = model.valid();
        let (loss, _) = pictures.look(&model, &pictures.train, &sample)?;
        let (_, accuracy) = pictures.look_at_all(&model, &pictures.kept)?;
        Ok(Seen { loss, accuracy })
    };
    Ok(run_trial(fresh, &PictureClassification, &batches, &mut look, &trial.options, run.interrupt)?)
}

/// Runs all trials that are left, in this process or in as many others as are asked for.
///
/// # Errors
/// As [`work`], and a process that ended otherwise than it should.
pub fn run(run: &PictureRun, study: &Study, store: &mut StudyStore, workers: &Workers) -> anyhow::Result<()> {
    let lost = store.release()?;
    if lost > 0 {
        tracing::info!("{lost} trials were in flight when the study was stopped; they begin again");
    }
    // Of a study that was stopped between the two.
    store.plan(&plan::repetitions(study, &store.trials()?))?;
    if workers.count.get() == 1 {
        let done = |trials: &[StudyTrial]| trials.iter().filter(|trial| trial.status == Status::Done).count();
        let trials = store.trials()?;
        tracing::info!("{} of {} trials are done", done(&trials), trials.len());
        return work(run, study, store, true);
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

/// Shows how far the processes are, until all have ended.
fn watch(run: &PictureRun, store: &StudyStore, children: &mut [Child]) -> anyhow::Result<()> {
    let mut progress: Option<(usize, Progress)> = None;
    loop {
        let trials = store.trials()?;
        let done = trials.iter().filter(|trial| trial.status == Status::Done).count();
        let all = trials.len();
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
        command.args(&self.arguments).arg("--worker").args(["--threads", &self.threads.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        // Each trial's line from several processes would be too many.
        if std::env::var_os("LAPIDARY_LOG").is_none() {
            command.env("LAPIDARY_LOG", "warn");
        }
        command.spawn().context("cannot start a process of the study")
    }
}
