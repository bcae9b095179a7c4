//! Canvases written in passes.

use burn::tensor::Device;
use lapidary_decode::parallel::{Acceptance, ParallelOptions, Rest, Schedule, Stop, write};
use lapidary_decode::{DecodeError, KvCache, PackedDecoder, Positions};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_models::Pass;
use lapidary_models::decoder::{Decoder, DecoderConfig};

const CONFIG: DecoderConfig =
    DecoderConfig { vocabulary: 53, positions: 40, width: 36, heads: 3, feed_forward: 70, blocks: 2 };

fn decoder() -> Decoder {
    Decoder::new(&CONFIG, 7, &Device::flex())
}

fn prompted(packed: &PackedDecoder, prompt: &[u32]) -> KvCache {
    let mut cache = packed.cache(40);
    packed.read(prompt, &mut cache, Positions::Last).unwrap();
    cache
}

fn options(acceptance: Acceptance, rest: Rest) -> ParallelOptions {
    let schedule = Schedule { passes: 6, first: 0.8, last: 0.2 };
    ParallelOptions { canvas: 12, schedule, acceptance, rest, stop: Stop::Never, seed: 3 }
}

const ACCEPTANCES: [Acceptance; 6] = [
    Acceptance::All,
    Acceptance::Share(0.4),
    Acceptance::Surest(0.2),
    Acceptance::Threshold(0.05),
    Acceptance::Top(3),
    Acceptance::Entropy(8.0),
];

#[test]
fn a_canvas_is_what_the_model_makes_of_it() {
    let (decoder, ids) = (decoder(), Vec::from_iter((0..23).map(|i| i * i % 53)));
    for prompt in [0, 1, 9, 22] {
        let expected = decoder.logits(&ids, 1, &Mask::canvas([prompt]), &Pass::evaluation()).unwrap();
        let expected: Vec<f32> = expected.into_data().iter::<f32>().collect();
        let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
        let mut cache = prompted(&packed, &ids[..prompt]);
        for _ in 0..2 {
            let logits = packed.repair(&ids[prompt..], &mut cache).unwrap();
            assert_eq!(cache.len(), prompt);
            for (logit, expected) in logits.iter().zip(&expected[prompt * 53..]) {
                assert!((logit - expected).abs() < 1e-5, "{logit} for {expected} behind {prompt}");
            }
        }
    }
}

#[test]
fn every_part_writes_the_same_text_again() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let mut texts = Vec::new();
    for acceptance in ACCEPTANCES {
        for rest in [Rest::Keep, Rest::Noise] {
            let mut seen = Vec::new();
            let options = options(acceptance, rest);
            let mut cache = prompted(&packed, &[1, 2, 3]);
            let text = write(&packed, &mut cache, &options, |canvas| seen.push(canvas.tokens.to_vec())).unwrap();
            assert_eq!((text.passes, text.tokens.len(), cache.len()), (6, 12, 3));
            assert!(text.tokens.iter().all(|token| *token < 53) && text.log_likelihood < 0.0);
            assert!(seen.len() == 7 && seen[6] == text.tokens);
            assert_eq!(write(&packed, &mut cache, &options, |_| ()).unwrap(), text);
            let other = ParallelOptions { seed: 4, ..options };
            assert_ne!(write(&packed, &mut cache, &other, |_| ()).unwrap().tokens, text.tokens);
            texts.push(text.tokens);
        }
    }
    assert_ne!(texts[0], texts[2], "what is accepted makes a difference");
    assert_ne!(texts[4], texts[5], "what is not accepted makes one too");
}

#[test]
fn the_text_does_not_depend_on_the_threads() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let write = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = options(Acceptance::Share(0.5), Rest::Noise);
        pool.install(|| write(&packed, &mut prompted(&packed, &[5, 6]), &options, |_| ()).unwrap())
    };
    assert!((2..=4).all(|threads| write(threads) == write(1)));
}

#[test]
fn it_stops_when_nothing_changes() {
    // What it makes of a place does not depend on what is there, so that the likeliest tokens settle.
    let mut decoder = decoder();
    decoder.tokens.weight = decoder.tokens.weight.map(|weight| weight * 0.0);
    let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
    let greedy = |passes, stop| ParallelOptions {
        schedule: Schedule::constant(passes, 0.0),
        stop,
        ..options(Acceptance::All, Rest::Keep)
    };
    let mut cache = prompted(&packed, &[5, 6]);
    let stable = write(&packed, &mut cache, &greedy(200, Stop::Stable), |_| ()).unwrap();
    assert_eq!(stable.passes, 2);
    let longer = write(&packed, &mut cache, &greedy(stable.passes + 5, Stop::Never), |_| ()).unwrap();
    assert_eq!(longer.tokens, stable.tokens);
    let sure = write(&packed, &mut cache, &greedy(stable.passes + 5, Stop::Sure(0.0)), |_| ()).unwrap();
    assert_eq!(sure.passes, stable.passes + 5, "never so sure");
}

#[test]
fn what_cannot_be_written_is_an_error() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let mut cache = prompted(&packed, &[5, 6]);
    let plain = options(Acceptance::All, Rest::Keep);
    let error = |options: ParallelOptions, cache: &mut KvCache| write(&packed, cache, &options, |_| ()).unwrap_err();
    assert_eq!(error(ParallelOptions { canvas: 0, ..plain.clone() }, &mut cache), DecodeError::EmptyCanvas);
    let none = ParallelOptions { schedule: Schedule::constant(0, 0.0), ..plain.clone() };
    assert_eq!(error(none, &mut cache), DecodeError::NoPasses);
    let long = ParallelOptions { canvas: 39, ..plain.clone() };
    assert_eq!(error(long, &mut cache), DecodeError::TooLong { tokens: 41, capacity: 40 });
    assert_eq!(cache.len(), 2);
    assert_eq!(write(&packed, &mut cache, &plain, |_| ()).unwrap().tokens.len(), 12);
}
