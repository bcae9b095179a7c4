//! Training steps of a decoder.

use anyhow::{Context, ensure};
use burn::tensor::Device;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};
use lapidary_models::{Pass, parameters};
use lapidary_train::{AdamWOptimizer, AdamWOptions};

use super::Work;
use crate::device;

/// The decoder that `oracles/peers/` has too.
pub const DECODER: DecoderConfig = DecoderConfig {
    vocabulary: 4096,
    positions: 256,
    position_encoding: PositionEncoding::Learned,
    width: 256,
    heads: 4,
    feed_forward: 1024,
    blocks: 6,
    shifted_heads: 0,
    self_conditioning: false,
    shifted_canvas: false,
};
const ROWS: usize = 16;

/// In the precisions that the device has.
pub fn works(seed: u64, device: &Device) -> Vec<Box<dyn Work>> {
    [Precision::F32, Precision::Bf16]
        .into_iter()
        .filter(|&precision| device::check(device, precision).is_ok())
        .map(|precision| {
            Box::new(DecoderStep { precision, seed, device: device.clone(), state: None }) as Box<dyn Work>
        })
        .collect()
}

/// One training step, again and again on the same random batch.
struct DecoderStep {
    precision: Precision,
    seed: u64,
    device: Device,
    state: Option<State>,
}

struct State {
    model: Decoder,
    optimizer: AdamWOptimizer,
    ids: Vec<u32>,
    targets: Vec<i64>,
}

impl Work for DecoderStep {
    fn name(&self) -> String {
        format!("decoder_step.{}", self.precision)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut stream = Stream::new(self.seed, 0);
        let tokens = ROWS * DECODER.positions;
        self.state = Some(State {
            model: Decoder::new(&DECODER, self.seed, &self.device.clone().autodiff()),
            optimizer: AdamWOptimizer::new(AdamWOptions::default()),
            ids: (0..tokens).map(|_| stream.below(DECODER.vocabulary) as u32).collect(),
            targets: (0..tokens).map(|_| stream.below(DECODER.vocabulary) as i64).collect(),
        });
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let State { model, mut optimizer, ids, targets } = self.state.take().context("the step before failed")?;
        let loss = model.loss(
            &ids,
            &targets,
            ROWS,
            &Mask::causal(),
            targets.len() as f32,
            &Pass::evaluation().with_precision(self.precision),
        )?;
        let value = loss.clone().into_scalar::<f32>();
        ensure!(value.is_finite(), "the loss is {value}");
        let gradients = parameters::gradients(&model, loss.backward());
        let model = optimizer.step(model, gradients, 3e-4, 1.0);
        self.state = Some(State { model, optimizer, ids, targets });
        Ok(())
    }
}
