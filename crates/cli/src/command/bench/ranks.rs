//! Training steps of ResNet-20 by one rank of a job alone, and by all of them together with as many examples each.

use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_eval::result::RunResult;
use lapidary_train::{KfacOptions, OptimizerOptions, SgdOptions};

use super::kfac::Steps;
use super::{Measured, Work, seconds_of};

/// A run is as many steps as there are between two of K-FAC's inversions.
const STEPS: u64 = 100;

/// Examples of a step, for each rank.
const BATCH: usize = 128;

const OPTIMIZERS: [&str; 2] = ["sgd", "kfac"];

pub fn works(seed: u64, device: &Device, ranks: &Ranks) -> Vec<Box<dyn Work>> {
    let mut works: Vec<Box<dyn Work>> = Vec::new();
    for name in OPTIMIZERS {
        let optimizer = match name {
            "kfac" => OptimizerOptions::Kfac(KfacOptions::default()),
            _ => OptimizerOptions::Sgd(SgdOptions::default()),
        };
        for (way, among) in [("alone", Ranks::alone()), ("together", ranks.clone())] {
            let steps = Steps::new(BATCH, STEPS, optimizer, seed, device).among(among);
            let name = name_of(name, way);
            works.push(Box::new(OfRanks { name, steps, together: way == "together", ranks: ranks.clone() }));
        }
    }
    works
}

fn name_of(optimizer: &str, way: &str) -> String {
    format!("resnet20_b{BATCH}.{optimizer}.{way}")
}

/// What the ranks are worth together.
///
/// # Errors
/// A time that is no number.
pub fn compare(
    result: &mut RunResult,
    works: &[Box<dyn Work>],
    measured: &[Measured],
    ranks: &Ranks,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let count = ranks.count();
    for optimizer in OPTIMIZERS {
        let of = |way: &str| seconds_of(works, measured, &name_of(optimizer, way));
        let (Some(alone), Some(together)) = (of("alone"), of("together")) else { continue };
        let times = count as f64 * alone / together;
        result.peers.insert(format!("resnet20_b{BATCH}.{optimizer}.{count}_ranks.rate_to_one"), times)?;
        text.push_str(&format!("{optimizer}: {count} ranks train {times:.2} times as many examples a second as one\n"));
    }
    result.notes.push(format!(
        "Mean times of {STEPS} training steps of ResNet-20 one after the other, {BATCH} examples for each rank that takes \
         part; where one works alone the others wait. Threads of a rank: {}.",
        rayon::current_num_threads()
    ));
    Ok(text)
}

/// Steps of all ranks, or of the first.
struct OfRanks {
    name: String,
    steps: Steps,
    together: bool,
    ranks: Ranks,
}

impl Work for OfRanks {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.steps.prepare()
    }

    fn run(&mut self) -> anyhow::Result<()> {
        if self.together || self.ranks.is_first() {
            self.steps.run()?;
        }
        Ok(self.ranks.wait_for_all()?)
    }

    fn pieces(&self) -> usize {
        STEPS as usize
    }
}
