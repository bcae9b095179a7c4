//! Operators on the GPU, which are their plain bodies, against the kernels of the CPU.

use std::io::{self, Write};
use std::sync::LazyLock;

use burn::tensor::{Device, DeviceType, Tensor};
use lapidary_kernels::activation::Activation;
use lapidary_kernels::adamw::AdamW;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rotary::Rotary;
use lapidary_kernels::sgd::Sgd;
use lapidary_ops::*;

use crate::ops::views::{OPERATORS, Operator};
use crate::ops::{Input, differentiate, tensors, values, vector};
use crate::support::{assert_close, random};

/// Both sides round, each in its own order.
const TOLERANCE: f64 = 2e-5;

/// The first adapter there is, or a word to whoever waits for a comparison: past the capture of what tests print.
static ADAPTER: LazyLock<Option<Device>> = LazyLock::new(|| {
    let adapter = Device::enumerate(DeviceType::Vulkan).into_vec().into_iter().next();
    let _ = match &adapter {
        Some(device) => writeln!(io::stderr(), "compared on {device:?}"),
        None => writeln!(io::stderr(), "no Vulkan adapter: not compared"),
    };
    adapter
});

/// An operator gives the same value and gradients on both devices.
#[track_caller]
fn assert_same_on<const N: usize>(
    adapter: &Device,
    name: &str,
    inputs: [Input; N],
    operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let dy = random(values(operator(tensors(&inputs, &Device::flex()))).len(), 1);
    let [actual, expected] =
        [adapter, &Device::flex()].map(|device| differentiate(tensors(&inputs, device), &dy, &operator));
    assert_close(&actual.output, &expected.output, TOLERANCE, name);
    for (actual, expected) in actual.gradients.iter().zip(&expected.gradients) {
        assert_close(actual, expected, TOLERANCE, &format!("a gradient of {name}"));
    }
}

/// What the operators can be told beside what the table tells them.
const VARIANTS: [(&str, Operator); 13] = [
    ("linear without bias", |x, _| linear(x.clone(), x.slice(0..4), None, None, Precision::F32)),
    ("linear with residual", |x, row| {
        let [_, columns] = x.dims();
        linear(
            x.clone(),
            x.clone().slice(0..4).repeat_dim(0, columns / 2).slice(0..columns),
            Some(row),
            Some(x),
            Precision::F32,
        )
    }),
    ("layer norm without residual", |x, row| layer_norm(x, None, row.clone(), row, 1e-5)),
    ("rms norm without residual", |x, row| rms_norm(x, None, row, 1e-5)),
    ("gated by gelu", |x, _| gated(x, Activation::Gelu)),
    ("gated by gelu's approximation", |x, _| gated(x, Activation::GeluTanh)),
    ("gated by relu", |x, _| gated(x, Activation::Relu)),
    ("attention with heads that share keys", |x, _| {
        let [rows, columns] = x.dims();
        let shape = AttentionShape { rows: 2, length: rows / 2, heads: columns / 2, kv_heads: 1, head_width: 2 };
        let options = AttentionOptions {
            mask: Mask::full().with_lengths([rows / 2, 1]),
            rotary: Some(Rotary::new(10.0, 2).with_offsets([1, 0])),
            scale: Some(0.3),
            ..AttentionOptions::default()
        };
        attention(x.clone(), x.clone().slice([0..rows, 0..2]), x.slice([0..rows, 1..3]), shape, &options)
    }),
    ("convolution of 3 x 3", |x, _| {
        let [rows, columns] = x.dims();
        let (kernel, stride, padding) = ([3, 3], [1, 1], [1, 1]);
        let shape =
            Conv2dShape { batch: 1, height: 2, width: rows / 2, channels: columns, output: 2, kernel, stride, padding };
        let weight = x.clone().slice(0..6).repeat_dim(0, 3).reshape([2, 3, 3, columns]);
        conv2d(x, weight, shape)
    }),
    ("batch norm alone", |x, row| {
        batch_norm(BatchNormInput { x, weight: row.clone(), bias: row, residual: None, relu: false, eps: 1e-3 }).0
    }),
    ("batch norm of given statistics", |x, row| {
        let fixed = |x: Tensor<1>| if x.is_autodiff() { x.inner() } else { x };
        let (mean, variance) = (fixed(row.clone()), fixed(row.clone().square() + 0.5));
        let input = BatchNormInput { x, weight: row.clone(), bias: row, residual: None, relu: true, eps: 1e-3 };
        batch_norm_fixed(input, mean, variance)
    }),
    ("codes of 8 bits", |x, row| {
        let (scales, zeros) = (row.clone().abs() * 0.01 + 0.01, row.ones_like() * 100.0);
        fake_quantize(x, scales.slice(0..3), zeros.slice(0..3), 8)
    }),
    ("a row of codes of 8 bits", |x, _| fake_quantize_rows(x, 8)),
];

#[test]
fn every_operator() {
    let Some(adapter) = &*ADAPTER else { return };
    for (rows, columns) in [(6, 4), (130, 66)] {
        let inputs = || [Input::random("x", rows, columns), Input::random("row", 1, columns)];
        for (name, operator) in OPERATORS.into_iter().chain(VARIANTS) {
            // The sum makes the row a part of the output of those that do not use it.
            assert_same_on(adapter, name, inputs(), |[x, row]| operator(x, vector(row.clone())) + row.sum_dim(1));
        }
    }
}

#[test]
fn whole_tensors() {
    let Some(adapter) = &*ADAPTER else { return };
    let inputs = [Input::random("parameter", 71, 53), Input::random("gradient", 71, 53)];
    let results = [adapter, &Device::flex()].map(|device| {
        let [parameter, gradient] = tensors(&inputs, device);
        let (lr, beta1, beta2, eps, weight_decay) = (1e-2, 0.9, 0.999, 1e-8, 0.01);
        let settings = AdamW { lr, beta1, beta2, eps, weight_decay, step: 3, grad_scale: 0.5 };
        let squares = sum_of_squares(&gradient);
        let velocity = Some(gradient.clone().square());
        let settings_of_sgd = Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01, grad_scale: 0.5 };
        let (descended, velocity) = sgd(parameter.clone(), gradient.clone(), velocity, settings_of_sgd);
        let row = vector(parameter.clone().slice(0..1));
        let (_, mean, variance) = batch_norm(BatchNormInput {
            x: gradient.clone(),
            weight: row.clone(),
            bias: row,
            residual: None,
            relu: false,
            eps: 1e-3,
        });
        let state = AdamWState { first: gradient.clone(), second: gradient.clone().square() };
        let (parameter, AdamWState { first, second }) = adamw(parameter, gradient, state, settings);
        [
            ("sum of squares", vec![squares]),
            ("parameter", values(parameter)),
            ("first moment", values(first)),
            ("second moment", values(second)),
            ("parameter of gradient descent", values(descended)),
            ("velocity", values(velocity)),
            ("mean", values(mean)),
            ("variance", values(variance)),
        ]
    });
    let [actual, expected] = results;
    for ((what, actual), (_, expected)) in actual.iter().zip(&expected) {
        assert_close(actual, expected, TOLERANCE, what);
    }
}
