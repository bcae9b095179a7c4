//! The commands, one a file: each has its arguments as `Args` and does its work in `run`.

mod bench;
mod curvature;
mod demo;
mod generate;
mod inspect;
mod report;
mod run;
mod study;

use std::num::NonZeroU16;

use burn::tensor::Device;
use clap::{Args, Subcommand};
use lapidary_collective::Ranks;

use crate::device::Choice;
use crate::exit::Usage;

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,

    /// Threads to compute with [default: one a core]
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroU16>,

    /// Seed of all random choices, in place of the recipe's
    #[arg(long, global = true, value_name = "N")]
    pub seed: Option<u64>,

    /// What to compute on
    #[arg(long, global = true, value_enum, default_value_t = Choice::Cpu)]
    pub device: Choice,
}

#[derive(Subcommand)]
pub enum Command {
    /// The whole way on generated data: train, measure, cut, report; minutes, nothing to download
    Demo(demo::Args),
    /// Run all stages of a recipe
    Run(run::Args),
    /// Study how optimizers take to larger batches, each tuned anew at each size
    Study(study::Args),
    /// Write text with a trained model: token after token, or a whole canvas in a few passes
    Generate(generate::Args),
    /// Measure how the loss of a trained model is curved: eigenvalues, trace, density, blocks, landscape
    Curvature(curvature::Args),
    /// Show what is in a checkpoint: config, tensors, sizes, what packing saves
    Inspect(inspect::Args),
    /// Time the program's work, beside a peer's if one is named
    Bench(bench::Args),
    /// Write the README's tables from result files
    Report(report::Args),
}

impl Command {
    /// Does the work, on `device` where it is that of a model, among `ranks` where it is that of several processes.
    pub fn run(self, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
        if !ranks.is_alone() && !matches!(self, Self::Run(_) | Self::Study(_) | Self::Bench(_)) {
            return Err(Usage::new(format!(
                "this command is work for one process, and {} were started: start it without mpirun, or as one",
                ranks.count()
            ))
            .into());
        }
        match self {
            Self::Run(args) => run::run(&args, options, device, ranks),
            Self::Study(args) => study::run(&args, options, device, ranks),
            Self::Demo(args) => demo::run(&args, options, device),
            Self::Bench(args) => bench::run(&args, options, device, ranks),
            Self::Report(args) => report::run(&args),
            Self::Generate(args) => generate::run(&args, options, device),
            Self::Curvature(args) => curvature::run(&args, options, device),
            Self::Inspect(args) => inspect::run(&args, options),
        }
    }
}
