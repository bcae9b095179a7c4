//! What holds of every model on the trunk.

mod causal;
mod dropout;
mod initializer;
mod shifted;

use burn::tensor::{Device, Tensor};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rng::Stream;
use lapidary_models::Pass;
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};

const VOCABULARY: usize = 23;

fn decoder(seed: u64, device: &Device) -> Decoder {
    let config = DecoderConfig {
        vocabulary: VOCABULARY,
        positions: 70,
        position_encoding: PositionEncoding::Learned,
        width: 24,
        heads: 3,
        feed_forward: 40,
        blocks: 3,
        shifted_heads: 0,
        self_conditioning: false,
        shifted_canvas: false,
    };
    Decoder::new(&config, seed, device)
}

fn tokens(n: usize, seed: u64) -> Vec<u32> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| stream.below(VOCABULARY) as u32).collect()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn logits(model: &Decoder, ids: &[u32], rows: usize) -> Vec<f32> {
    values(model.logits(ids, rows, &Mask::causal(), &Pass::evaluation()).unwrap())
}
