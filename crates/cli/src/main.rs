//! The binary `lapidary`: arguments in, stages called, exit code out.
//!
//! Results go to standard output, logs and progress to standard error. Whatever goes wrong ends with one line,
//! `error: ...`, and exit code 2 for a call, recipe or configuration that cannot be, 1 for all else.

mod command;
mod curvature;
mod device;
mod examples;
mod exit;
mod output;
mod pictures;
mod pipeline;
mod recipe;
mod stage;
mod text;
mod together;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use lapidary_collective::Ranks;
use lapidary_kernels::isa;
use lapidary_train::TrainError;

use command::{Command, Options};
use device::Choice;
use exit::Usage;

/// Training allocates and frees large temporaries at every step; the system's allocator gives them back each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains transformers, finds out where their loss is flat, and cuts them down to a few bits there.
#[derive(Parser)]
#[command(name = "lapidary", version)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_call(&error),
    };
    let ranks = match Ranks::of_job() {
        Ok(ranks) => ranks,
        Err(error) => return exit::of_error(&error.into()),
    };
    match run(cli, &ranks) {
        Ok(()) => {
            ranks.close();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = exit::of_error(&error);
            // The others may wait for this one. Where all have stopped together none does, nor at the end of the work.
            if !stopped(&error) && code != ExitCode::SUCCESS {
                ranks.abort();
            }
            code
        }
    }
}

/// Whether it is all ranks' error: they were asked to stop, and have saved what they had.
fn stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TrainError::Interrupted { .. }))
}

fn run(cli: Cli, ranks: &Ranks) -> anyhow::Result<()> {
    start_log(ranks)?;
    let device = device::open(cli.options.device)?;
    if cli.options.device != Choice::Cpu {
        tracing::info!("computing on {}", device::name(&device));
    }
    // Asked first, so that a set this machine lacks is a bad call and not a failure of the first kernel.
    isa::selected().map_err(|error| Usage::new(error.to_string()))?;
    let threads = cli.options.threads.map_or(0, |threads| usize::from(threads.get()));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?;
    // From inside the pool a kernel starts at once; from outside each would wait for a thread to wake.
    pool.install(|| cli.command.run(&cli.options, &device, ranks))
}

/// Logs go to standard error, by default from `info` on, of other ranks than the first from `warn` on; `LAPIDARY_LOG` takes
/// the directives of `tracing`.
fn start_log(ranks: &Ranks) -> anyhow::Result<()> {
    const VARIABLE: &str = "LAPIDARY_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) => {
            EnvFilter::try_new(&directives).map_err(|error| Usage::new(format!("{VARIABLE}={directives}: {error}")))?
        }
        Err(_) => EnvFilter::new(if ranks.is_first() { "info" } else { "warn" }),
    };
    // A standard error that was closed must not end the work, so failures to log stay unsaid.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .log_internal_errors(false)
        .init();
    Ok(())
}
