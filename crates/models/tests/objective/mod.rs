//! What the objectives of text compute, from logits and by hand.

use burn::tensor::Device;
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rng::Stream;
use lapidary_models::Pass;
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};
use lapidary_models::objective::{Autoregressive, Denoising, Objective, TextBatch, TextObjective};

const VOCABULARY: usize = 23;
const LENGTH: usize = 12;

fn decoder() -> Decoder {
    decoder_with(false)
}

fn decoder_with(self_conditioning: bool) -> Decoder {
    let config = DecoderConfig {
        vocabulary: VOCABULARY,
        positions: 20,
        position_encoding: PositionEncoding::Learned,
        width: 24,
        heads: 3,
        feed_forward: 40,
        blocks: 2,
        shifted_heads: 0,
        self_conditioning,
        shifted_canvas: false,
    };
    Decoder::new(&config, 1, &Device::flex())
}

/// Three rows: all target, a prompt before it, padding behind it.
fn batch() -> TextBatch {
    let mut stream = Stream::new(3, 0);
    let ids = (0..3 * LENGTH).map(|_| stream.below(VOCABULARY) as u32).collect();
    let (prompts, ends) = (vec![0, 5, 2].into(), vec![LENGTH, LENGTH, 9].into());
    TextBatch { ids, rows: 3, prompts, ends, key: DrawKey { seed: 7, step: 1 } }
}

/// The sum of `-log softmax(logits)[target]` over places and their targets.
fn sum_of_losses(model: &Decoder, ids: &[u32], mask: &Mask, targets: impl Iterator<Item = (usize, u32)>) -> f64 {
    let logits = model.logits(ids, 3, mask, &Pass::evaluation()).unwrap();
    let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let loss = |(place, target): (usize, u32)| {
        let logits: Vec<f64> = logits[place * VOCABULARY..][..VOCABULARY].iter().map(|l| f64::from(*l)).collect();
        logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[target as usize]
    };
    targets.map(loss).sum()
}

fn loss<O: Objective<Decoder, Batch = TextBatch>>(objective: &O, batch: &TextBatch, normalizer: f32) -> f64 {
    let loss = objective.loss(&decoder(), batch, &Pass::evaluation(), normalizer).unwrap();
    f64::from(loss.into_scalar::<f32>())
}

fn assert_close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5 * expected.abs(), "{found}, not {expected}");
}

fn canvas(batch: &TextBatch) -> Mask {
    Mask::canvas(batch.prompts.clone()).with_lengths(batch.ends.clone())
}

#[test]
fn autoregressive_is_the_next_token_of_the_target() {
    let batch = batch();
    let objective = Autoregressive::default();
    assert_eq!(objective.targets(&batch), 11 + 7 + 7);
    let targets = batch.target_places().filter(|place| place % LENGTH > 0).map(|place| (place - 1, batch.ids[place]));
    let expected = sum_of_losses(&decoder(), &batch.ids, &Mask::causal(), targets) / 25.0;
    assert_close(loss(&objective, &batch, 25.0), expected);
    let all = Autoregressive { prompts: true };
    assert_eq!(all.targets(&batch), 11 + 11 + 8);
    let without = TextBatch { prompts: vec![0; 3].into(), ..batch.clone() };
    assert_eq!(loss(&all, &batch, 30.0), loss(&objective, &without, 30.0));
}

#[test]
fn denoising_repairs_what_is_corrupted_and_then_what_it_drew() {
    let batch = batch();
    let one = Denoising { weights: vec![1.0], vocabulary: VOCABULARY, shifted: false };
    assert_eq!(one.targets(&batch), 12 + 7 + 7);
    let corrupted = one.corrupted(&batch);
    let targets = || batch.target_places().map(|place| (place, batch.ids[place]));
    let first = sum_of_losses(&decoder(), &corrupted, &canvas(&batch), targets()) / 26.0;
    assert_close(loss(&one, &batch, 26.0), first);

    let both = Denoising { weights: vec![0.25, 0.75], vocabulary: VOCABULARY, shifted: false };
    let all: Vec<i64> = (0..3 * LENGTH)
        .map(|place| if batch.target_places().any(|target| target == place) { batch.ids[place].into() } else { -100 })
        .collect();
    let pass = Pass::evaluation();
    let x = decoder().hidden(&corrupted, 3, &canvas(&batch), None, &pass).unwrap();
    let drawn = decoder().loss_drawing_at(x, &all, 1.0, &pass, batch.key).unwrap().1;
    let mut ids = batch.ids.clone();
    batch.target_places().for_each(|place| ids[place] = drawn[place]);
    assert_ne!(ids, batch.ids);
    let second = sum_of_losses(&decoder(), &ids, &canvas(&batch), targets()) / 26.0;
    assert_close(loss(&both, &batch, 26.0), 0.25 * first + 0.75 * second);
}

/// A place is said by the one before it: the canvas begins with the prompt's last token, and a row without a prompt keeps
/// its first.
#[test]
fn a_shifted_canvas_says_what_comes_next() {
    let batch = TextBatch { prompts: vec![0, 3, 1].into(), ..batch() };
    let ends: Vec<usize> = batch.ends.to_vec();
    let one = Denoising { weights: vec![1.0], vocabulary: VOCABULARY, shifted: true };
    let places: Vec<usize> = one.places(&batch).collect();
    let expected: Vec<usize> =
        [1, 3, 1].iter().enumerate().flat_map(|(row, begin)| row * LENGTH + begin..row * LENGTH + ends[row]).collect();
    assert_eq!((&places, one.targets(&batch)), (&expected, expected.len()));
    let corrupted = one.corrupted(&batch);
    assert!((0..3 * LENGTH).filter(|it| !places.contains(it)).all(|place| corrupted[place] == batch.ids[place]));
    assert_ne!(corrupted, batch.ids);
    let mask = Mask::canvas(vec![0, 2, 0]).with_lengths(batch.ends.clone());
    let targets = || places.iter().map(|place| (place - 1, batch.ids[*place]));
    let normalizer = places.len() as f32;
    let first = sum_of_losses(&decoder(), &corrupted, &mask, targets()) / f64::from(normalizer);
    assert_close(loss(&one, &batch, normalizer), first);

    let both = Denoising { weights: vec![0.25, 0.75], ..one };
    let mut all = vec![-100i64; 3 * LENGTH];
    targets().for_each(|(place, id)| all[place] = id.into());
    let pass = Pass::evaluation();
    let x = decoder().hidden(&corrupted, 3, &mask, None, &pass).unwrap();
    let drawn = decoder().loss_drawing_at(x, &all, 1.0, &pass, batch.key).unwrap().1;
    let mut ids = batch.ids.clone();
    places.iter().for_each(|place| ids[*place] = drawn[place - 1]);
    let second = sum_of_losses(&decoder(), &ids, &mask, targets()) / f64::from(normalizer);
    assert_close(loss(&both, &batch, normalizer), 0.25 * first + 0.75 * second);
}

#[test]
fn what_a_pass_says_is_the_mean_of_vectors_and_read_by_the_next() {
    let (model, batch, pass) = (decoder_with(true), batch(), Pass::evaluation());
    let one = Denoising { weights: vec![1.0], vocabulary: VOCABULARY, shifted: false };
    let (corrupted, mask) = (one.corrupted(&batch), canvas(&batch));
    let floats = |x: burn::tensor::Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<_>>();
    let x = model.hidden(&corrupted, 3, &mask, None, &pass).unwrap();
    let expected = floats(model.expected(x.clone(), &pass));
    let logits = floats(model.logits(&corrupted, 3, &mask, &pass).unwrap());
    let table = floats(model.tokens.weight.val());
    let width = expected.len() / batch.ids.len();
    for (place, logits) in logits.chunks(VOCABULARY).enumerate() {
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(*logit).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for column in 0..width {
            let of_token = |token: usize| weights[token] / sum * f64::from(table[token * width + column]);
            let mean: f64 = (0..VOCABULARY).map(of_token).sum();
            assert!((f64::from(expected[place * width + column]) - mean).abs() < 1e-6, "{place}, {column}");
        }
    }
    // The second step reads it at the places of targets; other places read zeros.
    let loss_of = |model: &Decoder, objective: &Denoising| {
        f64::from(objective.loss(model, &batch, &pass, 26.0).unwrap().into_scalar::<f32>())
    };
    let mut blind = model.clone();
    blind.estimate = None;
    assert_eq!(loss_of(&model, &one), loss_of(&blind, &one), "the first step has nothing to read");
    let two = Denoising::new(VOCABULARY);
    assert_ne!(loss_of(&model, &two), loss_of(&blind, &two));
    let zeros = burn::tensor::Tensor::zeros([batch.ids.len(), width], &Device::flex());
    let read = model.hidden(&corrupted, 3, &mask, Some(zeros), &pass).unwrap();
    assert_eq!(floats(read), floats(x));
}

#[test]
fn corruption_spares_prompts_and_padding_and_has_any_rate() {
    let objective = Denoising::new(VOCABULARY);
    let mut shares = Vec::new();
    for step in 0..400 {
        let batch = TextBatch { key: DrawKey { seed: 7, step }, ..batch() };
        let corrupted = objective.corrupted(&batch);
        assert!(corrupted == objective.corrupted(&batch), "the same draws each time");
        assert!(corrupted.iter().all(|id| (*id as usize) < VOCABULARY));
        let targets: Vec<usize> = batch.target_places().collect();
        let kept = |place: &usize| corrupted[*place] == batch.ids[*place];
        assert!((0..3 * LENGTH).filter(|place| !targets.contains(place)).all(|place| kept(&place)));
        shares.push(targets[..LENGTH].iter().filter(|place| !kept(place)).count() as f64 / LENGTH as f64);
    }
    // The rate has mean 1/2 and variance 1/12, and one corrupted token in 23 is what it was.
    let mean = shares.iter().sum::<f64>() / 400.0;
    assert!((mean - 0.5 * 22.0 / 23.0).abs() < 0.06, "{mean}");
    assert!(shares.iter().any(|share| *share < 0.1) && shares.iter().any(|share| *share > 0.85));
}

#[test]
fn padding_makes_no_difference() {
    let before = batch();
    let mut after = before.clone();
    after.ids[2 * LENGTH + 9..].fill(0);
    for normalizer in [1.0, 26.0] {
        assert_eq!(
            loss(&Autoregressive::default(), &before, normalizer),
            loss(&Autoregressive::default(), &after, normalizer)
        );
        let denoising = Denoising::new(VOCABULARY);
        assert_eq!(loss(&denoising, &before, normalizer), loss(&denoising, &after, normalizer));
    }
}

#[test]
fn both_take_turns() {
    let (autoregressive, denoising) = (Autoregressive::default(), Denoising::new(VOCABULARY));
    let both = TextObjective::Both(autoregressive, denoising.clone());
    let of_step = |step| TextBatch { key: DrawKey { seed: 7, step }, ..batch() };
    let (even, odd) = (of_step(4), of_step(5));
    assert_eq!((both.targets(&even), both.targets(&odd)), (25, 26));
    assert_eq!(loss(&both, &even, 25.0), loss(&TextObjective::Autoregressive(autoregressive), &even, 25.0));
    assert_eq!(loss(&both, &odd, 26.0), loss(&TextObjective::Denoising(denoising), &odd, 26.0));
}

#[test]
fn what_cannot_be_learned_is_an_error() {
    let none = Denoising { weights: Vec::new(), vocabulary: VOCABULARY, shifted: false };
    assert!(none.loss(&decoder(), &batch(), &Pass::evaluation(), 1.0).is_err());
    let mut outside = batch();
    outside.ids[20] = VOCABULARY as u32;
    assert_eq!(outside.target_places().filter(|place| *place == 20).count(), 1);
    assert!(Denoising::new(VOCABULARY).loss(&decoder(), &outside, &Pass::evaluation(), 1.0).is_err());
    assert!(Autoregressive::default().loss(&decoder(), &outside, &Pass::evaluation(), 1.0).is_err());
    let long = TextBatch::windows(vec![0; 21], 1, DrawKey { seed: 0, step: 0 });
    let error = Autoregressive::default().loss(&decoder(), &long, &Pass::evaluation(), 1.0).unwrap_err();
    assert!(error.to_string().contains("21 tokens") && error.to_string().contains("20 positions"), "{error}");
}
