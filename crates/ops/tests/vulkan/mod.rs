//! Operators on the GPU, which are their plain bodies, against the kernels of the CPU.

use std::io::{self, Write};
use std::sync::LazyLock;

use burn::tensor::{Device, DeviceType, Tensor};
use lapidary_kernels::adamw::AdamW;
use lapidary_kernels::precision::Precision;
use lapidary_ops::{AdamWState, adamw, layer_norm, linear, sum_of_squares};

use crate::ops::views::OPERATORS;
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

#[test]
fn every_operator() {
    let Some(adapter) = &*ADAPTER else { return };
    for (rows, columns) in [(6, 4), (30, 22), (130, 66)] {
        let inputs = || [Input::random("x", rows, columns), Input::random("row", 1, columns)];
        for (name, operator) in OPERATORS {
            // The sum makes the row a part of the output of those that do not use it.
            assert_same_on(adapter, name, inputs(), |[x, row]| {
                operator(x, vector(row.clone())) + row.sum().reshape([1, 1])
            });
        }
        assert_same_on(adapter, "linear without bias", inputs(), |[x, w]| linear(x, w, None, None, Precision::F32));
        assert_same_on(adapter, "layer norm without residual", inputs(), |[x, row]| {
            layer_norm(x, None, vector(row.clone()), vector(row), 1e-5)
        });
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
        let state = AdamWState { first: gradient.clone(), second: gradient.clone().square() };
        let (parameter, AdamWState { first, second }) = adamw(parameter, gradient, state, settings);
        [vec![squares], values(parameter), values(first), values(second)]
    });
    let [actual, expected] = results;
    for (what, (actual, expected)) in
        ["sum of squares", "parameter", "first", "second"].iter().zip(actual.iter().zip(&expected))
    {
        assert_close(actual, expected, TOLERANCE, what);
    }
}
