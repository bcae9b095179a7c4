//! `lapidary study`: how optimizers take to larger batches, each tuned anew at each size.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_eval::report::number;
use lapidary_train::Interrupt;
use serde_json::json;

use super::Options;
use crate::exit::Usage;
use crate::output;
use crate::pictures::study::{self, Cost, Workers};
use crate::pictures::{PictureFiles, PictureRun, Pictures, Written};
use crate::recipe::{PictureRecipe, Roots, Study};
use crate::stage::RunFolder;
use crate::together;

/// Arguments of `lapidary study`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The recipe, a TOML file of kind "pictures" with a [study]
    recipe: PathBuf,

    /// Set a key of the recipe, such as study.settings=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Folder for study.sqlite, result.json and report.html [default: runs/NAME-study]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Folder that the recipe's data lies in [default: $LAPIDARY_DATA, else data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Processes that trials are shared out to; the threads are divided among them
    #[arg(long, value_name = "N", default_value = "1")]
    workers: NonZeroUsize,

    /// Print what there is to do and about how long it takes, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Write result.json and report.html from what is done, and do no more
    #[arg(long, conflicts_with = "dry_run")]
    report: bool,

    /// A process of a study that another one, of this number, watches
    #[arg(long, hide = true, value_name = "PROCESS")]
    worker: Option<u32>,
}

/// Runs every trial that is not done yet and writes the result.
pub fn run(args: &Args, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
    if !ranks.is_alone() && (args.workers.get() > 1 || args.dry_run || args.report) {
        return Err(Usage::new(
            "among ranks a study is run, each with one trial at a time: leave --workers, --dry-run and --report out",
        )
        .into());
    }
    let mut recipe = PictureRecipe::read(&args.recipe, &args.set)?;
    recipe.seed = options.seed.unwrap_or(recipe.seed);
    if args.workers.get() > 1 && *device != Device::flex() {
        return Err(Usage::new("--workers shares out the CPU's threads; leave it out with --device").into());
    }
    let interrupt = Interrupt::listen()?;
    let roots = Roots::from_env();
    let data = args.data.clone().unwrap_or(roots.data);
    let roots = Roots { data, interrupt: interrupt.clone(), ..roots };
    let files = together::in_turn(ranks, || PictureFiles::find(&recipe, &roots))?;
    let pictures = Pictures::read(&recipe, &files)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(format!("{}-study", recipe.name)));
    // A worker's folder is its watcher's.
    let shared = args.worker.is_some() || args.report;
    // A dry run leaves nothing behind, and what is in flight may be reported on.
    let dry = args.dry_run.then(tempfile::tempdir).transpose()?;
    let folder = match (&dry, shared) {
        (Some(dry), _) if !out.join(study::FILE).is_file() => RunFolder::open(dry.path())?,
        (_, true) => RunFolder::shared(&out)?,
        _ => together::folder(ranks, &out)?,
    };
    let run =
        PictureRun { recipe: &recipe, folder: &folder, pictures: &pictures, device, ranks, interrupt: &interrupt };
    let of_recipe = study::of(&run)?;
    if !ranks.is_alone() {
        return among(&run, of_recipe, options);
    }
    let mut store = study::open(&run, of_recipe)?;
    if args.worker.is_some() {
        return study::work(&run, of_recipe, &mut store, args.worker);
    }
    if args.dry_run {
        let cost = study::cost(&run, of_recipe, &store.trials()?)?;
        return output::print(options.json, &costs(&cost, args.workers), &CostSummary(&cost));
    }
    if !args.report {
        let arguments = worker_arguments(args, options, &out);
        let threads = (rayon::current_num_threads() / args.workers.get()).max(1);
        study::run(&run, of_recipe, &mut store, &Workers { count: args.workers, threads, arguments })?;
    }
    let written = study::write(&run, of_recipe, &store)?;
    output::print(options.json, &written.run, &Summary(&written))
}

/// A study by several ranks: each takes a trial after the other from the one file.
fn among(run: &PictureRun, of_recipe: &Study, options: &Options) -> anyhow::Result<()> {
    let ranks = run.ranks;
    // The first lets go of what was in flight before any other takes a trial.
    let mut store = together::first(ranks, || {
        let mut store = study::open(run, of_recipe)?;
        if ranks.is_first() {
            study::release(&mut store, of_recipe)?;
        }
        Ok(store)
    })?;
    // A trial is one rank's own, and so is its error: no other knows of it.
    study::work(run, of_recipe, &mut store, None).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    ranks.wait_for_all()?;
    if !ranks.is_first() {
        return Ok(());
    }
    let written = study::write(run, of_recipe, &store)?;
    output::print(options.json, &written.run, &Summary(&written))
}

/// How a worker is called to find the same study.
fn worker_arguments(args: &Args, options: &Options, out: &std::path::Path) -> Vec<String> {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut arguments = vec!["study".to_owned(), path(&args.recipe), "--out".to_owned(), path(out)];
    arguments.extend(args.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    arguments.extend(args.data.iter().flat_map(|data| ["--data".to_owned(), path(data)]));
    arguments.extend(options.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    arguments
}

fn costs(cost: &Cost, workers: NonZeroUsize) -> serde_json::Value {
    let part = |(optimizer, batch, trials, steps): &(String, usize, usize, u64)| json!({ "optimizer": optimizer, "batch": batch, "trials": trials, "steps": steps });
    let parts: Vec<_> = cost.parts.iter().map(part).collect();
    json!({ "parts": parts, "pictures": cost.pictures, "seconds": cost.seconds, "workers": workers })
}

/// What a dry run prints.
struct CostSummary<'a>(&'a Cost);

impl std::fmt::Display for CostSummary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(cost) = self;
        for (optimizer, batch, trials, steps) in &cost.parts {
            writeln!(f, "{optimizer}, batch {batch}: {trials} trainings of {steps} steps at most")?;
        }
        let trials: usize = cost.parts.iter().map(|(_, _, trials, _)| trials).sum();
        writeln!(
            f,
            "{trials} trainings, {:.1} million pictures shown and {} at most, if none comes to its targets before its end",
            cost.pictures / 1e6,
            number::duration(cost.seconds)
        )
    }
}

/// What a person reads at the end.
struct Summary<'a>(&'a Written);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.0.table.to_markdown())?;
        for note in &self.0.run.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f, "\n{}\n{}", self.0.result.display(), self.0.report.display())
    }
}
