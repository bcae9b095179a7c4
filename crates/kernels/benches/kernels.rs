//! The kernels at the shapes of the training steps that they are made for: `cargo bench -p lapidary-kernels`.
//!
//! `13` tokens in `32` rows are a batch of SST-2 in a MiniLM, `256` tokens in `16` rows one of a small decoder.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use lapidary_kernels::cpu::{
    adamw::{AdamW, adamw_update},
    attention::{AttentionShape, attention, attention_backward},
    cross_entropy::cross_entropy,
    gelu::{gelu, gelu_backward},
    layer_norm::{layer_norm, layer_norm_backward},
    linear::{linear, linear_backward_input, linear_backward_weight},
};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::rng::Stream;

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| stream.normal()).collect()
}

fn dense(c: &mut Criterion) {
    let (n, input, output) = (420, 384, 1536);
    let (x, w, bias) = (random(n * input, 1), random(output * input, 2), random(output, 3));
    let dy = random(n * output, 4);
    let (mut y, mut dx, mut dw) = (vec![0.0; n * output], vec![0.0; n * input], vec![0.0; output * input]);
    c.bench_function("linear 420x384x1536", |b| b.iter(|| linear(&x, &w, Some(&bias), n, input, output, &mut y)));
    c.bench_function("linear_backward_input 420x384x1536", |b| {
        b.iter(|| linear_backward_input(&dy, &w, n, input, output, &mut dx))
    });
    c.bench_function("linear_backward_weight 420x384x1536", |b| {
        b.iter(|| linear_backward_weight(&dy, &x, n, input, output, &mut dw))
    });
}

fn elementwise(c: &mut Criterion) {
    let x = random(416 * 1536, 1);
    let mut y = vec![0.0; x.len()];
    c.bench_function("gelu 416x1536", |b| b.iter(|| gelu(&x, &mut y)));
    c.bench_function("gelu_backward 416x1536", |b| b.iter(|| gelu_backward(&x, &x, &mut y)));

    let (x, width) = (random(416 * 384, 1), 384);
    let (gamma, beta) = (random(width, 2), random(width, 3));
    let (mut y, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
    c.bench_function("layer_norm 416x384", |b| b.iter(|| layer_norm(&x, Some(&x), &gamma, &beta, 1e-12, &mut y)));
    c.bench_function("layer_norm_backward 416x384", |b| {
        b.iter(|| layer_norm_backward(&x, Some(&x), &gamma, 1e-12, &x, &mut y, &mut dgamma, &mut dbeta))
    });
}

fn attentions(c: &mut Criterion) {
    let short = AttentionShape { rows: 32, length: 13, heads: 12, head_width: 32 };
    let long = AttentionShape { rows: 16, length: 256, heads: 4, head_width: 64 };
    for (name, shape, mask) in [("32x13x12x32 full", short, Mask::full()), ("16x256x4x64 causal", long, Mask::causal())]
    {
        let n = shape.rows * shape.length * shape.heads * shape.head_width;
        let (q, k, v) = (random(n, 1), random(n, 2), random(n, 3));
        let (mut out, mut dk, mut dv) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        c.bench_function(&format!("attention {name}"), |b| b.iter(|| attention(&q, &k, &v, shape, &mask, &mut out)));
        c.bench_function(&format!("attention_backward {name}"), |b| {
            b.iter(|| attention_backward(&q, &k, &v, &q, shape, &mask, &mut out, &mut dk, &mut dv))
        });
    }
}

fn losses(c: &mut Criterion) {
    let (n, vocab) = (4096, 4096);
    let logits = random(n * vocab, 1);
    let targets: Vec<i64> = (0..n as i64).collect();
    let mut gradient = vec![0.0; n * vocab];
    c.bench_function("cross_entropy 4096x4096", |b| {
        b.iter(|| black_box(cross_entropy(&logits, &targets, vocab, n as f32, Some(&mut gradient))))
    });
}

fn optimizer(c: &mut Criterion) {
    let n = 11_700_000;
    let (mut param, grad, mut m, mut v) = (random(n, 1), random(n, 2), vec![0.0; n], vec![0.0; n]);
    let settings =
        AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step: 1, grad_scale: 1.0 };
    c.bench_function("adamw 11.7M", |b| b.iter(|| adamw_update(&settings, &mut param, &grad, &mut m, &mut v)));
}

criterion_group!(benches, dense, elementwise, attentions, losses, optimizer);
criterion_main!(benches);
