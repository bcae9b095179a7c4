//! Kernels over rows of numbers.

use lapidary_kernels::activation::{Activation, activate, activate_backward, gated, gated_backward};
use lapidary_kernels::adamw::{AdamW, adamw_update};
use lapidary_kernels::attention::{
    AttentionOptions, AttentionShape, CachedOptions, KeyValueCache, NewTokens, attention, attention_backward,
    attention_cached,
};
use lapidary_kernels::choice::{Choice, choose, log_probabilities, softmax};
use lapidary_kernels::cross_entropy::cross_entropy;
use lapidary_kernels::dropout::dropout;
use lapidary_kernels::embedding::{gather, scatter_add};
use lapidary_kernels::fake_quantize::{fake_quantize, fake_quantize_backward, fake_quantize_codes, fake_quantize_rows};
use lapidary_kernels::gelu::{gelu, gelu_backward};
use lapidary_kernels::layer_norm::{add_layer_norm, add_layer_norm_backward, layer_norm, layer_norm_backward};
use lapidary_kernels::limits;
use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight, sum_rows};
use lapidary_kernels::linear_cross_entropy::{
    DrawKey, LinearCrossEntropy, linear_cross_entropy, linear_cross_entropy_drawing,
};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::moments::rounding_moments;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::reduce::sum_of_squares;
use lapidary_kernels::rms_norm::{add_rms_norm, add_rms_norm_backward, rms_norm, rms_norm_backward};
use lapidary_kernels::rotary::{Rotary, Turns, rotate, rotate_backward};
use lapidary_kernels::sgd::{Sgd, sgd_update};
use lapidary_kernels::team::with_team;

use super::{Edge, Guarded, check};
use crate::support::random;

/// Odd sizes: of one tile and less, of several blocks of the depth, of more rows than a task has.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (1, 37, 33),
    (3, 17, 16),
    (7, 31, 47),
    (16, 32, 32),
    (33, 65, 31),
    (5, 643, 19),
    (101, 34, 61),
    (4, 1301, 70),
];

#[test]
fn linear_stays_inside() {
    for (n, input, output) in SHAPES {
        let (x, w, dy) = (random(n * input, 1), random(output * input, 2), random(n * output, 3));
        let bias = random(output, 4);
        for precision in [Precision::F32, Precision::Bf16] {
            let what = |kernel: &str| format!("{kernel} of {n} rows, {input} to {output} in {precision:?}");
            check(&what("linear"), [&x, &w], [n * output], |[x, w], [y]| {
                linear(x, w, None, None, n, input, output, precision, y);
            });
            check(&what("linear with terms"), [&x, &w, &bias, &dy], [n * output], |[x, w, bias, residual], [y]| {
                linear(x, w, Some(bias), Some(residual), n, input, output, precision, y);
            });
            check(&what("linear_backward_input"), [&dy, &w], [n * input], |[dy, w], [dx]| {
                linear_backward_input(dy, w, n, input, output, precision, dx);
            });
            check(&what("linear_backward_weight"), [&dy, &x], [output * input], |[dy, x], [dw]| {
                linear_backward_weight(dy, x, n, input, output, precision, dw);
            });
            check(&what("packed"), [&x, &w, &bias, &dy], [n * output], |[x, w, bias, residual], [y]| {
                let packed = PackedLinear::new(w, output, input, precision);
                packed.forward(x, n, Some(bias), Some(residual), y);
            });
            check(&what("packed by panels"), [&x, &w], [n * output.min(16)], |[x, w], [y]| {
                PackedLinear::new(w, output, input, precision).forward_panels(x, n, 0..1, None, None, y);
            });
        }
        check("sum_rows", [&dy], [output], |[dy], [db]| sum_rows(dy, n, output, db));
    }
}

#[test]
fn elementwise_kernels_stay_inside() {
    for n in [1, 2, 15, 16, 17, 100, 1027] {
        let (x, dy) = (random(n, 1), random(n, 2));
        check("gelu", [&x], [n], |[x], [y]| gelu(x, y));
        check("gelu_backward", [&x, &dy], [n], |[x, dy], [dx]| gelu_backward(x, dy, dx));
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Relu] {
            check("activate", [&x], [n], |[x], [y]| activate(activation, x, y));
            check("activate_backward", [&x, &dy], [n], |[x, dy], [dx]| activate_backward(activation, x, dy, dx));
        }
        check("dropout", [&x], [n], |[x], [y]| dropout(x, 0.3, 1, 2, 3, y));
        check("adamw_update", [&dy], [n, n, n], |[grad], [param, m, v]| {
            let settings =
                AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 2, grad_scale: 0.5 };
            adamw_update(&settings, param, grad, m, v);
        });
        check("sgd_update", [&dy], [n, n], |[grad], [param, velocity]| {
            let settings = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.1, grad_scale: 0.5 };
            sgd_update(&settings, param, grad, velocity);
        });
        check("limits::read", [&x], [1], |[x], [y]| y[0] = with_team(2, |team| limits::read(x, team)));
        check("sum_of_squares", [&x], [1], |[x], [y]| y[0] = sum_of_squares(x) as f32);
        check("rounding_moments", [&x], [3], |[x], [y]| {
            y.copy_from_slice(&rounding_moments(x, 0.1, -3.0, 4.0).map(|moment| moment as f32));
        });
    }
}

#[test]
fn kernels_over_rows_stay_inside() {
    for (n, width) in [(1, 1), (3, 17), (5, 33), (2, 300), (70, 7)] {
        let [x, residual, dy] = [1, 2, 3].map(|seed| random(n * width, seed));
        let (gamma, beta) = (random(width, 4), random(width, 5));
        check("layer_norm", [&x, &residual, &gamma, &beta], [n * width], |[x, residual, gamma, beta], [y]| {
            layer_norm(x, Some(residual), gamma, beta, 1e-5, y);
        });
        let lens = [n * width, width, width];
        check("layer_norm_backward", [&x, &residual, &gamma, &dy], lens, |[x, residual, gamma, dy], [dx, dg, db]| {
            layer_norm_backward(x, Some(residual), gamma, 1e-5, dy, dx, dg, db);
        });
        check(
            "add_layer_norm",
            [&x, &residual, &gamma, &beta],
            [n * width; 2],
            |[x, residual, gamma, beta], [sum, y]| {
                add_layer_norm(x, residual, gamma, beta, 1e-5, sum, y);
            },
        );
        check("add_layer_norm_backward", [&x, &gamma, &residual, &dy], lens, |[sum, gamma, dsum, dy], [dx, dg, db]| {
            add_layer_norm_backward(sum, gamma, 1e-5, dsum, dy, dx, dg, db);
        });
        check("rms_norm", [&x, &residual, &gamma], [n * width], |[x, residual, weight], [y]| {
            rms_norm(x, Some(residual), weight, 1e-5, y);
        });
        check("add_rms_norm", [&x, &residual, &gamma], [n * width; 2], |[x, residual, weight], [sum, y]| {
            add_rms_norm(x, residual, weight, 1e-5, sum, y);
        });
        let lens = [n * width, width];
        check("rms_norm_backward", [&x, &residual, &gamma, &dy], lens, |[x, residual, weight, dy], [dx, dweight]| {
            rms_norm_backward(x, Some(residual), weight, 1e-5, dy, dx, dweight);
        });
        check("add_rms_norm_backward", [&x, &gamma, &residual, &dy], lens, |[sum, weight, dsum, dy], [dx, dweight]| {
            add_rms_norm_backward(sum, weight, 1e-5, dsum, dy, dx, dweight);
        });
        let wide = random(2 * n * width, 6);
        check("gated", [&wide], [n * width], |[x], [y]| gated(Activation::GeluTanh, x, width, y));
        check("gated_backward", [&wide, &dy], [2 * n * width], |[x, dy], [dx]| {
            gated_backward(Activation::Silu, x, width, dy, dx);
        });
        let targets: Vec<i64> = (0..n).map(|i| (i * 7 % width) as i64).collect();
        check("cross_entropy", [&x], [n * width, 1], |[logits], [dlogits, loss]| {
            loss[0] = cross_entropy(logits, &targets, width, 3.0, Some(dlogits)).expect("classes") as f32;
            let alone = cross_entropy(logits, &targets, width, 3.0, None).expect("classes");
            assert!((alone as f32 - loss[0]).abs() < 1e-5 * loss[0].abs().max(1.0));
        });
        let settings = LinearCrossEntropy { width, normalizer: 3.0, soft_cap: Some(5.0), precision: Precision::Bf16 };
        let lens = [n * width, width * width, 1];
        let table = random(width * width, 7);
        check("linear_cross_entropy", [&x, &table], lens, |[x, w], [dx, dw, loss]| {
            loss[0] = linear_cross_entropy(&settings, x, w, &targets, Some((dx, dw))).expect("classes") as f32;
        });
        check("linear_cross_entropy_drawing", [&x, &table], lens, |[x, w], [dx, dw, loss]| {
            for edge in [Edge::Start, Edge::End] {
                let mut tokens = Guarded::new(&vec![0u32; n], edge);
                let (key, gradients) = (DrawKey { seed: 1, step: 2 }, Some((&mut *dx, &mut *dw)));
                let sum = linear_cross_entropy_drawing(&settings, x, w, &targets, gradients, key, &mut tokens);
                loss[0] = sum.expect("classes") as f32;
            }
        });
        let uniform = random(n, 8).iter().map(|x| x.abs().fract()).collect::<Vec<_>>();
        check("choose", [&x, &uniform], [n], |[logits, uniform], [y]| {
            let mut choices = vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; n];
            for temperature in [0.0, 0.8] {
                choose(logits, width, temperature, uniform, &mut choices);
            }
            y.iter_mut().zip(&choices).for_each(|(y, choice)| *y = choice.entropy);
        });
        let tokens: Vec<u32> = (0..n).map(|i| (i * 7 % width) as u32).collect();
        check("softmax", [&x], [n * width], |[logits], [y]| {
            y.copy_from_slice(logits);
            softmax(y, width);
        });
        check("log_probabilities", [&x], [n], |[logits], [y]| log_probabilities(logits, width, &tokens, y));
        let ids: Vec<u32> = (0..n as u32).rev().collect();
        check("gather", [&x], [n * width], |[table], [out]| gather(table, width, &ids, out));
        check("scatter_add", [&dy], [n * width], |[dy], [dtable]| scatter_add(dy, width, &ids, dtable));

        let (scales, zeros) = (vec![0.2; n], vec![7.0; n]);
        check("fake_quantize", [&x, &scales, &zeros], [n * width], |[w, scales, zeros], [y]| {
            fake_quantize(w, n, width, scales, zeros, 4, y);
            for edge in [Edge::Start, Edge::End] {
                let mut codes = Guarded::new(&vec![0u8; n * width], edge);
                fake_quantize_codes(w, n, width, scales, zeros, 4, &mut codes);
            }
        });
        let lens = [n * width, n];
        check("fake_quantize_backward", [&x, &scales, &zeros, &dy], lens, |[w, scales, zeros, dy], [dw, ds]| {
            fake_quantize_backward(w, n, width, scales, zeros, 4, dy, dw, ds);
        });
        check("fake_quantize_rows", [&x], [n * width], |[x], [y]| fake_quantize_rows(x, width, 8, y));
    }
}

#[test]
fn attention_stays_inside() {
    for (rows, length, heads, kv_heads, head_width) in
        [(1, 1, 1, 1, 2), (2, 13, 3, 3, 6), (1, 50, 4, 2, 18), (2, 33, 1, 1, 16), (1, 300, 2, 1, 10)]
    {
        let shape = AttentionShape { rows, length, heads, kv_heads, head_width };
        let (size, keys) = (shape.query_len(), shape.key_len());
        let [q, dout] = [1, 2].map(|seed| random(size, seed));
        let [k, v] = [3, 4].map(|seed| random(keys, seed));
        let plain = [Mask::full(), Mask::causal()].map(AttentionOptions::from);
        let rotary = Some(Rotary::new(1e4, head_width));
        let turned = AttentionOptions { rotary, soft_cap: Some(20.0), ..Mask::causal().with_window(7).into() };
        for options in [&plain[0], &plain[1], &turned] {
            let lens = [size, rows * heads * length];
            check("attention", [&q, &k, &v], lens, |[q, k, v], [out, log_sums]| {
                attention(q, k, v, shape, options, out, Some(log_sums));
            });
            let (mut out, mut log_sums) = (vec![0.0; size], vec![0.0; lens[1]]);
            attention(&q, &k, &v, shape, options, &mut out, Some(&mut log_sums));
            let inputs = [&q, &k, &v, &out, &log_sums, &dout].map(|input| &input[..]);
            check("attention_backward", inputs, [size, keys, keys], |[q, k, v, out, sums, dout], [dq, dk, dv]| {
                attention_backward(q, k, v, out, sums, dout, shape, options, dq, dk, dv);
            });
        }
        let tokens = length.min(5);
        let q = &q[..tokens * heads * head_width];
        check("attention_cached", [q, &k, &v], [q.len()], |[queries, keys, values], [out]| {
            let mut cache = KeyValueCache::new(length, kv_heads, head_width);
            let width = kv_heads * head_width;
            for (position, (key, value)) in keys.chunks(width).zip(values.chunks(width)).enumerate().take(length) {
                cache.put(position, key, value);
            }
            let new = NewTokens { queries, heads, past: length - tokens };
            attention_cached(new, &cache, &CachedOptions::default(), out);
        });
        let (frequencies, positions) = (Rotary::new(1e4, head_width).frequencies, Vec::from_iter(0..rows * length));
        let places: Vec<u32> = (0..(rows * length) as u32).collect();
        check("Turns", [&k], [keys], |[x], [y]| {
            y.copy_from_slice(x);
            Turns::new(&frequencies, &places).apply(y, keys / places.len(), 0..keys / places.len());
        });
        check("rotate", [&k], [keys], |[x], [y]| rotate(x, &frequencies, &positions, y));
        check("rotate_backward", [&k], [keys], |[dy], [dx]| rotate_backward(dy, &frequencies, &positions, dx));
    }
}
