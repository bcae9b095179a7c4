//! `lapidary run`: all stages of a recipe.

use std::path::PathBuf;

use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_data::Tokenizer;
use lapidary_eval::report::qbert;
use lapidary_train::Interrupt;

use super::Options;
use crate::device;
use crate::exit::Usage;
use crate::output;
use crate::pictures::{self, PictureFiles, PictureRun, Pictures};
use crate::pipeline::report::{self, Naming, Written};
use crate::pipeline::{self, BertSource, Examples, ModelSource, Run};
use crate::recipe::{self, PictureRecipe, Recipe, RecipeKind, Roots, TextRecipe};
use crate::stage::RunFolder;
use crate::text::{self, TextRun};
use crate::together;

/// Arguments of `lapidary run`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The recipe, a TOML file
    recipe: PathBuf,

    /// Set a key of the recipe, such as finetune.epochs=2
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Folder for stages, result.json and report.html [default: runs/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Folder that the recipe's data lies in [default: $LAPIDARY_DATA, else data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Folder that the recipe's checkpoints lie in [default: $LAPIDARY_MODELS, else the cache folder]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
}

/// Runs every stage that is not done yet and writes the result.
pub fn run(args: &Args, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
    match recipe::kind(&args.recipe) {
        RecipeKind::Text => return run_text(args, options, device, ranks),
        RecipeKind::Pictures => return run_pictures(args, options, device, ranks),
        RecipeKind::Classes if !ranks.is_alone() => {
            return Err(Usage::new(format!(
                "{}: recipes that classify are run by one process; those of text and pictures are shared out to ranks",
                args.recipe.display()
            ))
            .into());
        }
        RecipeKind::Classes => (),
    }
    let mut recipe = Recipe::read(&args.recipe, &args.set)?;
    device::check(device, recipe.finetune.precision)?;
    if let Some(seed) = options.seed {
        recipe.seeds = vec![seed];
    }
    let interrupt = Interrupt::listen()?;
    let roots = roots(args, &interrupt);
    let checkpoint = roots.model(&recipe.model.checkpoint)?;
    let examples = Examples::of_recipe(&recipe, &roots, Tokenizer::load(&checkpoint)?)?;
    let source = BertSource::open(&checkpoint, &examples.task)?;
    source.check(&examples)?;
    let folder = RunFolder::open(&out(args, &recipe.name))?;
    let run = Run { recipe: &recipe, folder: &folder, examples: &examples, device, interrupt: &interrupt };
    let outcome = pipeline::all(&run, &source)?;
    let task = recipe::metric_key(recipe.name.strip_prefix("qbert-").unwrap_or(&recipe.name));
    let naming = Naming { task: &task, split: "dev", title: &title(&recipe) };
    let written = report::write(&run, &outcome, &naming, None)?;
    output::print(options.json, &written.run, &Summary(&written))
}

/// The same for a recipe of text.
fn run_text(args: &Args, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
    let mut recipe = TextRecipe::read(&args.recipe, &args.set)?;
    device::check(device, recipe.pretrain.precision)?;
    recipe.seed = options.seed.unwrap_or(recipe.seed);
    let interrupt = Interrupt::listen()?;
    let folder = together::folder(ranks, &out(args, &recipe.name))?;
    let roots = roots(args, &interrupt);
    let run = together::in_turn(ranks, || TextRun::new(&recipe, &roots, &folder, (device, ranks), &interrupt))?;
    let outcome = text::all(&run)?;
    if !ranks.is_first() {
        return Ok(());
    }
    let written = text::write(&run, &outcome)?;
    output::print(options.json, &written.run, &TextSummary(&written))
}

/// The same for a recipe of pictures.
fn run_pictures(args: &Args, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
    let mut recipe = PictureRecipe::read(&args.recipe, &args.set)?;
    if recipe.train.variants.is_empty() {
        let what = if recipe.study.is_some() { "; it has a [study], which `lapidary study` runs" } else { "" };
        return Err(
            Usage::new(format!("{} trains nothing: it has no [[train.variant]]{what}", args.recipe.display())).into()
        );
    }
    device::check(device, recipe.train.precision)?;
    recipe.seed = options.seed.unwrap_or(recipe.seed);
    let interrupt = Interrupt::listen()?;
    let roots = roots(args, &interrupt);
    let files = together::in_turn(ranks, || PictureFiles::find(&recipe, &roots))?;
    let folder = together::folder(ranks, &out(args, &recipe.name))?;
    let pictures = Pictures::read(&recipe, &files)?;
    let run =
        PictureRun { recipe: &recipe, folder: &folder, pictures: &pictures, device, ranks, interrupt: &interrupt };
    let trained =
        recipe.train.variants.iter().map(|variant| pictures::train(&run, variant)).collect::<Result<Vec<_>, _>>()?;
    if !ranks.is_first() {
        return Ok(());
    }
    let written = pictures::write(&run, &trained)?;
    output::print(options.json, &written.run, &PictureSummary(&written))
}

/// What a person reads at the end of a run on pictures.
struct PictureSummary<'a>(&'a pictures::Written);

impl std::fmt::Display for PictureSummary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.0.table.to_markdown())?;
        writeln!(f, "{}\n{}", self.0.result.display(), self.0.report.display())
    }
}

fn out(args: &Args, name: &str) -> PathBuf {
    args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name))
}

fn roots(args: &Args, interrupt: &Interrupt) -> Roots {
    let roots = Roots::from_env();
    Roots {
        data: args.data.clone().unwrap_or(roots.data),
        models: args.models.clone().unwrap_or(roots.models),
        interrupt: interrupt.clone(),
        ..roots
    }
}

/// What a person reads at the end of a run on text.
struct TextSummary<'a>(&'a text::Written);

impl std::fmt::Display for TextSummary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for table in [&self.0.table].into_iter().chain(&self.0.tasks) {
            writeln!(f, "{}", table.to_markdown())?;
        }
        writeln!(f, "{}\n{}", self.0.result.display(), self.0.report.display())
    }
}

fn title(recipe: &Recipe) -> String {
    if recipe.description.is_empty() { recipe.name.clone() } else { recipe.description.clone() }
}

/// What a person reads at the end of a run.
pub struct Summary<'a>(pub &'a Written);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", qbert::table(&self.0.run).to_markdown())?;
        writeln!(f, "{}\n{}", self.0.result.display(), self.0.report.display())
    }
}
