//! Training steps of a residual network.

use anyhow::{Context, ensure};
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_kernels::rng::Stream;
use lapidary_models::layer::Pictures;
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};
use lapidary_models::{Pass, parameters};
use lapidary_ops as ops;
use lapidary_train::{SgdOptimizer, SgdOptions};

use super::Work;

const BATCH: usize = 128;
const SIDE: usize = 32;

pub fn works(seed: u64, device: &Device) -> Vec<Box<dyn Work>> {
    vec![Box::new(ResNetStep { seed, device: device.clone(), state: None })]
}

/// One training step of ResNet-20, again and again on the same random batch.
struct ResNetStep {
    seed: u64,
    device: Device,
    state: Option<State>,
}

struct State {
    model: ResNet,
    optimizer: SgdOptimizer,
    pictures: Pictures,
    targets: Vec<i64>,
}

impl Work for ResNetStep {
    fn name(&self) -> String {
        "resnet20_step.f32".into()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let config = ResNetConfig::cifar10(20, Shortcut::Projected)?;
        let mut stream = Stream::new(self.seed, 0);
        let device = self.device.clone().autodiff();
        let places = BATCH * SIDE * SIDE;
        let numbers: Vec<f32> = (0..places * 3).map(|_| stream.normal()).collect();
        let x = Tensor::from_data(TensorData::new(numbers, [places, 3]), &device);
        self.state = Some(State {
            model: ResNet::new(&config, self.seed, &device),
            optimizer: SgdOptimizer::new(SgdOptions::default()),
            pictures: Pictures { x, batch: BATCH, height: SIDE, width: SIDE },
            targets: (0..BATCH).map(|_| stream.below(config.classes) as i64).collect(),
        });
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let State { model, mut optimizer, pictures, targets } = self.state.take().context("the step before failed")?;
        let logits = model.logits(pictures.clone(), &Pass::training(0.0, self.seed, 0));
        let loss = ops::cross_entropy(logits, &targets, BATCH as f32)?;
        let value = loss.clone().into_scalar::<f32>();
        ensure!(value.is_finite(), "the loss is {value}");
        let gradients = parameters::gradients(&model, loss.backward());
        let model = optimizer.step(model, gradients, 0.1, 1.0);
        self.state = Some(State { model, optimizer, pictures, targets });
        Ok(())
    }
}
