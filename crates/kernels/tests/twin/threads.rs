//! No result depends on the number of threads.

use lapidary_kernels::mask::Mask;
use lapidary_kernels::rotary::Rotary;
use lapidary_kernels::{
    activation::{Activation, activate, activate_backward, gated, gated_backward},
    adamw::{AdamW, adamw_update},
    attention::{
        AttentionOptions, AttentionShape, CachedOptions, KeyValueCache, NewTokens, attention, attention_backward,
        attention_cached,
    },
    batch_norm::{BatchNorm, Statistics, batch_norm, batch_norm_backward, channel_statistics},
    choice::{Choice, choose, log_probabilities, softmax},
    conv2d::{Conv2dShape, conv2d, conv2d_backward_input, conv2d_backward_weight},
    cross_entropy::cross_entropy,
    dropout::dropout,
    fake_quantize::{fake_quantize_backward, fake_quantize_rows},
    gelu::{gelu, gelu_backward},
    layer_norm::{add_layer_norm, add_layer_norm_backward, layer_norm, layer_norm_backward},
    linear::{linear, linear_backward_input, linear_backward_weight, sum_rows},
    linear_cross_entropy::{DrawKey, LinearCrossEntropy, linear_cross_entropy, linear_cross_entropy_drawing},
    packed::PackedLinear,
    pool::{global_average_pool, global_average_pool_backward},
    precision::Precision,
    reduce::sum_of_squares,
    rms_norm::{add_rms_norm, add_rms_norm_backward, rms_norm, rms_norm_backward},
    rotary::{Turns, rotate, rotate_backward},
    sgd::{Sgd, sgd_update},
};

use super::random;

/// The bits of everything that the kernels write, on shapes of several chunks.
fn results() -> Vec<u32> {
    let (n, input, output) = (150, 200, 300);
    let (x, w, dy) = (random(n * input, 1), random(output * input, 2), random(n * output, 3));
    let mut all = Vec::new();
    let mut run = |len: usize, kernel: &dyn Fn(&mut [f32])| {
        let mut y = vec![0.0; len];
        kernel(&mut y);
        all.extend(y.iter().map(|y| y.to_bits()));
    };
    for precision in [Precision::F32, Precision::Bf16] {
        run(n * output, &|y| linear(&x, &w, Some(&w[..output]), Some(&dy), n, input, output, precision, y));
        run(n * input, &|dx| linear_backward_input(&dy, &w, n, input, output, precision, dx));
        run(output * input, &|dw| linear_backward_weight(&dy, &x, n, input, output, precision, dw));
        let packed = PackedLinear::new(&w, output, input, precision);
        run(output, &|y| packed.forward(&x[..input], 1, None, None, y));
        run(n * output, &|y| packed.forward(&x, n, None, None, y));
    }
    run(output, &|db| sum_rows(&dy, n, output, db));
    run(n * output, &|y| layer_norm(&dy, None, &w[..output], &x[..output], 1e-5, y));
    run(n * output + 2 * output, &|y| {
        let (dx, rest) = y.split_at_mut(n * output);
        let (dgamma, dbeta) = rest.split_at_mut(output);
        layer_norm_backward(&dy, None, &w[..output], 1e-5, &dy, dx, dgamma, dbeta);
    });
    run(2 * n * output, &|both| {
        let (sum, y) = both.split_at_mut(n * output);
        add_layer_norm(&dy, &dy, &w[..output], &x[..output], 1e-5, sum, y);
    });
    run(n * output + 2 * output, &|y| {
        let (dx, rest) = y.split_at_mut(n * output);
        let (dgamma, dbeta) = rest.split_at_mut(output);
        add_layer_norm_backward(&dy, &w[..output], 1e-5, &dy, &dy, dx, dgamma, dbeta);
    });
    run(n * output, &|y| rms_norm(&dy, None, &w[..output], 1e-5, y));
    run(2 * n * output, &|both| {
        let (sum, y) = both.split_at_mut(n * output);
        add_rms_norm(&dy, &dy, &w[..output], 1e-5, sum, y);
    });
    run(n * output + output, &|y| {
        let (dx, dweight) = y.split_at_mut(n * output);
        rms_norm_backward(&dy, None, &w[..output], 1e-5, &dy, dx, dweight);
    });
    run(n * output + output, &|y| {
        let (dx, dweight) = y.split_at_mut(n * output);
        add_rms_norm_backward(&dy, &w[..output], 1e-5, &dy, &dy, dx, dweight);
    });
    let (rotary, positions) = (Rotary::new(1e4, 30), (0..n).collect::<Vec<_>>());
    run(n * output, &|y| rotate(&dy, &rotary.frequencies, &positions, y));
    run(n * output, &|dx| rotate_backward(&dy, &rotary.frequencies, &positions, dx));
    run(n * output, &|y| activate(Activation::Silu, &dy, y));
    run(n * output, &|dx| activate_backward(Activation::GeluTanh, &dy, &dy, dx));
    run(n * output / 2, &|y| gated(Activation::GeluTanh, &dy, output / 2, y));
    run(n * output, &|dx| gated_backward(Activation::Silu, &dy, output / 2, &dy[..n * output / 2], dx));
    run(n * output, &|y| gelu(&dy, y));
    run(n * output, &|dx| gelu_backward(&dy, &dy, dx));
    run(n * output, &|y| dropout(&dy, 0.3, 1, 2, 3, y));
    run(n * output, &|y| fake_quantize_rows(&dy, output, 8, y));
    run(n * output + 7, &|y| {
        let (dw, dscales) = y.split_at_mut(n * output);
        fake_quantize_backward(&dy, n, output, &[0.2; 7], &[7.0; 7], 4, &dy, dw, dscales);
    });
    run(n * output + 2, &|y| {
        let (gradient, loss) = y.split_at_mut(n * output);
        let targets: Vec<i64> = (0..n as i64).collect();
        let value = cross_entropy(&dy, &targets, output, 10.0, Some(gradient)).unwrap();
        let bits = value.to_bits();
        loss.copy_from_slice(&[f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]);
    });
    run(3 * n * output, &|y| {
        let (param, moments) = y.split_at_mut(n * output);
        let (m, v) = moments.split_at_mut(n * output);
        let settings =
            AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 2, grad_scale: 0.5 };
        adamw_update(&settings, param, &dy, m, v);
    });
    run(2 * n * output, &|y| {
        let (param, velocity) = y.split_at_mut(n * output);
        let settings = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, grad_scale: 0.5 };
        sgd_update(&settings, param, &dy, velocity);
    });
    run(n * input + output * input + 2, &|y| {
        let (loss, rest) = y.split_at_mut(2);
        let (dx, dw) = rest.split_at_mut(n * input);
        let settings =
            LinearCrossEntropy { width: input, normalizer: 10.0, soft_cap: Some(30.0), precision: Precision::F32 };
        let targets: Vec<i64> = (0..n as i64).collect();
        let value = linear_cross_entropy(&settings, &x, &w, &targets, Some((dx, dw))).unwrap();
        let bits = value.to_bits();
        loss.copy_from_slice(&[f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]);
    });
    run(n * input + output * input + n, &|y| {
        let (drawn, rest) = y.split_at_mut(n);
        let (dx, dw) = rest.split_at_mut(n * input);
        let settings = LinearCrossEntropy { width: input, normalizer: 10.0, soft_cap: None, precision: Precision::F32 };
        let (targets, mut tokens) = (Vec::from_iter(0..n as i64), vec![0; n]);
        let key = DrawKey { seed: 1, step: 2 };
        linear_cross_entropy_drawing(&settings, &x, &w, &targets, Some((dx, dw)), key, &mut tokens).unwrap();
        drawn.iter_mut().zip(tokens).for_each(|(drawn, token)| *drawn = f32::from_bits(token));
    });
    run(4 * n, &|y| {
        let (uniform, mut choices) = (vec![0.4; n], vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; n]);
        choose(&dy, output, 0.7, &uniform, &mut choices);
        for (y, choice) in y.chunks_exact_mut(3).zip(&choices) {
            y.copy_from_slice(&[f32::from_bits(choice.token), choice.log_probability, choice.entropy]);
        }
        log_probabilities(&dy, output, &vec![7; n], &mut y[3 * n..]);
    });
    run(n * output, &|y| {
        y.copy_from_slice(&dy);
        softmax(y, output);
    });
    run(n * output, &|y| {
        y.copy_from_slice(&dy);
        let positions: Vec<u32> = (0..n as u32).collect();
        Turns::new(&Rotary::new(1e4, 20).frequencies, &positions).apply(y, output, 0..200);
    });
    let shape = Conv2dShape {
        batch: 9,
        height: 21,
        width: 20,
        channels: 5,
        output: 7,
        kernel: [3, 3],
        stride: [2, 1],
        padding: [1, 1],
    };
    let pictures = random(shape.input_len(), 6);
    let (weight, dy_pictures) = (random(shape.weight_len(), 7), random(shape.output_len(), 8));
    run(shape.output_len(), &|y| conv2d(&pictures, &weight, Some(&weight[..7]), shape, y));
    run(shape.input_len(), &|dx| conv2d_backward_input(&dy_pictures, &weight, shape, dx));
    run(shape.weight_len(), &|dw| conv2d_backward_weight(&dy_pictures, &pictures, shape, dw));
    run(2 * n * output + 4 * output, &|y| {
        let (mean, rest) = y.split_at_mut(output);
        let (variance, rest) = rest.split_at_mut(output);
        channel_statistics(&dy, mean, variance);
        let (gamma, beta) = (&x[..output], &w[..output]);
        let norm = BatchNorm { mean, variance, gamma, beta, eps: 1e-5, relu: true };
        let (normed, rest) = rest.split_at_mut(n * output);
        batch_norm(&norm, &dy, None, normed);
        let (dx, rest) = rest.split_at_mut(n * output);
        let (dgamma, dbeta) = rest.split_at_mut(output);
        batch_norm_backward(&norm, Statistics::OfBatch, &dy, normed, &dy, dx, None, dgamma, dbeta);
    });
    run(10 * output, &|y| global_average_pool(&dy, 15, output, y));
    run(n * output, &|dx| global_average_pool_backward(&w[..10 * output], 15, output, dx));
    run(2, &|y| {
        let bits = sum_of_squares(&random(200_000, 5)).to_bits();
        y.copy_from_slice(&[f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]);
    });
    // Many heads; one head, whose queries several tasks share.
    let shapes = [
        AttentionShape { rows: 3, length: 100, heads: 5, kv_heads: 5, head_width: 20 },
        AttentionShape { rows: 1, length: 300, heads: 5, kv_heads: 1, head_width: 20 },
    ];
    let options = AttentionOptions {
        mask: Mask::causal().with_window(70),
        rotary: Some(Rotary::new(1e4, 20)),
        ..AttentionOptions::default()
    };
    for shape in shapes {
        let keys = shape.key_len();
        let (q, k, v) = (&x[..30_000], &w[..keys], &dy[..keys]);
        let mut forward = vec![0.0; 31_500];
        let (out, log_sums) = forward.split_at_mut(30_000);
        attention(q, k, v, shape, &options, out, Some(log_sums));
        run(31_500, &|both| both.copy_from_slice(&forward));
        run(30_000 + 2 * keys, &|gradients| {
            let (dq, rest) = gradients.split_at_mut(30_000);
            let (dk, dv) = rest.split_at_mut(keys);
            let (out, log_sums) = forward.split_at(30_000);
            attention_backward(q, k, v, out, log_sums, q, shape, &options, dq, dk, dv);
        });
    }
    let mut cache = KeyValueCache::new(300, 5, 20);
    for (position, (key, value)) in w.chunks(100).zip(dy.chunks(100)).enumerate().take(300) {
        cache.put(position, key, value);
    }
    let new = NewTokens { queries: &x, heads: 10, past: 150 };
    run(n * input, &|out| attention_cached(new, &cache, &CachedOptions::default(), out));
    all
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(results);
    let one = with(1);
    assert!(one == with(2) && one == with(5));
}
