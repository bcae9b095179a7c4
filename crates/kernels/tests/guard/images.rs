//! Kernels over images, channels last.

use lapidary_kernels::batch_norm::{
    BatchNorm, Statistics, batch_norm, batch_norm_backward, channel_statistics, update_running_statistics,
};
use lapidary_kernels::conv2d::{Conv2dShape, conv2d, conv2d_backward_input, conv2d_backward_weight};
use lapidary_kernels::pool::{global_average_pool, global_average_pool_backward};

use super::check;
use crate::support::random;

#[test]
fn conv2d_stays_inside() {
    for (batch, height, width, channels, output, kernel, stride, padding) in [
        (1, 1, 1, 1, 1, [1, 1], [1, 1], [0, 0]),
        (2, 5, 7, 3, 17, [3, 3], [1, 1], [1, 1]),
        (3, 9, 8, 16, 16, [3, 3], [2, 2], [1, 1]),
        (1, 11, 6, 5, 3, [2, 4], [3, 1], [2, 0]),
        (2, 7, 7, 33, 9, [1, 1], [2, 2], [0, 0]),
    ] {
        let shape = Conv2dShape { batch, height, width, channels, output, kernel, stride, padding };
        let (x, w) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
        let (dy, bias) = (random(shape.output_len(), 3), random(output, 4));
        check("conv2d", [&x, &w, &bias], [dy.len()], |[x, w, bias], [y]| conv2d(x, w, Some(bias), shape, y));
        check("conv2d_backward_input", [&dy, &w], [x.len()], |[dy, w], [dx]| conv2d_backward_input(dy, w, shape, dx));
        check("conv2d_backward_weight", [&dy, &x], [w.len()], |[dy, x], [dw]| {
            conv2d_backward_weight(dy, x, shape, dw);
        });
    }
}

#[test]
fn batch_norm_and_pooling_stay_inside() {
    for (n, channels) in [(1, 1), (7, 3), (33, 16), (40, 17), (9, 100)] {
        let [x, residual, dy] = [1, 2, 3].map(|seed| random(n * channels, seed));
        let [mean, gamma, beta] = [4, 5, 6].map(|seed| random(channels, seed));
        let variance = vec![0.5; channels];
        check("channel_statistics", [&x], [channels; 2], |[x], [mean, variance]| {
            channel_statistics(x, mean, variance);
        });
        check("update_running_statistics", [&mean, &variance], [channels; 2], |[mean, variance], [to, spread]| {
            update_running_statistics(mean, variance, n, 0.1, to, spread);
        });
        let inputs = [&x, &residual, &mean, &variance, &gamma, &beta].map(|input| &input[..]);
        let mut out = vec![0.0; n * channels];
        check("batch_norm", inputs, [n * channels], |[x, residual, mean, variance, gamma, beta], [y]| {
            let norm = BatchNorm { mean, variance, gamma, beta, eps: 1e-5, relu: true };
            batch_norm(&norm, x, Some(residual), y);
        });
        let norm = BatchNorm { mean: &mean, variance: &variance, gamma: &gamma, beta: &beta, eps: 1e-5, relu: true };
        batch_norm(&norm, &x, Some(&residual), &mut out);
        let inputs = [&x, &out, &dy, &mean, &variance, &gamma, &beta].map(|input| &input[..]);
        let lens = [n * channels, n * channels, channels, channels];
        for statistics in [Statistics::OfBatch, Statistics::Constant] {
            check("batch_norm_backward", inputs, lens, |[x, y, dy, mean, variance, gamma, beta], [dx, dr, dg, db]| {
                let norm = BatchNorm { mean, variance, gamma, beta, eps: 1e-5, relu: true };
                batch_norm_backward(&norm, statistics, x, y, dy, dx, Some(dr), dg, db);
            });
        }
        check("global_average_pool", [&x], [channels], |[x], [y]| global_average_pool(x, n, channels, y));
        check("global_average_pool_backward", [&mean], [n * channels], |[dy], [dx]| {
            global_average_pool_backward(dy, n, channels, dx);
        });
    }
}
