//! Reading together, writing one by one, and the model itself agree.

mod batch;
mod parallel;
mod speculative;

use burn::tensor::{Device, Tensor};
use lapidary_decode::{DecodeError, KvCache, PackedDecoder, Positions, Stepper, generate, most_likely};
use lapidary_kernels::activation::Activation;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::team::with_team;
use lapidary_models::Pass;
use lapidary_models::decoder::{Decoder, DecoderConfig, DecoderParts, PositionEncoding};
use lapidary_models::layer::{AttentionConfig, FeedForwardConfig, NormKind, RotaryConfig, WeightRange};
use lapidary_models::trunk::{LocalBlocks, Locals, NormPlacement, TrunkConfig};

const CONFIG: DecoderConfig = DecoderConfig {
    vocabulary: 53,
    positions: 40,
    position_encoding: PositionEncoding::Learned,
    width: 36,
    heads: 3,
    feed_forward: 70,
    blocks: 2,
    shifted_heads: 0,
    self_conditioning: false,
    shifted_canvas: false,
};

fn decoder() -> Decoder {
    Decoder::new(&CONFIG, 7, &Device::flex())
}

/// Both ways to tell positions, with and without heads whose keys are those of the tokens before; and one of another kind.
fn decoders() -> [Decoder; 5] {
    let rotary = DecoderConfig { position_encoding: PositionEncoding::ROTARY, ..CONFIG };
    let shifted = [DecoderConfig { shifted_heads: 2, ..CONFIG }, DecoderConfig { shifted_heads: 1, ..rotary.clone() }];
    let [learned, turned] = shifted.map(|config| Decoder::new(&config, 7, &Device::flex()));
    [decoder(), Decoder::new(&rotary, 7, &Device::flex()), learned, turned, gated()]
}

/// With shared keys, windows, gates, and norms around everything, as Gemma has them.
fn gated() -> Decoder {
    let parts = CONFIG.parts();
    let norm = NormKind::RootMeanSquareAroundOne;
    let attention = AttentionConfig {
        heads: 4,
        kv_heads: 2,
        head_width: 14,
        bias: false,
        head_norm: Some((norm, 1e-5)),
        rotary: Some(RotaryConfig::new(1000.0)),
        scale: Some(0.3),
        soft_cap: Some(2.0),
        ..parts.trunk.attention.clone()
    };
    let local = LocalBlocks { window: 5, rotary: Some(RotaryConfig::new(10.0)), which: Locals::AllButEvery(2) };
    let trunk = TrunkConfig {
        blocks: 3,
        attention,
        local: Some(local),
        feed_forward: FeedForwardConfig { gate: Some(Activation::GeluTanh), ..parts.trunk.feed_forward },
        placement: NormPlacement::Around,
        norm,
        ..parts.trunk
    };
    let parts =
        DecoderParts { trunk, is_tied: true, has_position_table: false, embedding_scale: Some(6.0), ..CONFIG.parts() };
    Decoder::of(&parts, 7, &Device::flex())
}

/// One whose canvases are said by the places before them.
fn shifted_canvas() -> Decoder {
    let config = DecoderConfig { position_encoding: PositionEncoding::ROTARY, shifted_heads: 1, ..CONFIG };
    Decoder::new(&DecoderConfig { shifted_canvas: true, self_conditioning: true, ..config }, 7, &Device::flex())
}

/// One that reads what the pass before said.
fn self_conditioned() -> Decoder {
    Decoder::new(&DecoderConfig { self_conditioning: true, ..CONFIG }, 7, &Device::flex())
}

/// A cache that holds a prompt.
fn prompted(packed: &PackedDecoder, prompt: &[u32]) -> KvCache {
    let mut cache = packed.cache(40);
    packed.read(prompt, &mut cache, Positions::Last).unwrap();
    cache
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i * i % 53).collect()
}

fn numbers(x: Tensor<2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn logits_are_those_of_the_model() {
    let ids = ids(23);
    let precisions = [(Precision::F32, 1e-5), (Precision::Bf16, 1e-4)];
    for (decoder, (precision, tolerance)) in decoders().iter().flat_map(|decoder| precisions.map(|it| (decoder, it))) {
        let expected =
            numbers(decoder.logits(&ids, 1, &Mask::causal(), &Pass::evaluation().with_precision(precision)).unwrap());
        let packed = PackedDecoder::new(decoder, precision).unwrap();
        let logits = packed.read(&ids, &mut packed.cache(40), Positions::All).unwrap();
        assert_eq!(logits.len(), expected.len());
        for (place, (logit, expected)) in logits.iter().zip(&expected).enumerate() {
            assert!((logit - expected).abs() < tolerance, "{precision}: {logit} for {expected} at {place}");
        }
    }
}

#[test]
fn the_same_bits_together_and_one_by_one() {
    let ids = ids(37);
    let precisions = [Precision::F32, Precision::Bf16];
    for (decoder, precision) in decoders().iter().flat_map(|decoder| precisions.map(|it| (decoder, it))) {
        let packed = PackedDecoder::new(decoder, precision).unwrap();
        let all = packed.read(&ids, &mut packed.cache(40), Positions::All).unwrap();
        for threads in [1, 2, 3] {
            with_team(threads, |team| {
                let (mut stepper, mut cache) = (Stepper::new(&packed), packed.cache(40));
                for (id, expected) in ids.iter().zip(all.chunks_exact(53)) {
                    assert_eq!(stepper.step(*id, &mut cache, team).unwrap(), expected, "{precision}");
                }
            });
        }
        let mut cache = packed.cache(40);
        packed.read(&ids[..20], &mut cache, Positions::Last).unwrap();
        let rest = packed.read(&ids[20..], &mut cache, Positions::All).unwrap();
        assert_eq!(rest, all[20 * 53..], "in two parts, {precision}");
        cache.truncate(30);
        assert_eq!(packed.read(&ids[30..31], &mut cache, Positions::Last).unwrap(), all[30 * 53..31 * 53]);
    }
}

#[test]
fn writing_goes_on_from_the_prompt() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let prompt = ids(5);
    let text = generate(&packed, &prompt, 20, &mut packed.cache(40), most_likely).unwrap();
    assert_eq!(text.len(), 20);
    let mut so_far = prompt.clone();
    for token in text {
        let logits = packed.read(&so_far, &mut packed.cache(40), Positions::Last).unwrap();
        assert_eq!(most_likely(&logits), Some(token));
        so_far.push(token);
    }
    let mut left = 3;
    let mut three = |logits: &[f32]| {
        if left == 0 {
            None
        } else {
            left -= 1;
            most_likely(logits)
        }
    };
    assert_eq!(generate(&packed, &prompt, 20, &mut packed.cache(40), &mut three).unwrap().len(), 3);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let mut cache = packed.cache(1000);
    assert_eq!(cache.capacity(), 40, "as many as there are positions");
    let read = |ids: &[u32], cache: &mut _| packed.read(ids, cache, Positions::Last).unwrap_err();
    assert_eq!(read(&[3, 53], &mut cache), DecodeError::Token { id: 53, vocabulary: 53 });
    assert_eq!(read(&ids(41), &mut cache), DecodeError::TooLong { tokens: 41, capacity: 40 });
    assert!(cache.is_empty(), "the cache is as it was");
    assert_eq!(generate(&packed, &[], 3, &mut cache, most_likely), Err(DecodeError::EmptyPrompt));
    let error = generate(&packed, &ids(39), 5, &mut cache, most_likely).unwrap_err();
    assert_eq!(error, DecodeError::TooLong { tokens: 41, capacity: 40 });
    assert_eq!(packed.read(&[], &mut packed.cache(4), Positions::All), Ok(vec![]));
    assert_eq!(packed.read(&[], &mut packed.cache(4), Positions::Last), Ok(vec![]));

    let mut cut = decoder();
    cut.trunk.blocks[0].feed_forward.up.activation_bits = Some(8);
    assert!(matches!(PackedDecoder::new(&cut, Precision::F32), Err(DecodeError::Cut { .. })));
    let mut cut = decoder();
    let output = cut.output.as_mut().unwrap();
    output.range = Some(WeightRange::new(vec![0.1], vec![8.0], 4, &output.weight));
    assert!(matches!(PackedDecoder::new(&cut, Precision::F32), Err(DecodeError::Cut { .. })));
}
