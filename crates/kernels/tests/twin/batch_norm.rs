use lapidary_kernels::batch_norm::{
    BatchNorm, Statistics, batch_norm, batch_norm_backward, channel_statistics, update_running_statistics,
};
use proptest::prelude::*;

use super::{assert_close, difference, random, to_f64};

const EPS: f32 = 1e-5;

/// The mean and the biased variance of each column.
fn statistics(x: &[f64], channels: usize) -> [Vec<f64>; 2] {
    let n = (x.len() / channels) as f64;
    let column = |channel: usize| x.iter().skip(channel).step_by(channels);
    let mean: Vec<f64> = (0..channels).map(|channel| column(channel).sum::<f64>() / n).collect();
    let variance =
        (0..channels).map(|channel| column(channel).map(|x| (x - mean[channel]).powi(2)).sum::<f64>() / n).collect();
    [mean, variance]
}

fn twin(
    x: &[f64],
    residual: &[f64],
    [mean, variance]: &[Vec<f64>; 2],
    gamma: &[f64],
    beta: &[f64],
    relu: bool,
) -> Vec<f64> {
    let channels = gamma.len();
    let normalised = x.iter().zip(residual).enumerate().map(|(i, (x, residual))| {
        let c = i % channels;
        let y = (x - mean[c]) / (variance[c] + f64::from(EPS)).sqrt() * gamma[c] + beta[c] + residual;
        if relu && y < 0.0 { 0.0 } else { y }
    });
    normalised.collect()
}

struct Case {
    x: Vec<f32>,
    residual: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    fn new(n: usize, channels: usize, with_residual: bool, offset: f32) -> Self {
        let len = n * channels;
        Self {
            x: random(len, 1).iter().map(|x| x + offset).collect(),
            residual: if with_residual { random(len, 2) } else { vec![0.0; len] },
            gamma: random(channels, 3),
            beta: random(channels, 4),
            dy: random(len, 5),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn forward_agrees_with_f64(
        n in 1usize..400, channels in 1usize..90, with_residual: bool, relu: bool, offset in -20f32..20.0,
    ) {
        let Case { x, residual, gamma, beta, .. } = Case::new(n, channels, with_residual, offset);
        let expected = statistics(&to_f64(&x), channels);
        let (mut mean, mut variance) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
        channel_statistics(&x, &mut mean, &mut variance);
        assert_close(&mean, &expected[0], 1e-5, "mean");
        assert_close(&variance, &expected[1], 1e-5, "variance");

        let norm = BatchNorm { mean: &mean, variance: &variance, gamma: &gamma, beta: &beta, eps: EPS, relu };
        let mut y = vec![f32::NAN; n * channels];
        batch_norm(&norm, &x, with_residual.then_some(&residual), &mut y);
        let given = [to_f64(&mean), to_f64(&variance)];
        let expected = twin(&to_f64(&x), &to_f64(&residual), &given, &to_f64(&gamma), &to_f64(&beta), relu);
        // A single row has no variance, and eps alone magnifies the rounding of its mean.
        let tolerance = if n == 1 { 1e-2 } else { 1e-5 };
        assert_close(&y, &expected, tolerance, "y");
    }

    #[test]
    fn backward_agrees_with_differences(
        n in 3usize..8, channels in 1usize..20, with_residual: bool, relu: bool, of_batch: bool,
    ) {
        let Case { x, residual, gamma, beta, dy } = Case::new(n, channels, with_residual, 0.5);
        let (x64, r64, g64, b64) = (to_f64(&x), to_f64(&residual), to_f64(&gamma), to_f64(&beta));
        let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
        channel_statistics(&x, &mut mean, &mut variance);
        let norm = BatchNorm { mean: &mean, variance: &variance, gamma: &gamma, beta: &beta, eps: EPS, relu };
        let mut y = vec![0.0; n * channels];
        batch_norm(&norm, &x, with_residual.then_some(&residual), &mut y);

        let (mut dx, mut dresidual) = (vec![f32::NAN; y.len()], vec![f32::NAN; y.len()]);
        let (mut dgamma, mut dbeta) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
        let (kind, given) = (
            if of_batch { Statistics::OfBatch } else { Statistics::Constant },
            [to_f64(&mean), to_f64(&variance)],
        );
        batch_norm_backward(
            &norm, kind, &x, &y, &dy, &mut dx, with_residual.then_some(&mut dresidual), &mut dgamma, &mut dbeta,
        );
        // What the ReLU lets pass: differences would stumble over its kink.
        let dy: Vec<f32> = dy.iter().zip(&y).map(|(&dy, &y)| if relu && y == 0.0 { 0.0 } else { dy }).collect();
        let of = |x: &[f64]| if of_batch { statistics(x, channels) } else { given.clone() };
        let tolerance = 1e-3;
        let expected = difference(&x, &dy, |x| twin(x, &r64, &of(x), &g64, &b64, false));
        assert_close(&dx, &expected, tolerance, "dx");
        let at = of(&x64);
        let expected = difference(&gamma, &dy, |gamma| twin(&x64, &r64, &at, gamma, &b64, false));
        assert_close(&dgamma, &expected, tolerance, "dgamma");
        let expected = difference(&beta, &dy, |beta| twin(&x64, &r64, &at, &g64, beta, false));
        assert_close(&dbeta, &expected, tolerance, "dbeta");
        if with_residual {
            let expected = difference(&residual, &dy, |residual| twin(&x64, residual, &at, &g64, &b64, false));
            assert_close(&dresidual, &expected, tolerance, "dresidual");
        }
    }
}

#[test]
fn no_rows() {
    let norm = BatchNorm { mean: &[0.0], variance: &[1.0], gamma: &[1.0], beta: &[0.0], eps: EPS, relu: true };
    batch_norm(&norm, &[], None, &mut []);
    let (mut dgamma, mut dbeta) = ([9.0], [9.0]);
    batch_norm_backward(&norm, Statistics::OfBatch, &[], &[], &[], &mut [], None, &mut dgamma, &mut dbeta);
    assert_eq!((dgamma, dbeta), ([0.0], [0.0]));
    let (mut mean, mut variance) = ([0.0], [0.0]);
    channel_statistics(&[], &mut mean, &mut variance);
    assert!(mean[0].is_nan() && variance[0].is_nan());
}

#[test]
fn a_constant_channel_gives_beta() {
    let (mut mean, mut variance) = ([0.0], [1.0]);
    channel_statistics(&[0.1; 100_003], &mut mean, &mut variance);
    assert_eq!((mean, variance), ([0.1], [0.0]));
    let norm = BatchNorm { mean: &mean, variance: &variance, gamma: &[2.0], beta: &[0.75], eps: EPS, relu: false };
    let mut y = [0.0; 3];
    batch_norm(&norm, &[0.1; 3], None, &mut y);
    assert_eq!(y, [0.75; 3]);
}

#[test]
fn a_large_mean_does_not_hide_the_variance() {
    let (n, channels) = (40_000, 3);
    let x: Vec<f32> = random(n * channels, 1).iter().map(|x| 1000.0 + x).collect();
    let expected = statistics(&to_f64(&x), channels);
    let (mut mean, mut variance) = ([0.0; 3], [0.0; 3]);
    channel_statistics(&x, &mut mean, &mut variance);
    assert_close(&mean, &expected[0], 1e-7, "mean");
    assert_close(&variance, &expected[1], 1e-4, "variance");
}

#[test]
fn nan_stays_in_its_channel() {
    let (n, channels) = (50, 5);
    let mut x = random(n * channels, 1);
    x[7] = f32::NAN;
    let (mut mean, mut variance) = ([0.0; 5], [0.0; 5]);
    channel_statistics(&x, &mut mean, &mut variance);
    let norm = BatchNorm { mean: &mean, variance: &variance, gamma: &[1.0; 5], beta: &[0.0; 5], eps: EPS, relu: true };
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    batch_norm(&norm, &x, None, &mut y);
    let (mut dgamma, mut dbeta) = ([0.0; 5], [0.0; 5]);
    let dy = random(x.len(), 2);
    batch_norm_backward(&norm, Statistics::OfBatch, &x, &y, &dy, &mut dx, None, &mut dgamma, &mut dbeta);
    let is_lost = |i: usize, x: &f32| x.is_nan() == (i % channels == 2);
    assert!(y.iter().chain(&dx).enumerate().all(|(i, y)| is_lost(i, y)));
    assert!(mean.iter().chain(&variance).chain(&dgamma).enumerate().all(|(i, y)| is_lost(i, y)));
}

#[test]
fn running_statistics_move_as_in_pytorch() {
    let (mut mean, mut variance) = ([1.0, 0.0], [1.0, 4.0]);
    update_running_statistics(&[3.0, -2.0], &[2.0, 0.5], 5, 0.1, &mut mean, &mut variance);
    assert_close(&mean, &[1.2f64, -0.2], 1e-7, "mean");
    assert_close(&variance, &[0.9 + 0.1 * 2.5, 3.6 + 0.1 * 0.625], 1e-7, "variance");
}
