//! No result depends on the number of threads.

use lapidary_kernels::mask::Mask;
use lapidary_kernels::{
    adamw::{AdamW, adamw_update},
    attention::{AttentionShape, attention, attention_backward},
    cross_entropy::cross_entropy,
    dropout::dropout,
    fake_quantize::{fake_quantize_backward, fake_quantize_rows},
    gelu::{gelu, gelu_backward},
    layer_norm::{layer_norm, layer_norm_backward},
    linear::{linear, linear_backward_input, linear_backward_weight, sum_rows},
    packed::PackedLinear,
    precision::Precision,
    reduce::sum_of_squares,
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
    run(2, &|y| {
        let bits = sum_of_squares(&random(200_000, 5)).to_bits();
        y.copy_from_slice(&[f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]);
    });
    let shape = AttentionShape { rows: 3, length: 100, heads: 5, head_width: 20 };
    let (q, k, v) = (&x[..30_000], &w[..30_000], &dy[..30_000]);
    run(30_000, &|out| attention(q, k, v, shape, &Mask::causal(), out));
    run(90_000, &|gradients| {
        let (dq, rest) = gradients.split_at_mut(30_000);
        let (dk, dv) = rest.split_at_mut(30_000);
        attention_backward(q, k, v, q, shape, &Mask::causal(), dq, dk, dv);
    });
    all
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(results);
    let one = with(1);
    assert!(one == with(2) && one == with(5));
}
