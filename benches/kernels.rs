//! Each kernel on a shape of the decoder or the residual network that `lapidary bench` trains.
//!
//! `cargo bench --manifest-path benches/Cargo.toml [-- FILTER]`; `LAPIDARY_ISA` chooses the instruction set. Criterion
//! compares with the run before.

use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use lapidary_kernels::activation::{Activation, activate, activate_backward, gated, gated_backward};
use lapidary_kernels::adamw::{AdamW, adamw_update};
use lapidary_kernels::attention::{
    AttentionOptions, AttentionShape, CachedOptions, KeyValueCache, NewTokens, attention, attention_backward,
    attention_cached,
};
use lapidary_kernels::batch_norm::{BatchNorm, Statistics, batch_norm, batch_norm_backward, channel_statistics};
use lapidary_kernels::choice::{Choice, choose, log_probabilities};
use lapidary_kernels::conv2d::{Conv2dShape, conv2d, conv2d_backward_input, conv2d_backward_weight};
use lapidary_kernels::cross_entropy::cross_entropy;
use lapidary_kernels::fake_quantize::{fake_quantize, fake_quantize_backward};
use lapidary_kernels::layer_norm::{add_layer_norm, add_layer_norm_backward};
use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight};
use lapidary_kernels::linear_cross_entropy::{LinearCrossEntropy, linear_cross_entropy};
use lapidary_kernels::mask::Mask;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rms_norm::{add_rms_norm, add_rms_norm_backward};
use lapidary_kernels::rng::Stream;
use lapidary_kernels::rotary::{Rotary, Turns};
use lapidary_kernels::sgd::{Sgd, sgd_update};

/// Tokens of a batch, the decoder's width, and that of its feed-forward half.
const TOKENS: usize = 16 * 256;
const WIDTH: usize = 256;
const INNER: usize = 1024;

fn random(n: usize) -> Vec<f32> {
    let mut stream = Stream::new(n as u64, 0);
    (0..n).map(|_| stream.normal()).collect()
}

/// One bench of a kernel that writes into arrays of the lengths `lens`.
fn bench<const O: usize>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    lens: [usize; O],
    kernel: impl Fn([&mut [f32]; O]),
) {
    let mut outputs = lens.map(|len| vec![0f32; len]);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            kernel(outputs.each_mut().map(|output| &mut output[..]));
            black_box(&outputs);
        });
    });
}

/// Rates are multiplications and additions a second, where they bound the kernel.
fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    let (x, w, dy) = (random(TOKENS * WIDTH), random(INNER * WIDTH), random(TOKENS * INNER));
    group.throughput(Throughput::Elements(2 * (TOKENS * WIDTH * INNER) as u64));
    for precision in [Precision::F32, Precision::Bf16] {
        let name = |what: &str| format!("{what}.{precision}");
        bench(&mut group, &name("forward"), [TOKENS * INNER], |[y]| {
            linear(&x, &w, None, None, TOKENS, WIDTH, INNER, precision, y);
        });
        bench(&mut group, &name("backward_input"), [TOKENS * WIDTH], |[dx]| {
            linear_backward_input(&dy, &w, TOKENS, WIDTH, INNER, precision, dx);
        });
        bench(&mut group, &name("backward_weight"), [INNER * WIDTH], |[dw]| {
            linear_backward_weight(&dy, &x, TOKENS, WIDTH, INNER, precision, dw);
        });
        let packed = PackedLinear::new(&w, INNER, WIDTH, precision);
        bench(&mut group, &name("packed"), [TOKENS * INNER], |[y]| packed.forward(&x, TOKENS, None, None, y));
    }
    group.finish();

    // A canvas: weights that are many to its few rows.
    let mut group = c.benchmark_group("few_rows");
    for (input, output) in [(512, 2048), (1536, 6144)] {
        let (x, w) = (random(64 * input), random(output * input));
        group.throughput(Throughput::Elements(2 * (64 * input * output) as u64));
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedLinear::new(&w, output, input, precision);
            let name = format!("packed.{input}x{output}.{precision}");
            bench(&mut group, &name, [64 * output], |[y]| packed.forward(&x, 64, None, None, y));
        }
    }
    group.finish();

    let mut group = c.benchmark_group("one_row");
    let (x, w) = (random(1024), random(4096 * 1024));
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = PackedLinear::new(&w, 4096, 1024, precision);
        group.throughput(Throughput::Bytes(packed.bytes() as u64));
        bench(&mut group, &format!("packed.{precision}"), [4096], |[y]| packed.forward(&x, 1, None, None, y));
    }
    group.finish();

    let mut group = c.benchmark_group("linear_cross_entropy");
    let (x, w) = (random(TOKENS * WIDTH), random(4096 * WIDTH));
    let targets: Vec<i64> = (0..TOKENS as i64).collect();
    let settings =
        LinearCrossEntropy { width: WIDTH, normalizer: TOKENS as f32, soft_cap: None, precision: Precision::F32 };
    group.throughput(Throughput::Elements(3 * 2 * (TOKENS * WIDTH * 4096) as u64));
    bench(&mut group, "with_gradients", [x.len(), w.len()], |[dx, dw]| {
        linear_cross_entropy(&settings, &x, &w, &targets, Some((dx, dw))).expect("classes");
    });
    group.finish();
}

fn attentions(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    let shape = AttentionShape::new(16, 256, 4, WIDTH / 4);
    let [q, k, v, dout] = std::array::from_fn(|_| random(shape.query_len()));
    for (name, mask) in [("full", Mask::full()), ("causal", Mask::causal()), ("window", Mask::causal().with_window(64))]
    {
        let options = AttentionOptions::from(mask);
        let lens = [q.len(), 16 * 256 * 4];
        bench(&mut group, &format!("{name}.forward"), lens, |[out, sums]| {
            attention(&q, &k, &v, shape, &options, out, Some(sums));
        });
        let [mut out, mut sums] = lens.map(|len| vec![0f32; len]);
        attention(&q, &k, &v, shape, &options, &mut out, Some(&mut sums));
        bench(&mut group, &format!("{name}.backward"), [q.len(); 3], |[dq, dk, dv]| {
            attention_backward(&q, &k, &v, &out, &sums, &dout, shape, &options, dq, dk, dv);
        });
    }
    let mut cache = KeyValueCache::new(4096, 16, 64);
    (0..4096).for_each(|position| cache.put(position, &random(1024), &random(1024)));
    for tokens in [1, 64] {
        let queries = random(tokens * 1024);
        let new = NewTokens { queries: &queries, heads: 16, past: 4096 - tokens };
        bench(&mut group, &format!("cached.{tokens}"), [queries.len()], |[out]| {
            attention_cached(new, &cache, &CachedOptions::default(), out);
        });
    }
    group.finish();
}

/// Rates are bytes read and written a second.
fn streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    let n = TOKENS * WIDTH;
    let (x, residual, dy, weight) = (random(n), random(n), random(n), random(WIDTH));
    let rate = |arrays: usize| Throughput::Bytes((arrays * n * size_of::<f32>()) as u64);
    group.throughput(rate(4));
    bench(&mut group, "add_layer_norm", [n, n], |[sum, y]| {
        add_layer_norm(&x, &residual, &weight, &weight, 1e-5, sum, y);
    });
    bench(&mut group, "add_rms_norm", [n, n], |[sum, y]| add_rms_norm(&x, &residual, &weight, 1e-5, sum, y));
    bench(&mut group, "add_layer_norm_backward", [n, WIDTH, WIDTH], |[dx, dgamma, dbeta]| {
        add_layer_norm_backward(&x, &weight, 1e-5, &residual, &dy, dx, dgamma, dbeta);
    });
    bench(&mut group, "add_rms_norm_backward", [n, WIDTH], |[dx, dweight]| {
        add_rms_norm_backward(&x, &weight, 1e-5, &residual, &dy, dx, dweight);
    });
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        group.throughput(rate(2));
        bench(&mut group, &format!("activate.{activation:?}"), [n], |[y]| activate(activation, &x, y));
        group.throughput(rate(3));
        bench(&mut group, &format!("activate_backward.{activation:?}"), [n], |[dx]| {
            activate_backward(activation, &x, &dy, dx);
        });
        bench(&mut group, &format!("gated.{activation:?}"), [n / 2], |[y]| gated(activation, &x, WIDTH, y));
        bench(&mut group, &format!("gated_backward.{activation:?}"), [n], |[dx]| {
            gated_backward(activation, &x, WIDTH, &dy[..n / 2], dx);
        });
    }
    let targets: Vec<i64> = (0..TOKENS as i64).map(|token| token % WIDTH as i64).collect();
    group.throughput(rate(2));
    bench(&mut group, "cross_entropy", [n], |[gradient]| {
        cross_entropy(&x, &targets, WIDTH, TOKENS as f32, Some(gradient)).expect("classes");
    });
    let (scales, zeros) = (vec![0.2; 128], vec![7.0; 128]);
    bench(&mut group, "fake_quantize", [n], |[y]| fake_quantize(&x, TOKENS, WIDTH, &scales, &zeros, 4, y));
    group.throughput(rate(3));
    bench(&mut group, "fake_quantize_backward", [n, 128], |[dw, dscales]| {
        fake_quantize_backward(&x, TOKENS, WIDTH, &scales, &zeros, 4, &dy, dw, dscales);
    });
    group.throughput(rate(7));
    bench(&mut group, "adamw", [n, n, n], |[param, m, v]| {
        let settings =
            AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step: 9, grad_scale: 1.0 };
        adamw_update(&settings, param, &dy, m, v);
    });
    group.throughput(rate(5));
    bench(&mut group, "sgd", [n, n], |[param, velocity]| {
        let settings = Sgd { lr: 1e-3, momentum: 0.9, nesterov: false, weight_decay: 1e-4, grad_scale: 1.0 };
        sgd_update(&settings, param, &dy, velocity);
    });
    group.finish();
}

/// A convolution of each stage of ResNet-20 at batch 128, and what follows it.
fn images(c: &mut Criterion) {
    for (side, channels) in [(32, 16), (16, 32), (8, 64)] {
        let shape = Conv2dShape {
            batch: 128,
            height: side,
            width: side,
            channels,
            output: channels,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
        };
        let (x, w, dy) = (random(shape.input_len()), random(shape.weight_len()), random(shape.output_len()));
        let mut group = c.benchmark_group(format!("conv2d_{side}x{side}x{channels}"));
        group.throughput(Throughput::Elements(2 * shape.products() as u64));
        bench(&mut group, "forward", [dy.len()], |[y]| conv2d(&x, &w, None, shape, y));
        bench(&mut group, "backward_input", [x.len()], |[dx]| conv2d_backward_input(&dy, &w, shape, dx));
        bench(&mut group, "backward_weight", [w.len()], |[dw]| conv2d_backward_weight(&dy, &x, shape, dw));
        group.throughput(Throughput::Bytes(size_of_val(&x[..]) as u64));
        bench(&mut group, "statistics", [channels; 2], |[mean, variance]| channel_statistics(&x, mean, variance));
        let ones = vec![1f32; channels];
        let norm = BatchNorm { mean: &ones, variance: &ones, gamma: &ones, beta: &ones, eps: 1e-5, relu: true };
        group.throughput(Throughput::Bytes(3 * size_of_val(&x[..]) as u64));
        bench(&mut group, "batch_norm", [x.len()], |[y]| batch_norm(&norm, &x, Some(&dy), y));
        bench(&mut group, "batch_norm_backward", [x.len(), x.len(), channels, channels], |[dx, dr, dgamma, dbeta]| {
            batch_norm_backward(&norm, Statistics::OfBatch, &x, &dy, &dy, dx, Some(dr), dgamma, dbeta);
        });
        group.finish();
    }
}

/// What a canvas of 64 places takes beside the products: its choices from a vocabulary of 8192, its turned queries.
fn canvases(c: &mut Criterion) {
    let (places, vocabulary) = (64, 8192);
    let logits = random(places * vocabulary);
    let uniform = vec![0.5; places];
    let mut group = c.benchmark_group("canvas");
    group.throughput(Throughput::Elements(logits.len() as u64));
    for (name, temperature) in [("choose_likeliest", 0.0), ("choose_drawn", 0.7)] {
        bench(&mut group, name, [1], |[entropy]| {
            let mut choices = vec![Choice { token: 0, log_probability: 0.0, entropy: 0.0 }; places];
            choose(&logits, vocabulary, temperature, &uniform, &mut choices);
            entropy[0] = choices[0].entropy;
        });
    }
    let tokens = vec![7; places];
    bench(&mut group, "log_probabilities", [places], |[out]| log_probabilities(&logits, vocabulary, &tokens, out));
    let turns = Turns::new(&Rotary::new(1e4, 64).frequencies, &Vec::from_iter(0..places as u32));
    group.throughput(Throughput::Bytes((places * 2 * WIDTH * size_of::<f32>()) as u64));
    bench(&mut group, "turns", [places * 3 * WIDTH], |[rows]| turns.apply(rows, 3 * WIDTH, 0..2 * WIDTH));
    group.finish();
}

criterion_group!(benches, products, attentions, streams, images, canvases);
criterion_main!(benches);
