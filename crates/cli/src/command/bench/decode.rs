//! Writing token by token, and reading a prompt.

use anyhow::{Context, ensure};
use burn::tensor::Device;
use lapidary_decode::{PackedDecoder, Positions, generate, most_likely};
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::Decoder;

use super::Work;
use super::train::DECODER;

/// Tokens that are written after a prompt of one.
const TOKENS: usize = 128;

pub fn decode(seed: u64) -> Vec<Box<dyn Work>> {
    [Precision::F32, Precision::Bf16]
        .map(|precision| Box::new(Writing { precision, seed, decoder: None }) as Box<dyn Work>)
        .into()
}

pub fn prefill(seed: u64) -> Vec<Box<dyn Work>> {
    [Precision::F32, Precision::Bf16]
        .map(|precision| Box::new(Reading { precision, seed, state: None }) as Box<dyn Work>)
        .into()
}

fn packed(precision: Precision, seed: u64) -> anyhow::Result<PackedDecoder> {
    Ok(PackedDecoder::new(&Decoder::new(&DECODER, seed, &Device::flex()), precision)?)
}

/// Batch 1, the most likely token each time.
struct Writing {
    precision: Precision,
    seed: u64,
    decoder: Option<PackedDecoder>,
}

impl Work for Writing {
    fn name(&self) -> String {
        format!("decode.{}", self.precision)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        self.decoder = Some(packed(self.precision, self.seed)?);
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let decoder = self.decoder.as_ref().context("prepared before")?;
        let text = generate(decoder, &[1], TOKENS, &mut decoder.cache(DECODER.positions), most_likely)?;
        ensure!(text.len() == TOKENS, "{} tokens", text.len());
        Ok(())
    }

    fn pieces(&self) -> usize {
        TOKENS
    }

    fn amount(&self) -> Option<(f64, &'static str)> {
        Some((1.0, "tokens_per_second"))
    }

    fn bytes_read(&self) -> Option<usize> {
        self.decoder.as_ref().map(PackedDecoder::matrix_bytes)
    }
}

/// A prompt of all positions, logits of each.
struct Reading {
    precision: Precision,
    seed: u64,
    state: Option<(PackedDecoder, Vec<u32>)>,
}

impl Work for Reading {
    fn name(&self) -> String {
        format!("prefill.{}", self.precision)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut stream = Stream::new(self.seed, 0);
        let ids = (0..DECODER.positions).map(|_| stream.below(DECODER.vocabulary) as u32).collect();
        self.state = Some((packed(self.precision, self.seed)?, ids));
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let (decoder, ids) = self.state.as_ref().context("prepared before")?;
        let logits = decoder.read(ids, &mut decoder.cache(ids.len()), Positions::All)?;
        ensure!(logits.iter().all(|logit| logit.is_finite()), "logits that are no numbers");
        Ok(())
    }

    fn amount(&self) -> Option<(f64, &'static str)> {
        Some((DECODER.positions as f64, "tokens_per_second"))
    }
}
