//! Canvases written in passes.

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_decode::parallel::{
    Acceptance, Ending, Length, ParallelOptions, Rerank, Rest, Schedule, Stop, rerank, write, write_all, write_blocks,
};
use lapidary_decode::{DecodeError, KvCache, PackedDecoder, Positions};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_models::Pass;

use super::{decoder, decoders, prompted, self_conditioned};

fn options(acceptance: Acceptance, rest: Rest) -> ParallelOptions {
    let schedule = Schedule { passes: 6, first: 0.8, last: 0.2 };
    ParallelOptions { canvas: 12, schedule, acceptance, rest, length: Length::Written, stop: Stop::Never, seed: 3 }
}

const ACCEPTANCES: [Acceptance; 7] = [
    Acceptance::All,
    Acceptance::Share(0.4),
    Acceptance::Surest(0.2),
    Acceptance::Threshold(0.05),
    Acceptance::Top(3),
    Acceptance::Entropy(8.0),
    Acceptance::Unsure(0.4),
];

#[test]
fn a_canvas_is_what_the_model_makes_of_it() {
    let ids = Vec::from_iter((0..23).map(|i| i * i % 53));
    for (decoder, prompt) in decoders().iter().flat_map(|decoder| [0, 1, 9, 22].map(|prompt| (decoder, prompt))) {
        let expected = decoder.logits(&ids, 1, &Mask::canvas([prompt]), &Pass::evaluation()).unwrap();
        let expected: Vec<f32> = expected.into_data().iter::<f32>().collect();
        let packed = PackedDecoder::new(decoder, Precision::F32).unwrap();
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
fn a_shifted_canvas_is_said_by_the_places_before() {
    let (decoder, ids) = (super::shifted_canvas(), Vec::from_iter((0..23).map(|i| i * i % 53)));
    let (packed, pass) = (PackedDecoder::new(&decoder, Precision::F32).unwrap(), Pass::evaluation());
    let close = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} for {b}"));
    };
    for prompt in [1, 2, 9, 22] {
        let mask = Mask::canvas([prompt - 1]);
        let x = decoder.hidden(&ids, 1, &mask, None, &pass).unwrap();
        let said = decoder.expected(x.clone(), &pass);
        let expected: Vec<f32> = decoder.project(x, &pass).into_data().iter::<f32>().collect();
        let mut cache = prompted(&packed, &ids[..prompt]);
        let causal = packed.read(&[7], &mut cache.clone(), Positions::Last).unwrap();
        let first = packed.repair(&ids[prompt..], &mut cache).unwrap();
        close(&first, &expected[(prompt - 1) * 53..22 * 53]);
        // What a pass says of a place, by the place before it, the next one reads at the place.
        let of_places = packed.expected(&first).unwrap();
        let said: Vec<f32> = said.into_data().iter::<f32>().collect();
        close(&of_places, &said[(prompt - 1) * 36..22 * 36]);
        let mut estimate = vec![0.0; 23 * 36];
        estimate[prompt * 36..].copy_from_slice(&said[(prompt - 1) * 36..22 * 36]);
        let estimate = Tensor::<2>::from_data(TensorData::new(estimate, [23, 36]), &Device::flex());
        let x = decoder.hidden(&ids, 1, &mask, Some(estimate), &pass).unwrap();
        let expected: Vec<f32> = decoder.project(x, &pass).into_data().iter::<f32>().collect();
        let again = packed.repair_again(&[&ids[prompt..]], &of_places, std::slice::from_mut(&mut cache)).unwrap();
        close(&again, &expected[(prompt - 1) * 53..22 * 53]);
        // The prompt's last token is in the cache as if no canvas had been.
        assert_eq!(cache.len(), prompt);
        assert_eq!(packed.read(&[7], &mut cache, Positions::Last).unwrap(), causal);
    }
    let error = packed.repair(&ids, &mut packed.cache(40)).unwrap_err();
    assert_eq!(error, DecodeError::EmptyPrompt);
}

#[test]
fn a_pass_reads_what_the_pass_before_said() {
    let decoder = self_conditioned();
    let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
    let (ids, pass) = (Vec::from_iter((0..23).map(|i| i * i % 53)), Pass::evaluation());
    let (prompt, mask) = (9, Mask::canvas([9]));
    let mut cache = prompted(&packed, &ids[..prompt]);
    let first = packed.repair(&ids[prompt..], &mut cache).unwrap();
    let expected = packed.expected(&first).unwrap();
    let x = decoder.hidden(&ids, 1, &mask, None, &pass).unwrap();
    let of_model: Vec<f32> = decoder.expected(x, &pass).into_data().iter::<f32>().collect();
    let close = |found: &[f32], expected: &[f32]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} for {b}"));
    };
    close(&expected, &of_model[prompt * 36..]);
    let mut estimate = of_model.clone();
    estimate[..prompt * 36].fill(0.0);
    let estimate = Tensor::<2>::from_data(TensorData::new(estimate, [23, 36]), &Device::flex());
    let x = decoder.hidden(&ids, 1, &mask, Some(estimate), &pass).unwrap();
    let logits: Vec<f32> = decoder.project(x, &pass).into_data().iter::<f32>().collect();
    let again = packed.repair_again(&[&ids[prompt..]], &expected, std::slice::from_mut(&mut cache)).unwrap();
    close(&again, &logits[prompt * 53..]);
    assert_ne!(first, again);

    let error = packed.repair_again(&[&ids[prompt..]], &expected[36..], std::slice::from_mut(&mut cache)).unwrap_err();
    assert_eq!(error, DecodeError::Expected { places: 14, expected: 13 });
    let plain = PackedDecoder::new(&super::decoder(), Precision::F32).unwrap();
    assert_eq!(plain.expected(&first), None);
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
            assert!(text.tokens.iter().all(|token| *token < 53));
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
fn the_first_pass_says_how_long_the_text_is() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let ending = Ending { end: 7, padding: 9 };
    let mut lengths = Vec::new();
    for length in [Length::Expected(ending), Length::Drawn(ending)] {
        for acceptance in ACCEPTANCES {
            // Nothing is left that an early pass took.
            let rest = if matches!(acceptance, Acceptance::Share(_)) { Rest::Noise } else { Rest::Keep };
            let options = ParallelOptions { length, ..options(acceptance, rest) };
            let mut passes = Vec::new();
            let mut watch = |canvas: &lapidary_decode::parallel::Canvas| passes.push(canvas.choices.to_vec());
            write(&packed, &mut prompted(&packed, &[1, 2, 3]), &options, &mut watch).unwrap();
            let of_first = passes[1].iter().position(|choice| choice.token == 7).unwrap_or(12);
            for choices in &passes[1..] {
                for (place, choice) in choices.iter().enumerate() {
                    match place.cmp(&of_first) {
                        std::cmp::Ordering::Less => assert!(choice.token != 7 && choice.token != 9),
                        std::cmp::Ordering::Equal => assert_eq!(choice.token, 7),
                        std::cmp::Ordering::Greater => assert_eq!(choice.token, 9),
                    }
                }
            }
            lengths.push(of_first);
        }
    }
    // The model finds all tokens about as likely, so that two in 53 are no text.
    assert!(lengths[..ACCEPTANCES.len()].iter().all(|length| (11..=12).contains(length)), "{lengths:?}");
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

#[test]
fn a_row_does_not_depend_on_what_else_is_written() {
    let prompts: [&[u32]; 4] = [&[1, 2, 3], &[7], &[50, 4, 9, 9, 30, 2, 6], &[1, 2, 3]];
    for decoder in decoders().iter().chain([&self_conditioned()]) {
        let packed = PackedDecoder::new(decoder, Precision::F32).unwrap();
        for (acceptance, stop) in [(Acceptance::Share(0.6), Stop::Never), (Acceptance::All, Stop::Stable)] {
            let options = ParallelOptions { stop, ..options(acceptance, Rest::Keep) };
            let seeds = [3, 3, 9, 4];
            let write = |rows: &[usize]| {
                let mut caches: Vec<KvCache> = rows.iter().map(|row| prompted(&packed, prompts[*row])).collect();
                let seeds: Vec<u64> = rows.iter().map(|row| seeds[*row]).collect();
                write_all(&packed, &mut caches, &options, &seeds, |_, _| ()).unwrap()
            };
            let all = write(&[0, 1, 2, 3]);
            assert_ne!(all[0].tokens, all[3].tokens, "each has a seed of its own");
            for rows in [vec![0], vec![1], vec![2], vec![3], vec![3, 0], vec![2, 1, 0]] {
                let expected: Vec<_> = rows.iter().map(|row| all[*row].clone()).collect();
                assert_eq!(write(&rows), expected, "rows {rows:?}");
            }
            let one = ParallelOptions { seed: 9, ..options };
            assert_eq!(
                lapidary_decode::parallel::write(&packed, &mut prompted(&packed, prompts[2]), &one, |_| ()).unwrap(),
                all[2]
            );
        }
    }
}

#[test]
fn blocks_go_on_from_what_is_written() {
    for decoder in &decoders() {
        let packed = PackedDecoder::new(decoder, Precision::F32).unwrap();
        let options = options(Acceptance::Share(0.5), Rest::Keep);
        let mut cache = prompted(&packed, &[5, 6]);
        let mut seen = Vec::new();
        let blocks = write_blocks(&packed, &mut cache, &options, 3, |_| false, |block, _| seen.push(block)).unwrap();
        assert_eq!((blocks.len(), cache.len()), (3, 2 + 24));
        assert_eq!(seen, [0, 1, 2].map(|block| [block; 7]).concat());
        let mut so_far = vec![5, 6];
        for (block, text) in blocks.iter().enumerate() {
            let options = ParallelOptions { seed: 3 + block as u64, ..options.clone() };
            assert_eq!(write(&packed, &mut prompted(&packed, &so_far), &options, |_| ()).unwrap(), *text);
            so_far.extend(&text.tokens);
        }
        let end = blocks[1].tokens[4];
        let first = blocks[0].tokens.contains(&end);
        let until =
            write_blocks(&packed, &mut prompted(&packed, &[5, 6]), &options, 3, |it| it == end, |_, _| ()).unwrap();
        assert_eq!(until.len(), if first { 1 } else { 2 });
        let mut cache = prompted(&packed, &[5, 6]);
        let error = write_blocks(&packed, &mut cache, &options, 4, |_| false, |_, _| ()).unwrap_err();
        assert_eq!(error, DecodeError::TooLong { tokens: 50, capacity: 40 });
    }
}

#[test]
fn candidates_are_judged_by_what_the_model_says() {
    let (decoder, prompts) = (decoder(), [[4, 8, 15], [16, 23, 42]]);
    let packed = PackedDecoder::new(&decoder, Precision::F32).unwrap();
    let mut caches: Vec<KvCache> = prompts.iter().map(|prompt| prompted(&packed, prompt)).collect();
    let options = options(Acceptance::All, Rest::Keep);
    let written = write_all(&packed, &mut caches, &options, &[1, 2], |_, _| ()).unwrap();
    // The first text ends at its fourth token, if that does not come before.
    let end = written[0].tokens[3];
    let last = prompts.map(|prompt| prompt[2]);
    for by in [Rerank::Own, Rerank::Autoregressive] {
        let judged = rerank(&packed, written.clone(), &last, &mut caches, by, |token| token == end).unwrap();
        assert_eq!(judged.written, written);
        assert!(caches.iter().all(|cache| cache.len() == 3));
        for ((prompt, text), score) in prompts.iter().zip(&written).zip(&judged.scores) {
            let length = text.tokens.iter().position(|token| *token == end).map_or(12, |at| at + 1);
            let ids = [&prompt[..], &text.tokens].concat();
            let (mask, shift) = match by {
                Rerank::Own => (Mask::canvas([3]), 0),
                Rerank::Autoregressive => (Mask::causal(), 1),
            };
            let logits = decoder.logits(&ids, 1, &mask, &Pass::evaluation()).unwrap();
            let logits: Vec<f64> = logits.into_data().iter::<f32>().map(f64::from).collect();
            let log_p = |place: usize| {
                let row = &logits[(place - shift) * 53..][..53];
                row[ids[place] as usize] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln()
            };
            let expected = (3..3 + length).map(log_p).sum::<f64>() / length as f64;
            assert!((score - expected).abs() < 1e-4, "{score} for {expected}, {by:?}");
        }
    }
    let none: &mut [KvCache] = &mut [packed.cache(40), packed.cache(40)];
    let error = rerank(&packed, written.clone(), &last, none, Rerank::Autoregressive, |_| false).unwrap_err();
    assert_eq!(error, DecodeError::EmptyPrompt);
    let error = rerank(&packed, written, &last, &mut caches[..1], Rerank::Autoregressive, |_| false).unwrap_err();
    assert_eq!(error, DecodeError::Caches { sequences: 2, caches: 1 });
}
