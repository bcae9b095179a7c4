//! `lapidary run`: all stages of a recipe.

use std::path::PathBuf;

use lapidary_data::Tokenizer;
use lapidary_train::Interrupt;

use super::Options;
use crate::pipeline::{self, BertSource, Examples, ModelSource, Run};
use crate::recipe::{Recipe, Roots};
use crate::stage::RunFolder;

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
pub fn run(args: &Args, options: &Options) -> anyhow::Result<()> {
    let mut recipe = Recipe::read(&args.recipe, &args.set)?;
    if let Some(seed) = options.seed {
        recipe.seeds = vec![seed];
    }
    let mut roots = Roots::from_env();
    roots.data = args.data.clone().unwrap_or(roots.data);
    roots.models = args.models.clone().unwrap_or(roots.models);

    let interrupt = Interrupt::listen()?;
    let checkpoint = roots.model(&recipe.model.checkpoint)?;
    let source = BertSource::open(&checkpoint, &recipe.model.labels)?;
    let examples = Examples::of_recipe(&recipe, &roots, Tokenizer::load(&checkpoint)?)?;
    source.check(&examples)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(&recipe.name));
    let folder = RunFolder::open(&out)?;
    let run = Run { recipe: &recipe, folder: &folder, examples: &examples, interrupt: &interrupt };
    for &seed in &recipe.seeds {
        pipeline::finetune(&run, &source, seed)?;
    }
    Ok(())
}
