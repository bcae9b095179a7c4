//! Heads whose keys are those of the tokens before.

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_kernels::mask::Mask;
use lapidary_models::Pass;
use lapidary_models::layer::{Attention, AttentionConfig, Initializer};

use super::values;

const WIDTH: usize = 12;
const HEADS: usize = 3;

/// What attention is by its definition, causal, the keys of the last `shifted` heads one token further along.
fn dense([q, k, v]: [&[f32]; 3], length: usize, shifted: usize) -> Vec<f64> {
    let each = WIDTH / HEADS;
    let mut out = vec![0.0; q.len()];
    for (row, head, place) in (0..q.len() / (length * WIDTH))
        .flat_map(|row| (0..HEADS).flat_map(move |head| (0..length).map(move |place| (row, head, place))))
    {
        let at = |x: &[f32], place: usize, i: usize| f64::from(x[(row * length + place) * WIDTH + head * each + i]);
        let is_shifted = head >= HEADS - shifted;
        let key = |place: usize, i: usize| match (is_shifted, place) {
            (false, _) => at(k, place, i),
            (true, 0) => 0.0,
            (true, _) => at(k, place - 1, i),
        };
        let score =
            |other: usize| (0..each).map(|i| at(q, place, i) * key(other, i)).sum::<f64>() / (each as f64).sqrt();
        let weights: Vec<f64> = (0..=place).map(|other| score(other).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for i in 0..each {
            let mean = weights.iter().enumerate().map(|(other, weight)| weight * at(v, other, i)).sum::<f64>() / sum;
            out[(row * length + place) * WIDTH + head * each + i] = mean;
        }
    }
    out
}

fn attention(shifted: usize, device: &Device) -> Attention {
    let config = AttentionConfig { shifted, ..AttentionConfig::new(WIDTH, HEADS) };
    Attention::new(&config, &mut Initializer::new(5, 0.4, device))
}

#[test]
fn they_are_attention_over_shifted_keys() {
    let (device, pass) = (Device::flex(), Pass::evaluation());
    for (shifted, rows, length) in [(0, 2, 7), (1, 2, 7), (2, 1, 9), (3, 3, 5), (2, 4, 1)] {
        let attention = attention(shifted, &device);
        let x: Vec<f32> = (0..rows * length * WIDTH).map(|i| (i as f32 * 0.7).sin()).collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [rows * length, WIDTH]), &device);
        let inputs =
            [&attention.query, &attention.key, &attention.value].map(|it| values(it.forward(x.clone(), &pass)));
        let expected = dense(inputs.each_ref().map(Vec::as_slice), length, shifted);
        let found = values(attention.heads(x, rows, &Mask::causal(), &pass));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} for {expected}, {shifted} shifted");
        }
    }
}

/// By differences of a sum of the outputs.
#[test]
fn gradients_reach_the_keys_of_the_tokens_before() {
    let (device, pass) = (Device::flex().autodiff(), Pass::evaluation());
    let attention = attention(2, &device);
    let x = |moved: f32| {
        let numbers = (0..6 * WIDTH).map(|i| (i as f32 * 0.7).sin() + if i == 17 { moved } else { 0.0 }).collect();
        Tensor::<2>::from_data(TensorData::new(numbers, [6, WIDTH]), &device)
    };
    let sum = |x: Tensor<2>| {
        let weights = Vec::from_iter((0..6 * WIDTH).map(|i| (i as f32 * 1.3).cos()));
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [6, WIDTH]), &device);
        (attention.heads(x, 2, &Mask::causal(), &pass) * weights).sum()
    };
    let at = x(0.0).require_grad();
    let gradient = values(at.grad(&sum(at.clone()).backward()).unwrap())[17];
    let loss = |moved: f32| values(sum(x(moved)))[0];
    let difference = (loss(0.01) - loss(-0.01)) / 0.02;
    assert!((gradient - difference).abs() < 1e-3 * difference.abs().max(0.1), "{gradient} for {difference}");
}
