//! Training steps of ResNet-20 by SGD and by K-FAC, with its looks at the factors and its inversions.

use anyhow::Context;
use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_data::PictureBatch;
use lapidary_eval::result::RunResult;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::objective::PictureClassification;
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};
use lapidary_train::{
    BatchSource, KfacOptions, Optimizer, OptimizerOptions, Schedule, SgdOptions, TrainError, TrainOptions, Training,
    step,
};

use super::{Measured, Work, seconds_of};

/// A run is as many steps as there are between two inversions.
const STEPS: u64 = 100;

const BATCHES: [usize; 2] = [128, 512];

/// Pixels of a side.
const SIDE: usize = 32;

pub fn works(seed: u64, device: &Device) -> Vec<Box<dyn Work>> {
    let mut works: Vec<Box<dyn Work>> = Vec::new();
    for batch in BATCHES {
        for (name, optimizer) in [
            ("sgd", OptimizerOptions::Sgd(SgdOptions::default())),
            ("kfac", OptimizerOptions::Kfac(KfacOptions::default())),
        ] {
            works.push(Box::new(Named {
                name: self::name(batch, name),
                steps: Steps::new(batch, STEPS, optimizer, seed, device),
            }));
        }
    }
    works
}

/// What K-FAC costs beside SGD for each batch of which both were timed.
///
/// # Errors
/// A time that is no number.
pub fn compare(result: &mut RunResult, works: &[Box<dyn Work>], measured: &[Measured]) -> anyhow::Result<String> {
    let mut text = String::new();
    for batch in BATCHES {
        let of = |optimizer: &str| seconds_of(works, measured, &name(batch, optimizer));
        let (Some(sgd), Some(kfac)) = (of("sgd"), of("kfac")) else { continue };
        result.peers.insert(format!("resnet20_b{batch}.kfac.ratio_to_sgd"), kfac / sgd)?;
        text.push_str(&format!("batch {batch}: a step of K-FAC takes {:.2} times one of SGD\n", kfac / sgd));
    }
    let KfacOptions { factors, inverses, .. } = KfacOptions::default();
    result.notes.push(format!(
        "Mean times of {STEPS} training steps of ResNet-20 one after the other, with K-FAC's factors every {} and its \
         inverses every {} steps.",
        factors.every, inverses.every
    ));
    Ok(text)
}

fn name(batch: usize, optimizer: &str) -> String {
    format!("resnet20_b{batch}.{optimizer}")
}

/// Steps on one random batch.
pub(super) struct Steps {
    batch: usize,
    steps: u64,
    optimizer: OptimizerOptions,
    seed: u64,
    device: Device,
    ranks: Ranks,
    state: Option<State>,
}

impl Steps {
    /// So many a run.
    pub fn new(batch: usize, steps: u64, optimizer: OptimizerOptions, seed: u64, device: &Device) -> Self {
        Self { batch, steps, optimizer, seed, device: device.clone(), ranks: Ranks::alone(), state: None }
    }

    /// Of all ranks, each with as many examples.
    pub fn among(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }
}

struct Named {
    name: String,
    steps: Steps,
}

impl Work for Named {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.steps.prepare()
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.steps.run()
    }

    fn pieces(&self) -> usize {
        self.steps.steps as usize
    }
}

struct State {
    model: ResNet,
    optimizer: Optimizer,
    batch: Always,
    steps: u64,
}

struct Always(PictureBatch);

impl BatchSource for Always {
    type Batch = PictureBatch;

    fn micro_batch(&self, _: u64) -> Result<PictureBatch, TrainError> {
        Ok(self.0.clone())
    }

    fn per_epoch(&self) -> u64 {
        1
    }
}

impl Steps {
    pub fn prepare(&mut self) -> anyhow::Result<()> {
        let config = ResNetConfig::cifar10(20, Shortcut::Padded)?;
        let mut stream = Stream::new(self.seed, 0);
        let pixels = (0..self.batch * SIDE * SIDE * 3).map(|_| stream.normal()).collect();
        let labels = (0..self.batch).map(|_| stream.below(config.classes) as u32).collect();
        self.state = Some(State {
            model: ResNet::new(&config, self.seed, &self.device.clone().autodiff()),
            optimizer: Optimizer::new(&self.optimizer),
            batch: Always(PictureBatch { pixels, labels, height: SIDE, width: SIDE }),
            steps: 0,
        });
        Ok(())
    }

    pub fn run(&mut self) -> anyhow::Result<()> {
        let State { mut model, mut optimizer, batch, steps } = self.state.take().context("the step before failed")?;
        let options = TrainOptions {
            name: String::new(),
            schedule: Schedule::new(1e-3, 0.0, u64::MAX),
            optimizer: self.optimizer,
            accumulate: self.ranks.count() as u64,
            clip: 0.0,
            precision: Precision::F32,
            dropout: 0.0,
            seed: self.seed,
            evaluate_every: 0,
            save_every: 0,
            keep: 1,
            noise_scale: false,
            sync_batch_norm: false,
        };
        let training =
            Training { objective: &PictureClassification, source: &batch, options: &options, ranks: &self.ranks };
        for at in steps..steps + self.steps {
            (model, _) = step(model, &training, &mut optimizer, at, 1e-3)?;
        }
        self.state = Some(State { model, optimizer, batch, steps: steps + self.steps });
        Ok(())
    }
}
