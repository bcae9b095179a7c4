//! `lapidary curvature`: how the loss of a trained model is curved.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use clap::ValueEnum;
use lapidary_models::checkpoint::Checkpoint;
use lapidary_train::Interrupt;

use super::Options;
use crate::curvature::{self, Matrix, Questions, Run, Settings};
use crate::exit::Usage;
use crate::output;
use crate::stage::RunFolder;

/// Arguments of `lapidary curvature`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the model: a BERT that sorts texts or words into classes or finds answers, or a decoder
    model: PathBuf,

    /// Files with examples, as the model's task has them: a table (.tsv, .jsonl) with classes, SQuAD's (.json, .jsonl),
    /// CoNLL's columns of tagged words, or text for a decoder; each may be compressed (.zst)
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    data: Vec<PathBuf>,

    /// Column with the text
    #[arg(long, value_name = "COLUMN", default_value = "sentence")]
    text: String,

    /// Column with the second text of a pair
    #[arg(long, value_name = "COLUMN")]
    pair: Option<String>,

    /// Column with the class, counted from 0
    #[arg(long, value_name = "COLUMN", default_value = "label")]
    label: String,

    /// Examples to measure on [default: 1024 texts; 64 passages of questions or of a decoder]
    #[arg(long, value_name = "N")]
    examples: Option<NonZeroUsize>,

    /// Parameters: trunk for all blocks, all, or what their paths begin with, such as trunk.blocks.3.
    #[arg(long, value_name = "PATH", default_value = "trunk")]
    over: String,

    /// What to take the eigenvalues of
    #[arg(long, value_enum, default_value = "hessian")]
    matrix: Matrix,

    /// How many of the largest eigenvalues; with 0 here and at --smallest only the other questions are answered
    #[arg(long, value_name = "N", default_value = "3")]
    largest: usize,

    /// How many of the smallest
    #[arg(long, value_name = "N", default_value = "2")]
    smallest: usize,

    /// Largest ‖Av − λv‖ of an eigenvalue, relative to the largest
    #[arg(long, value_name = "T", default_value = "0.01")]
    tolerance: f64,

    /// Most products for the eigenvalues
    #[arg(long, value_name = "N", default_value = "100")]
    products: usize,

    /// Also the trace
    #[arg(long)]
    trace: bool,

    /// Also where all eigenvalues lie
    #[arg(long)]
    density: bool,

    /// Also how sensitive each block is: its top eigenvalue on disjoint samples
    #[arg(long)]
    layers: bool,

    /// How many of these samples
    #[arg(long, value_name = "N", default_value = "10")]
    samples: NonZeroUsize,

    /// Examples of each of them [default: 256 texts, or 64 passages, or as many as there are]
    #[arg(long, value_name = "N")]
    layer_examples: Option<NonZeroUsize>,

    /// Also the loss along the two most telling directions
    #[arg(long)]
    landscape: bool,

    /// Numbers to compute with
    #[arg(long, value_enum, default_value = "f32")]
    precision: Numbers,

    /// Examples that are computed at once: changes time and memory, not the answer [default: 32 texts, 4 passages]
    #[arg(long, value_name = "N")]
    batch_size: Option<NonZeroUsize>,

    /// Folder for stages, result.json and report.html [default: runs/curvature-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What a gradient is computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Numbers {
    /// Single precision: products within a thousandth
    F32,
    /// Double precision: products within a millionth, several times slower
    F64,
}

pub fn run(args: &Args, options: &Options, device: &Device) -> anyhow::Result<()> {
    if args.largest.saturating_add(args.smallest) == 0 {
        if args.landscape {
            return Err(Usage::new("--landscape is along eigenvectors: ask for --largest 2, or one more").into());
        }
        if !(args.trace || args.density || args.layers) {
            let nothing = "--largest and --smallest are both 0: ask for an eigenvalue, --trace, --density or --layers";
            return Err(Usage::new(nothing).into());
        }
    }
    if !(args.tolerance > 0.0 && args.tolerance < 1.0) {
        return Err(Usage::new(format!("--tolerance should be above 0 and below 1, is {}", args.tolerance)).into());
    }
    if args.products == 0 {
        return Err(Usage::new("--products is 0: allow one at least").into());
    }
    if args.precision == Numbers::F64 && *device != Device::flex() {
        return Err(Usage::new("--precision f64 computes on the CPU; leave --device out").into());
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let name = name_of(&args.model);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/curvature-{name}")));
    let settings = Settings {
        name,
        over: args.over.clone(),
        matrix: args.matrix,
        largest: args.largest,
        smallest: args.smallest,
        tolerance: args.tolerance,
        products: args.products,
        numbers: if args.precision == Numbers::F64 { FloatDType::F64 } else { FloatDType::F32 },
        seed: options.seed.unwrap_or(0),
    };
    let questions =
        Questions { trace: args.trace, density: args.density, layers: args.layers, landscape: args.landscape };
    let amounts = curvature::Amounts {
        examples: args.examples.map(NonZeroUsize::get),
        samples: args.samples.get(),
        layer_examples: args.layer_examples.map(NonZeroUsize::get),
        batch_size: args.batch_size.map(NonZeroUsize::get),
    };
    let interrupt = Interrupt::listen()?;
    let folder = RunFolder::open(&out)?;
    let run = Run {
        settings: &settings,
        questions,
        folder: &folder,
        model: &args.model,
        data: &args.data,
        device,
        interrupt: &interrupt,
    };
    let columns = curvature::TextColumns { text: &args.text, pair: args.pair.as_deref(), label: &args.label };
    let written = curvature::measure(&run, &checkpoint, &columns, &amounts)?;
    output::print(options.json, &written.run, &written)
}

/// What results call a model: its folder's name or, since stages call all of theirs `model`, the one above.
fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let names: Vec<_> = folder.iter().rev().map(|name| name.to_string_lossy()).collect();
    names.iter().find(|name| *name != "model" && *name != "/").map_or("model".to_owned(), |name| name.to_string())
}
