//! The plain bodies in `f32`, which other devices compute, against the kernels: both on the CPU.

use std::sync::Arc;

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Dispatch, DispatchTensor, read_sync};
use burn::tensor::{Device, Tensor};
use lapidary_kernels::adamw::AdamW;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::linear_cross_entropy::LinearCrossEntropy as LinearCrossEntropySettings;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rotary::Rotary;
use lapidary_kernels::sgd::Sgd;
use lapidary_ops::Reduction;
use lapidary_ops::adamw::{self, AdamWStep};
use lapidary_ops::attention::{self, Attention};
use lapidary_ops::average_pool::{self, AveragePool};
use lapidary_ops::batch_norm::{self, BatchNorm};
use lapidary_ops::conv2d::{self, Conv2d};
use lapidary_ops::cross_entropy::{self, CrossEntropy};
use lapidary_ops::dropout::{self, Dropout, DropoutKey};
use lapidary_ops::embedding::{self, Embedding};
use lapidary_ops::fake_quantize::{self, FakeQuantize};
use lapidary_ops::fake_quantize_rows::{self, FakeQuantizeRows};
use lapidary_ops::gelu::{self, Gelu};
use lapidary_ops::layer_norm::{self, LayerNorm};
use lapidary_ops::linear::{self, Linear};
use lapidary_ops::linear_cross_entropy::{self, LinearCrossEntropy};
use lapidary_ops::sgd::{self, SgdStep};
use lapidary_ops::sum_of_squares::{self, SumOfSquares};

use super::{Input, TOLERANCE, tensors};
use crate::support::assert_close;

type D = Dispatch;

/// Standard normal matrices, each other ones.
fn matrices<const N: usize>(shapes: [[usize; 2]; N]) -> [DispatchTensor; N] {
    let inputs = std::array::from_fn(|i| Input::random(["a", "b", "c", "d"][i], shapes[i][0], shapes[i][1]));
    tensors(&inputs, &Device::flex()).map(Tensor::into_dispatch)
}

fn vectors<const N: usize>(length: usize) -> [DispatchTensor; N] {
    matrices([[1, length]; N]).map(|row| D::float_reshape(row, [length].into()))
}

fn vector(numbers: &[f32]) -> DispatchTensor {
    Tensor::<1>::from_data(numbers, &Device::flex()).into_dispatch()
}

/// How an absent tensor crosses the dispatch.
fn absent<const R: usize>() -> DispatchTensor {
    Tensor::<R>::zeros([0; R], &Device::flex()).into_dispatch()
}

#[track_caller]
fn same<const N: usize>(kernel: impl Into<[DispatchTensor; N]>, plain: [DispatchTensor; N]) {
    for (i, (kernel, plain)) in kernel.into().into_iter().zip(plain).enumerate() {
        let [kernel, plain] = [kernel, plain].map(|x| read_sync(D::float_into_data(x)).expect("on the CPU"));
        assert_eq!(kernel.shape(), plain.shape(), "shape {i}");
        let [kernel, plain] = [kernel, plain].map(|x| x.iter().collect::<Vec<f64>>());
        assert_close(&plain, &kernel, TOLERANCE, &format!("output {i}"));
    }
}

#[test]
fn of_linear() {
    let ([x, w, dy, residual], [bias]) = (matrices([[7, 19], [5, 19], [7, 5], [7, 5]]), vectors(5));
    const F32: Precision = Precision::F32;
    for (bias, residual) in [(bias, residual), (absent::<1>(), absent::<2>())] {
        let inputs = || (x.clone(), w.clone(), bias.clone(), residual.clone());
        let ((x, w, bias, residual), (px, pw, pbias, presidual)) = (inputs(), inputs());
        let plain = linear::plain::<D>(px, pw, pbias, presidual);
        same([<D as Linear>::forward(x, w, bias, residual, F32)], [plain]);
    }
    let plain = linear::plain_gradient_input::<D>(dy.clone(), w.clone());
    same([<D as Linear>::gradient_input(dy.clone(), w, F32)], [plain]);
    let plain = linear::plain_gradient_weight::<D>(dy.clone(), x.clone());
    same([<D as Linear>::gradient_weight(dy.clone(), x, F32)], [plain]);
    same([<D as Linear>::gradient_bias(dy.clone())], [linear::plain_gradient_bias::<D>(dy)]);
}

#[test]
fn of_linear_cross_entropy() {
    let [x, w] = matrices([[5, 19], [11, 19]]);
    let targets: Arc<[i64]> = [3, IGNORED, 0, 10, 3].into();
    for soft_cap in [None, Some(1.5)] {
        let settings = LinearCrossEntropySettings { width: 19, normalizer: 2.5, soft_cap, precision: Precision::F32 };
        let plain = linear_cross_entropy::plain::<D>(x.clone(), w.clone(), &targets, settings);
        same(<D as LinearCrossEntropy>::forward(x.clone(), w.clone(), targets.clone(), settings, None), plain);
    }
}

#[test]
fn of_sgd() {
    let [parameter, gradient, velocity] = matrices([[7, 19]; 3]);
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let settings = Sgd { lr: 0.1, momentum, nesterov, weight_decay: 0.01, grad_scale: 0.5 };
        let inputs = || [parameter.clone(), gradient.clone(), velocity.clone()];
        let ([p, g, v], [plain, plain_velocity]) = (inputs(), sgd::plain::<D>(inputs(), settings));
        let (p, v) = <D as SgdStep>::step(p, g, v, settings);
        same([p], [plain]);
        if momentum != 0.0 {
            same([v], [plain_velocity]);
        }
    }
}

#[test]
fn of_conv2d() {
    for (kernel, stride, padding) in [([3, 3], [1, 1], [1, 1]), ([3, 2], [2, 1], [1, 0]), ([1, 1], [2, 2], [0, 0])] {
        let shape = Conv2dShape { batch: 2, height: 7, width: 6, channels: 5, output: 4, kernel, stride, padding };
        let [height, width] = shape.output_size();
        let [x, w, dy] = matrices([[2 * 7 * 6, 5], [4, kernel[0] * kernel[1] * 5], [2 * height * width, 4]]);
        let w = D::float_reshape(w, [4, kernel[0], kernel[1], 5].into());
        let plain = conv2d::plain::<D>(x.clone(), w.clone(), shape);
        same([<D as Conv2d>::forward(x.clone(), w.clone(), shape)], [plain]);
        let plain = conv2d::plain_gradient_input::<D>(dy.clone(), w.clone(), shape);
        same([<D as Conv2d>::gradient_input(dy.clone(), w, shape)], [plain]);
        let plain = conv2d::plain_gradient_weight::<D>(dy.clone(), x.clone(), shape);
        same([<D as Conv2d>::gradient_weight(dy, x, shape)], [plain]);
    }
}

#[test]
fn of_batch_norm() {
    let ([x, residual, dy], [weight, bias, mean, deviation]) = (matrices([[21, 6]; 3]), vectors(6));
    let variance = D::float_mul(deviation.clone(), deviation);
    for relu in [false, true] {
        for residual in [residual.clone(), absent::<2>()] {
            // One of two parts of a batch: the other one is half of it again, so that not all is as it would be alone.
            let sum = Reduction::new(|numbers| numbers.iter_mut().for_each(|x| *x *= 1.5));
            let parts = batch_norm::All { rows: 31.5, sum };
            let given = (mean.clone(), variance.clone(), None);
            for (mean, variance, all) in
                [given, (absent::<1>(), absent::<1>(), None), (absent::<1>(), absent::<1>(), Some(parts))]
            {
                let settings = || batch_norm::Settings { relu, eps: 1e-5, all: all.clone() };
                let [x, w, b, r, m, v] = [&x, &weight, &bias, &residual, &mean, &variance].map(Clone::clone);
                let plain = batch_norm::plain::<D>([&x, &w, &b, &r, &m, &v].map(Clone::clone), settings());
                let constant = Tensor::<1>::from_dispatch(m.clone()).shape().num_elements() > 0;
                let forward = <D as BatchNorm>::forward(x.clone(), w.clone(), b.clone(), r.clone(), m, v, settings());
                let (y, m, v) = forward;
                same([y.clone(), m.clone(), v.clone()], plain);
                let inputs = [&x, &w, &b, &r, &m, &v].map(Clone::clone);
                let plain = batch_norm::plain_gradient::<D>(inputs, y.clone(), dy.clone(), constant, settings());
                same(<D as BatchNorm>::gradient(x, w, b, r, m, v, y, dy.clone(), constant, settings()), plain);
            }
        }
    }
}

#[test]
fn of_average_pool() {
    let [x, dy] = matrices([[12, 5], [3, 5]]);
    same([<D as AveragePool>::forward(x.clone(), 3)], [average_pool::plain::<D>(x, 3)]);
    same([<D as AveragePool>::gradient(dy.clone(), 4)], [average_pool::plain_gradient::<D>(dy, 4)]);
}

#[test]
fn of_gelu() {
    let [x, dy] = matrices([[5, 37]; 2]);
    same([<D as Gelu>::forward(x.clone())], [gelu::plain::<D>(x.clone())]);
    same([<D as Gelu>::gradient(x.clone(), dy.clone())], [gelu::plain_gradient::<D>(x, dy)]);
}

#[test]
fn of_layer_norm() {
    let ([x, residual, dy], [gamma, beta]) = (matrices([[7, 19]; 3]), vectors(19));
    for residual in [residual, absent::<2>()] {
        let inputs = |last: &DispatchTensor| [x.clone(), residual.clone(), gamma.clone(), last.clone()];
        let [x, r, g, b] = inputs(&beta);
        same([<D as LayerNorm>::forward(x, r, g, b, 1e-5)], [layer_norm::plain::<D>(inputs(&beta), 1e-5)]);
        let [x, r, g, d] = inputs(&dy);
        same(<D as LayerNorm>::gradient(x, r, g, d, 1e-5), layer_norm::plain_gradient::<D>(inputs(&dy), 1e-5));
    }
}

#[test]
fn of_attention() {
    let shape = AttentionShape::new(3, 9, 2, 5);
    let inputs = matrices([[27, 10]; 4]);
    let plain_options = [Mask::full(), Mask::causal().with_lengths([9, 4, 0]), Mask::prefix([2, 9, 0]).with_window(4)];
    check_attention(shape, inputs, plain_options.map(Into::into));

    // Three heads share keys and values; an even width can be turned.
    let shape = AttentionShape { rows: 2, length: 7, heads: 6, kv_heads: 2, head_width: 4 };
    let [q, dout] = matrices([[14, 24]; 2]);
    let [k, v] = matrices([[14, 8]; 2]);
    let turned = AttentionOptions {
        mask: Mask::causal().with_window(5),
        rotary: Some(Rotary::new(100.0, 4).with_offsets([3, 0])),
        scale: Some(0.3),
        soft_cap: Some(2.0),
    };
    check_attention(shape, [q, k, v, dout], [turned]);
}

fn check_attention<const N: usize>(shape: AttentionShape, inputs: [DispatchTensor; 4], options: [AttentionOptions; N]) {
    for options in options {
        let [q, k, v, dout] = inputs.clone();
        let plain = attention::plain::<D>([q.clone(), k.clone(), v.clone()], shape, &options);
        let (out, sums) = <D as Attention>::forward(q.clone(), k.clone(), v.clone(), shape, options.clone());
        same([out.clone()], [plain]);
        let plain = attention::plain_gradient::<D>(inputs.clone(), shape, &options);
        same(<D as Attention>::gradient(q, k, v, out, sums, dout, shape, options), plain);
    }
}

#[test]
fn of_cross_entropy() {
    let [logits] = matrices([[5, 11]]);
    let targets: Arc<[i64]> = [3, IGNORED, 0, 10, 3].into();
    let plain = cross_entropy::plain::<D>(logits.clone(), &targets, 2.5);
    same(<D as CrossEntropy>::forward(logits, targets, 2.5), plain);
}

#[test]
fn of_dropout() {
    let ([x], key) = (matrices([[9, 41]]), DropoutKey { seed: 1, step: 2, place: 3 });
    same([<D as Dropout>::forward(x.clone(), 0.3, key)], [dropout::plain::<D>(x, 0.3, key)]);
}

#[test]
fn of_embedding() {
    let ([table, dy], ids) = (matrices([[7, 13], [5, 13]]), Arc::new([6, 0, 3, 3, 6]));
    same([<D as Embedding>::forward(table.clone(), ids.clone())], [embedding::plain::<D>(table, &*ids)]);
    let plain = embedding::plain_gradient::<D>(dy.clone(), &*ids, 7);
    same([<D as Embedding>::gradient(dy, ids, 7)], [plain]);
}

#[test]
fn of_fake_quantize() {
    let [w, dy] = matrices([[7, 13]; 2]);
    let (scales, zeros) = (vector(&[0.3, 0.5, 0.7]), vector(&[8.0, 0.0, 5.0]));
    let inputs = || [w.clone(), scales.clone(), zeros.clone()];
    let [a, b, c] = inputs();
    same([<D as FakeQuantize>::forward(a, b, c, 4)], [fake_quantize::plain::<D>(inputs(), 4)]);
    let ([a, b, c], [pa, pb, pc]) = (inputs(), inputs());
    let plain = fake_quantize::plain_gradient::<D>([pa, pb, pc, dy.clone()], 4);
    same(<D as FakeQuantize>::gradient(a, b, c, dy, 4), plain);
}

#[test]
fn of_fake_quantize_rows() {
    let [x] = matrices([[7, 13]]);
    // One row of zeros, one above zero.
    let factors = Tensor::<1>::from_data([1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0], &Device::flex()).reshape([7, 1]);
    let x = Tensor::<2>::from_dispatch(x) * factors;
    let x = x.clone().slice_assign([2..3, 0..13], x.slice([2..3, 0..13]).abs().add_scalar(1.0)).into_dispatch();
    same([<D as FakeQuantizeRows>::forward(x.clone(), 4)], [fake_quantize_rows::plain::<D>(x, 4)]);
}

#[test]
fn of_adamw() {
    let [p, g, m, v] = matrices([[7, 13]; 4]);
    let inputs = [p, g, m, D::float_abs(v)];
    let (lr, beta1, beta2, eps, weight_decay) = (1e-2, 0.9, 0.999, 1e-8, 0.01);
    let settings = AdamW { lr, beta1, beta2, eps, weight_decay, step: 3, grad_scale: 0.5 };
    let plain = adamw::plain::<D>(inputs.clone(), settings);
    let [p, g, m, v] = inputs;
    same(<D as AdamWStep>::step(p, g, m, v, settings), plain);
}

#[test]
fn of_sum_of_squares() {
    let [x] = matrices([[7, 13]]);
    let (kernel, plain) = (<D as SumOfSquares>::sum(x.clone()), sum_of_squares::plain::<D>(x));
    assert!((plain - kernel).abs() < TOLERANCE * kernel, "{plain} {kernel}");
}
