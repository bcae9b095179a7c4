//! `lapidary bench`: the program's work, timed; a peer's beside it, in turn, in one run.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use clap::ValueEnum;
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::{Decoder, DecoderConfig};
use lapidary_models::{Pass, parameters};
use lapidary_ops as ops;
use lapidary_train::{AdamWOptimizer, AdamWOptions, Progress};
use serde::Deserialize;

use super::Options;
use crate::output;

/// Arguments of `lapidary bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to time
    #[arg(value_enum)]
    work: Work,

    /// Timed steps in each turn
    #[arg(long, default_value = "5", value_name = "N")]
    repeats: NonZeroUsize,

    /// Steps before the first that counts, in each turn
    #[arg(long, default_value_t = 2, value_name = "N")]
    warmup: usize,

    /// Command of a peer that prints one JSON object with median_seconds; it takes turns with us
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,

    /// What results call the peer
    #[arg(long, value_name = "NAME", default_value = "pytorch")]
    peer_name: String,

    /// Turns of each side
    #[arg(long, default_value = "2", value_name = "N")]
    turns: NonZeroUsize,

    /// Also write the result here
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What can be timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// One training step of a 6-layer decoder in f32: B=16, L=256, D=256, H=4, F=1024, V=4096, AdamW
    Train,
}

/// The decoder that `oracles/peers/train_step.py` trains too.
const DECODER: DecoderConfig =
    DecoderConfig { vocabulary: 4096, positions: 256, width: 256, heads: 4, feed_forward: 1024, blocks: 6 };
const ROWS: usize = 16;

/// Times our step, and the peer's in turn with it.
pub fn run(args: &Args, options: &Options) -> anyhow::Result<()> {
    let (repeats, turns) = (args.repeats.get(), args.turns.get());
    let begun = Instant::now();
    let Work::Train = args.work;
    let seed = options.seed.unwrap_or(0);
    let mut step = DecoderStep::new(seed);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut progress = Progress::new("decoder step", turns as u64, 0);
    for turn in 0..turns {
        for _ in 0..args.warmup {
            step.run()?;
        }
        for _ in 0..repeats {
            let begun = Instant::now();
            step.run()?;
            ours.push(begun.elapsed().as_secs_f64());
        }
        if let Some(peer) = &args.peer {
            theirs.push(peer_seconds(peer)?);
        }
        progress.set(turn as u64 + 1, &format!("{:.3} s a step", median(&mut ours)));
    }
    progress.finish("done");

    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: "cpu".into(),
        threads: rayon::current_num_threads(),
        seed,
    };
    let mut result = RunResult::new("bench-train", settings);
    let ours_median = median(&mut ours);
    result.metrics.insert("decoder_step.f32.seconds", ours_median)?;
    result.metrics.insert("decoder_step.f32.seconds_min", ours[0])?;
    result.metrics.insert("decoder_step.f32.seconds_max", ours[ours.len() - 1])?;
    if !theirs.is_empty() {
        let theirs_median = median(&mut theirs);
        result.metrics.insert(format!("decoder_step.f32.seconds_{}", args.peer_name), theirs_median)?;
        result.peers.insert(format!("decoder_step.f32.ratio_to_{}", args.peer_name), ours_median / theirs_median)?;
    }
    result.notes.push(format!(
        "Median of {} steps in {} turns{}.",
        ours.len(),
        turns,
        if args.peer.is_some() { ", a turn of the peer after each of ours" } else { "" }
    ));
    result.finish(begun.elapsed().as_secs_f64());
    if let Some(path) = &args.out {
        result.write(path)?;
    }
    let ratio = result.peers.iter().next().map_or(String::new(), |(name, value)| format!(", {name} {value:.2}"));
    output::print(options.json, &result, &format!("decoder step, f32: {ours_median:.3} s{ratio}\n"))
}

/// One training step, again and again.
struct DecoderStep {
    model: Option<Decoder>,
    optimizer: AdamWOptimizer,
    ids: Vec<u32>,
    targets: Vec<i64>,
}

impl DecoderStep {
    fn new(seed: u64) -> Self {
        let mut stream = Stream::new(seed, 0);
        let tokens = ROWS * DECODER.positions;
        Self {
            model: Some(Decoder::new(&DECODER, seed, &Device::flex().autodiff())),
            optimizer: AdamWOptimizer::new(AdamWOptions::default()),
            ids: (0..tokens).map(|_| stream.below(DECODER.vocabulary) as u32).collect(),
            targets: (0..tokens).map(|_| stream.below(DECODER.vocabulary) as i64).collect(),
        }
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let model = self.model.take().context("the step before failed")?;
        let logits = model.logits(&self.ids, ROWS, &Pass::evaluation());
        let loss = ops::cross_entropy(logits, &self.targets, self.targets.len() as f32)?;
        let value = loss.clone().into_scalar::<f32>();
        ensure!(value.is_finite(), "the loss is {value}");
        let gradients = parameters::gradients(&model, loss.backward());
        self.model = Some(self.optimizer.step(model, gradients, 3e-4, 1.0));
        Ok(())
    }
}

/// What a peer prints.
#[derive(Deserialize)]
struct Peer {
    median_seconds: f64,
}

fn peer_seconds(command: &str) -> anyhow::Result<f64> {
    let output = Command::new("sh")
        .args(["-c", command])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run the peer `{command}`"))?;
    ensure!(output.status.success(), "the peer `{command}` ended with {}", output.status);
    let peer: Peer = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the peer `{command}` should print one JSON object with median_seconds"))?;
    Ok(peer.median_seconds)
}

/// The median; sorts.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
