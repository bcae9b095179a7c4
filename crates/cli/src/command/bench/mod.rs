//! `lapidary bench`: the program's work, timed; a peer's beside it, in turn, in one run.

mod conv;
mod curvature;
mod decode;
mod gemm;
mod kfac;
mod limits;
mod peer;
mod ranks;
mod train;
mod write;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use clap::ValueEnum;
use lapidary_collective::Ranks;
use lapidary_eval::machine;
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;
use lapidary_train::Progress;

use limits::Limit;

use super::Options;
use crate::device;
use crate::exit::Usage;
use crate::output;

/// Arguments of `lapidary bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to time
    #[arg(value_enum)]
    group: Group,

    /// Only the work of this name, as results call it (decoder_step.bf16); may be given several times
    #[arg(long, value_name = "WORK")]
    only: Vec<String>,

    /// Timed runs of a work in each turn
    #[arg(long, default_value = "5", value_name = "N")]
    repeats: NonZeroUsize,

    /// Runs before the first that counts, in each turn
    #[arg(long, default_value_t = 2, value_name = "N")]
    warmup: usize,

    /// Command of a peer, which takes turns with us; it prints one JSON object a work and line, with name and
    /// median_seconds (oracles/peers/)
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,

    /// What results call the peer
    #[arg(long, value_name = "NAME", default_value = "pytorch")]
    peer_name: String,

    /// Turns of each side
    #[arg(long, default_value = "3", value_name = "N")]
    turns: NonZeroUsize,

    /// Also write the result here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// One training step of a 6-layer decoder: B=16, L=256, D=256, H=4, F=1024, V=4096, AdamW; f32 and bf16
    Train,
    /// Products of square matrices, 1024 and 2048, f32 and bf16
    Gemm,
    /// One training step of ResNet-20 at batch 128, SGD
    Conv,
    /// Training steps of ResNet-20 by SGD and by K-FAC, its factors every 10 and its inverses every 100 steps, batches of
    /// 128 and 512; a run is 100 steps, so that --repeats 1 --warmup 0 --turns 3 is enough
    Kfac,
    /// Training steps of ResNet-20 by one rank of an MPI job and by all together, SGD and K-FAC: mpirun -n 2 lapidary bench
    /// ranks
    Ranks,
    /// 128 tokens written one by one by the decoder of `train`, batch 1, f32 and bf16
    Decode,
    /// 256 tokens read at once by the same, logits of each
    Prefill,
    /// Products with the Hessian of a BERT's loss on 1,024 rows of 16 tokens, over its last layer, its first and all six
    Curvature,
    /// A passage of 64 tokens, one by one and on a canvas in 8 passes, by decoders of 30 and 450 million parameters
    Write,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Train => "train",
            Group::Gemm => "gemm",
            Group::Conv => "conv",
            Group::Kfac => "kfac",
            Group::Ranks => "ranks",
            Group::Decode => "decode",
            Group::Prefill => "prefill",
            Group::Curvature => "curvature",
            Group::Write => "write",
        }
    }

    /// What this device can do of it.
    fn works(self, seed: u64, device: &Device, ranks: &Ranks) -> Result<Vec<Box<dyn Work>>, Usage> {
        match self {
            _ if !ranks.is_alone() && self != Group::Ranks => {
                Err(Usage::new(format!("bench {} is work for one process", self.name())))
            }
            Group::Train => Ok(train::works(seed, device)),
            Group::Conv => Ok(conv::works(seed, device)),
            Group::Kfac => Ok(kfac::works(seed, device)),
            Group::Ranks if ranks.is_alone() => {
                Err(Usage::new("bench ranks wants two ranks or more, as in mpirun -n 2 lapidary bench ranks"))
            }
            Group::Ranks => Ok(ranks::works(seed, device, ranks)),
            Group::Curvature => Ok(curvature::works(seed, device)),
            _ if *device != Device::flex() => {
                Err(Usage::new(format!("bench {} times the CPU; leave --device out", self.name())))
            }
            Group::Gemm => Ok(gemm::works(seed)),
            Group::Decode => Ok(decode::decode(seed)),
            Group::Prefill => Ok(decode::prefill(seed)),
            Group::Write => Ok(write::works(seed)),
        }
    }
}

/// A piece of work that can be done again and again.
trait Work {
    /// As in the names of metrics: `decoder_step.f32`.
    fn name(&self) -> String;

    /// Makes ready what the work needs; runs once, untimed.
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()>;

    /// Equal pieces that a run consists of; seconds are those of one.
    fn pieces(&self) -> usize {
        1
    }

    /// What a piece amounts to, where its rate is what matters: how many, and of what, for the metric's name.
    fn amount(&self) -> Option<(f64, &'static str)> {
        None
    }

    /// Memory that a piece has to read, where that is what bounds it.
    fn bytes_read(&self) -> Option<usize> {
        None
    }
}

/// What was measured of a work.
#[derive(Default)]
struct Measured {
    ours: Vec<f64>,
    theirs: Vec<f64>,
    /// Of what bounds the work.
    limits: Vec<f64>,
    /// Of the process, after this work; `None` if other work came before it.
    peak_rss: Option<u64>,
    peak_rss_of_peer: Option<u64>,
}

/// Times our work, and the peer's in turn with it.
pub fn run(args: &Args, options: &Options, device: &Device, ranks: &Ranks) -> anyhow::Result<()> {
    let begun = Instant::now();
    let seed = options.seed.unwrap_or(0);
    let mut works = args.group.works(seed, device, ranks)?;
    let names: Vec<String> = works.iter().map(|work| work.name()).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(name)) {
        let message = format!("--only {unknown}: bench {} has {}", args.group.name(), names.join(", "));
        return Err(Usage::new(message).into());
    }
    works.retain(|work| args.only.is_empty() || args.only.contains(&work.name()));

    let mut measured: Vec<Measured> = works.iter().map(|_| Measured::default()).collect();
    let all = (args.turns.get() * works.len()) as u64;
    let mut progress = ranks.is_first().then(|| Progress::new(args.group.name(), all, 0));
    let mut done = 0;
    for turn in 0..args.turns.get() {
        for (index, (work, measured)) in works.iter_mut().zip(&mut measured).enumerate() {
            if turn == 0 {
                work.prepare().with_context(|| work.name())?;
            }
            for _ in 0..args.warmup {
                work.run()?;
            }
            // A GPU may still be at it.
            device.sync()?;
            for _ in 0..args.repeats.get() {
                let begun = Instant::now();
                work.run()?;
                device.sync()?;
                measured.ours.push(begun.elapsed().as_secs_f64() / work.pieces() as f64);
            }
            if let Some(limit) = Limit::of(work.as_ref()) {
                measured.limits.extend(limit.rates());
            }
            if turn == 0 && index == 0 && work.amount().is_none() {
                measured.peak_rss = machine::peak_rss_bytes();
            }
            done += 1;
            if let Some(progress) = &mut progress {
                progress.set(done, &format!("{} {}", work.name(), seconds(median(&measured.ours))));
            }
        }
        if let Some(command) = &args.peer {
            let theirs = peer::run(command)?;
            for (work, measured) in works.iter().zip(&mut measured) {
                let name = work.name();
                let found = theirs.iter().find(|theirs| theirs.name == name);
                let found = found.with_context(|| format!("the peer `{command}` printed nothing named {name}"))?;
                measured.theirs.push(found.median_seconds);
                measured.peak_rss_of_peer = measured.peak_rss_of_peer.max(found.peak_rss_bytes);
            }
        }
    }
    if let Some(progress) = progress {
        progress.finish("done");
    }

    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: device::name(device),
        threads: rayon::current_num_threads(),
        seed,
    };
    let mut result = RunResult::new(format!("bench-{}", args.group.name()), settings);
    let mut text = String::new();
    for (work, measured) in works.iter().zip(&measured) {
        text.push_str(&record(&mut result, work.as_ref(), measured, &args.peer_name)?);
    }
    limits::record(&mut result, &works, &measured)?;
    if args.group == Group::Write {
        text.push_str(&write::compare(&mut result, &works, &measured)?);
    }
    if args.group == Group::Ranks {
        text.push_str(&ranks::compare(&mut result, &works, &measured, ranks)?);
    }
    if args.group == Group::Kfac {
        text.push_str(&kfac::compare(&mut result, &works, &measured)?);
    }
    let beside = if args.peer.is_some() { ", a turn of the peer after each of ours" } else { "" };
    result.notes.push(format!("Medians of {} runs in each of {} turns{beside}.", args.repeats, args.turns));
    result.notes.extend(device::note(device));
    result.finish(begun.elapsed().as_secs_f64());
    if !ranks.is_first() {
        return Ok(());
    }
    if let Some(path) = &args.out {
        result.write(path)?;
    }
    output::print(options.json, &result, &text)
}

/// Puts what was measured of a work into the result, and says it in a line.
fn record(result: &mut RunResult, work: &dyn Work, measured: &Measured, peer: &str) -> anyhow::Result<String> {
    let name = work.name();
    let ours = median(&measured.ours);
    result.metrics.insert(format!("{name}.seconds"), ours)?;
    result.metrics.insert(format!("{name}.seconds_min"), least(&measured.ours))?;
    result.metrics.insert(format!("{name}.seconds_max"), most(&measured.ours))?;
    let mut line = format!("{name}: {}", seconds(ours));
    if let Some((amount, unit)) = work.amount() {
        result.metrics.insert(format!("{name}.{unit}"), amount / ours)?;
        line.push_str(&format!(", {:.1} {}", amount / ours, unit.replace('_', " ")));
    }
    if let Some(bytes) = measured.peak_rss {
        result.metrics.insert(format!("{name}.peak_rss_bytes"), bytes as f64)?;
    }
    if !measured.theirs.is_empty() {
        let theirs = median(&measured.theirs);
        result.metrics.insert(format!("{name}.seconds_{peer}"), theirs)?;
        let (kind, ratio) = if work.amount().is_some() { ("rate", theirs / ours) } else { ("ratio", ours / theirs) };
        result.peers.insert(format!("{name}.{kind}_to_{peer}"), ratio)?;
        line.push_str(&format!(", {ratio:.2} times the {} of {peer}", if kind == "rate" { "rate" } else { "time" }));
        if let (Some(ours), Some(theirs)) = (measured.peak_rss, measured.peak_rss_of_peer) {
            result.metrics.insert(format!("{name}.peak_rss_bytes_{peer}"), theirs as f64)?;
            let share = ours as f64 / theirs as f64;
            let [ours, theirs] = [ours, theirs].map(|bytes| bytes / 1_000_000);
            result.notes.push(format!(
                "{name}: {ours} MB of memory at most, the whole process; {peer} {theirs} MB, ours is {share:.2} of it."
            ));
            line.push_str(&format!(", {share:.2} times its memory"));
        }
    }
    line.push('\n');
    Ok(line)
}

fn seconds(value: f64) -> String {
    match value {
        value if value >= 0.1 => format!("{value:.3} s"),
        value if value >= 1e-4 => format!("{:.3} ms", value * 1e3),
        value => format!("{:.1} µs", value * 1e6),
    }
}

/// The median time of the work of a name, if it was measured.
fn seconds_of(works: &[Box<dyn Work>], measured: &[Measured], name: &str) -> Option<f64> {
    let index = works.iter().position(|work| work.name() == name)?;
    Some(median(&measured[index].ours))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
