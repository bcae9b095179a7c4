//! `lapidary report`: the README's tables from committed results.

use std::path::PathBuf;

use anyhow::Context;
use lapidary_eval::report::readme;
use lapidary_eval::result::RunResult;
use lapidary_models::checkpoint::atomic_write;

use crate::exit::Usage;

/// Arguments of `lapidary report`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Fill the tables of this README between its markers
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "README.md")]
    readme: Option<PathBuf>,

    /// Folder of result files
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,

    /// Only say whether the tables are up to date
    #[arg(long)]
    check: bool,
}

/// Fills the tables, or checks them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Some(path) = &args.readme else {
        return Err(Usage::new("nothing to write: say --readme").into());
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let filled = readme::fill(&text, &RunResult::read_folder(&args.results)?)?;
    if args.check {
        anyhow::ensure!(filled == text, "{} is not up to date: run lapidary report --readme", path.display());
    } else if filled != text {
        atomic_write(path, |writer| writer.write_all(filled.as_bytes()))?;
    }
    Ok(())
}
