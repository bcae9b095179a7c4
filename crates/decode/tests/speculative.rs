//! A text that is guessed and verified is the text that is written token after token.

use lapidary_decode::parallel::{Ending, VerifiedOptions, write_verified};
use lapidary_decode::{DecodeError, PackedDecoder, Positions, SpeculativeOptions, generate, most_likely, speculate};
use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::Decoder;

use super::{decoder, decoders, shifted_canvas};

/// Draws, so that a question asked twice or in another order would show.
fn sampler() -> impl FnMut(&[f32]) -> Option<u32> {
    let mut stream = Stream::new(5, 0);
    move |logits| {
        let mut choice = [Choice { token: 0, log_probability: 0.0, entropy: 0.0 }];
        choose(logits, logits.len(), 1.0, &[stream.uniform()], &mut choice);
        (choice[0].token != 13).then_some(choice[0].token)
    }
}

/// One that says the same of every place, so that what it guesses holds.
fn certain() -> Decoder {
    let mut decoder = decoder();
    decoder.tokens.weight = decoder.tokens.weight.map(|weight| weight * 0.0);
    decoder.positions = decoder.positions.map(|mut table| {
        table.weight = table.weight.map(|weight| weight * 0.0);
        table
    });
    decoder
}

#[test]
fn the_text_is_the_same() {
    let decoders = decoders().into_iter().chain([shifted_canvas()]).map(|decoder| (decoder, Precision::F32));
    for (decoder, precision) in decoders.chain([(certain(), Precision::Bf16)]) {
        let packed = PackedDecoder::new(&decoder, precision).unwrap();
        for (draft, canvas) in [(0, 0), (1, 1), (3, 0), (3, 7), (9, 30)] {
            let options = SpeculativeOptions { draft, canvas, seed: 1, passes: None };
            for (prompt, tokens) in [(vec![1, 2, 3], 25), (vec![9], 40), (vec![4; 20], 1), (vec![4; 20], 0)] {
                let (mut cache, mut other) = (packed.cache(40), packed.cache(40));
                let text = generate(&packed, &prompt, tokens, &mut cache, most_likely).unwrap();
                let fast = speculate(&packed, &prompt, tokens, &mut other, &options, most_likely).unwrap();
                assert_eq!(fast.tokens, text, "{options:?}, {precision}");
                assert!(fast.passes <= text.len() && fast.held <= fast.drafted);
                if !text.is_empty() {
                    assert_eq!(cache.len(), other.len());
                }
                let text = generate(&packed, &prompt, tokens, &mut packed.cache(40), sampler()).unwrap();
                let fast = speculate(&packed, &prompt, tokens, &mut packed.cache(40), &options, sampler()).unwrap();
                assert_eq!(fast.tokens, text, "drawn, {options:?}, {precision}");
            }
        }
    }
}

#[test]
fn what_holds_saves_passes() {
    let packed = PackedDecoder::new(&certain(), Precision::F32).unwrap();
    let options = SpeculativeOptions { draft: 4, canvas: 9, seed: 1, passes: None };
    let fast = speculate(&packed, &[5], 30, &mut packed.cache(40), &options, most_likely).unwrap();
    // One by the pass over the prompt, then five a pass.
    assert_eq!((fast.tokens.len(), fast.passes), (30, 7));
    assert!(fast.held == fast.drafted && fast.held + fast.passes == 30, "{fast:?}");
}

#[test]
fn a_text_in_so_many_passes() {
    for decoder in decoders().into_iter().chain([shifted_canvas()]) {
        let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
        let write = |passes, prompt: &[u32]| {
            let options = SpeculativeOptions { draft: 3, canvas: 40, seed: 1, passes };
            speculate(&packed, prompt, 25, &mut packed.cache(40), &options, most_likely).unwrap()
        };
        for prompt in [vec![1, 2, 3], vec![9]] {
            for passes in [1, 2, 3, 8, 24] {
                let text = write(Some(passes), &prompt);
                assert_eq!(text.tokens.len(), 25, "nothing ends it");
                assert!(text.passes <= passes, "{} of {passes}", text.passes);
            }
            // The first token is verified, whatever becomes of the others.
            assert_eq!(write(Some(1), &prompt).tokens[0], write(None, &prompt).tokens[0]);
            // With a pass for every token there is time to verify them all.
            assert_eq!(write(Some(25), &prompt).tokens, write(None, &prompt).tokens);
        }
    }
}

#[test]
fn a_text_in_few_passes_ends() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    for passes in 1..9 {
        for seed in 0..20 {
            let mut stream = Stream::new(seed, 0);
            let mut ended = false;
            let choose = |logits: &[f32]| {
                let mut choice = [Choice { token: 0, log_probability: 0.0, entropy: 0.0 }];
                choose(logits, logits.len(), 2.0, &[stream.uniform()], &mut choice);
                ended |= choice[0].token < 8;
                (choice[0].token >= 8).then_some(choice[0].token)
            };
            let options = SpeculativeOptions { draft: 3, canvas: 40, seed, passes: Some(passes) };
            let text = speculate(&packed, &[7], 25, &mut packed.cache(40), &options, choose).unwrap();
            assert!(text.tokens.iter().all(|token| *token >= 8), "what ends it is no part of it");
            assert!(text.tokens.len() == 25 || ended);
            assert!(text.passes <= passes);
        }
    }
}

#[test]
fn errors_are_those_of_writing() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let options = SpeculativeOptions::default();
    let mut cache = packed.cache(40);
    let write =
        |prompt: &[u32], tokens, cache: &mut _| speculate(&packed, prompt, tokens, cache, &options, most_likely);
    assert_eq!(write(&[], 3, &mut cache), Err(DecodeError::EmptyPrompt));
    assert_eq!(write(&[3, 53], 3, &mut cache), Err(DecodeError::Token { id: 53, vocabulary: 53 }));
    let none = SpeculativeOptions { passes: Some(0), ..options };
    assert_eq!(speculate(&packed, &[3], 3, &mut packed.cache(40), &none, most_likely), Err(DecodeError::NoPasses));
    assert_eq!(write(&[3; 39], 5, &mut cache), Err(DecodeError::TooLong { tokens: 41, capacity: 40 }));
}

#[test]
fn a_verified_canvas_with_passes_enough_is_the_text_one_by_one() {
    let ending = Ending { end: 13, padding: 14 };
    for decoder in decoders().into_iter().chain([shifted_canvas()]) {
        let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
        for prompt in [vec![1, 2, 3], vec![9], vec![4; 20]] {
            let next = |logits: &[f32]| most_likely(logits).filter(|token| *token != 13 && *token != 14);
            let text = generate(&packed, &prompt, 12, &mut packed.cache(40), next).unwrap();
            let mut cache = packed.cache(40);
            packed.read(&prompt, &mut cache, Positions::Last).unwrap();
            let mut write = |passes| {
                let options = VerifiedOptions { canvas: 12, passes, temperature: 0.0, ending, seed: 3 };
                write_verified(&packed, &mut cache, &options).unwrap()
            };
            let written = write(12);
            let mut expected = text.clone();
            if expected.len() < 12 {
                expected.push(13);
            }
            expected.resize(12, 14);
            assert_eq!(written.tokens, expected);
            // The cache holds what it held: the same again, and with fewer passes no more than these.
            assert_eq!(write(12), written);
            let hurried = write(2);
            assert!(hurried.passes <= 2 && hurried.tokens.len() == 12 && hurried.tokens[0] == expected[0]);
            assert_eq!(cache.len(), prompt.len());
        }
    }
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let options = VerifiedOptions { canvas: 4, passes: 2, temperature: 0.0, ending, seed: 3 };
    let write = |options| write_verified(&packed, &mut packed.cache(40), &options);
    assert_eq!(write(options), Err(DecodeError::EmptyPrompt));
    let mut full = packed.cache(6);
    packed.read(&[1, 2, 3], &mut full, Positions::Last).unwrap();
    let error = write_verified(&packed, &mut full, &options);
    assert_eq!(error, Err(DecodeError::TooLong { tokens: 7, capacity: 6 }));
    assert_eq!(write(VerifiedOptions { canvas: 0, ..options }), Err(DecodeError::EmptyCanvas));
}
