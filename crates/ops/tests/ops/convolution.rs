//! The operators of convolutional networks, and gradient descent, against PyTorch.

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_kernels::sgd::Sgd;
use lapidary_ops::{BatchNormInput, average_pool, batch_norm, batch_norm_fixed, conv2d, sgd};

use super::golden::Case;
use super::{constant, values, vector};

#[test]
fn conv2d_agrees() {
    for case in [
        "conv2d.3x3",
        "conv2d.3x3_odd",
        "conv2d.3x3_stride2",
        "conv2d.3x3_stride2_odd",
        "conv2d.1x1",
        "conv2d.1x1_odd",
        "conv2d.1x1_stride2",
        "conv2d.1x1_stride2_odd",
        "conv2d.5x5",
        "conv2d.5x5_odd",
        "conv2d.5x5_valid",
    ]
    .map(Case)
    {
        let [batch, height, width, channels] = case.shape("x")[..] else { panic!("pictures") };
        let [output, rows, columns, _] = case.shape("w")[..] else { panic!("weights") };
        let (stride, padding) = (case.number("stride") as usize, case.number("padding") as usize);
        let shape = Conv2dShape {
            batch,
            height,
            width,
            channels,
            output,
            kernel: [rows, columns],
            stride: [stride; 2],
            padding: [padding; 2],
        };
        case.check(["x", "w"], "y", |[x, w]| conv2d(x, w.reshape([output, rows, columns, channels]), shape));
    }
}

#[test]
fn batch_norm_agrees() {
    for (name, relu) in [
        ("batch_norm.train", false),
        ("batch_norm.train_odd", false),
        ("batch_norm.shifted", false),
        ("batch_norm.eval", false),
        ("batch_norm.eval_odd", false),
        ("batch_norm_relu.train", true),
        ("batch_norm_relu.train_odd", true),
        ("batch_norm_relu.eval", true),
    ] {
        let case = Case(name);
        case.check(["x", "gamma", "beta"], "y", |[x, gamma, beta]| norm(&case, x, gamma, beta, None, relu));
    }
    for case in
        ["batch_norm_residual_relu.train", "batch_norm_residual_relu.train_odd", "batch_norm_residual_relu.eval"]
            .map(Case)
    {
        case.check(["x", "gamma", "beta"], "y", |[x, gamma, beta]| {
            let residual = case.input("residual");
            let residual = constant(&residual.data, residual.shape, &x);
            let residual = if x.is_autodiff() { Tensor::from_inner(residual.inner()) } else { residual };
            norm(&case, x, gamma, beta, Some(residual), true)
        });
    }
}

fn norm(
    case: &Case,
    x: Tensor<2>,
    gamma: Tensor<2>,
    beta: Tensor<2>,
    residual: Option<Tensor<2>>,
    relu: bool,
) -> Tensor<2> {
    let numbers = |name: &str| case.numbers(name).into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let plain = if x.is_autodiff() { x.clone().inner() } else { x.clone() };
    let eps = case.number("eps") as f32;
    let input = BatchNormInput { x, weight: vector(gamma), bias: vector(beta), residual, relu, eps };
    let Some(new_mean) = case.find("new_running_mean") else {
        let [mean, variance] = ["running_mean", "running_var"].map(|name| {
            let numbers = numbers(name);
            constant(&numbers, [numbers.len()], &plain)
        });
        return batch_norm_fixed(input, mean, variance);
    };
    let momentum = case.number("momentum");
    let (y, mean, variance) = batch_norm(input, None);
    for (batch, running, new) in
        [(mean, "running_mean", new_mean), (variance, "running_var", case.numbers("new_running_var"))]
    {
        let before = case.numbers(running);
        for ((batch, before), new) in values(batch).into_iter().zip(before).zip(new) {
            let after = before + momentum * (batch - before);
            assert!((after - new).abs() < 1e-5 * new.abs().max(1.0), "{running}: {after}, not {new}");
        }
    }
    y
}

#[test]
fn average_pool_agrees() {
    for case in ["average_pool.plain", "average_pool.odd"].map(Case) {
        let batch = case.shape("x")[0];
        case.check(["x"], "y", |[x]| average_pool(x, batch));
    }
}

#[test]
fn sgd_agrees() {
    for case in ["sgd.plain", "sgd.weight_decay", "sgd.momentum", "sgd.nesterov", "sgd.nesterov_weight_decay"].map(Case)
    {
        let numbers = |name: &str| case.numbers(name).into_iter().map(|x| x as f32).collect::<Vec<_>>();
        let n = case.shape("initial")[0];
        let tensor = |data: &[f32]| Tensor::<1>::from_data(TensorData::new(data.to_vec(), [n]), &Device::flex());
        let (gradients, expected) = (numbers("gradients"), case.numbers("values"));
        let (mut value, mut velocity) = (tensor(&numbers("initial")), None);
        for (step, lr) in case.numbers("lr").into_iter().enumerate() {
            let settings = Sgd {
                lr,
                momentum: case.number("momentum"),
                nesterov: case.number("nesterov") != 0.0,
                weight_decay: case.number("weight_decay"),
                grad_scale: 1.0,
            };
            let (next, moved) = sgd(value, tensor(&gradients[step * n..][..n]), velocity, settings);
            for (actual, expected) in values(next.clone()).into_iter().zip(&expected[step * n..]) {
                assert!((actual - expected).abs() < 1e-5, "{}: {actual}, not {expected} at step {step}", case.0);
            }
            (value, velocity) = (next, Some(moved));
        }
    }
}
