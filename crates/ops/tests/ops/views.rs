//! Tensors that do not lie in memory as their rows say: transposed, a part of a larger one, reversed.

use burn::tensor::{Device, Tensor};
use lapidary_kernels::activation::Activation;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_kernels::mask::Mask;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rotary::Rotary;
use lapidary_ops::*;

use super::{Input, tensors, values};

/// Three views of 6 rows and 4 columns.
fn views() -> [Tensor<2>; 3] {
    let inputs = [Input::random("transposed", 4, 6), Input::random("part", 9, 7), Input::random("reversed", 6, 4)];
    let [transposed, part, reversed] = tensors(&inputs, &Device::flex());
    [transposed.transpose(), part.slice([2..8, 1..5]), reversed.flip([0, 1])]
}

/// The same elements, row after row.
fn compact<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(x.to_data(), &x.device())
}

/// A row of a matrix, last element first.
fn reversed_row(x: &Tensor<2>) -> Tensor<1> {
    let [_, columns] = x.dims();
    x.clone().slice([0..1, 0..columns]).reshape([columns]).flip([0])
}

/// An operator of a matrix, of an even number of rows and columns and at least 6 and 4, and of a vector as long as its
/// rows.
pub type Operator = fn(Tensor<2>, Tensor<1>) -> Tensor<2>;

pub const OPERATORS: [(&str, Operator); 17] = [
    ("linear", |x, row| linear(x.clone(), x.slice(0..4), Some(row.slice(0..4)), None, Precision::F32)),
    ("layer_norm", |x, row| layer_norm(x.clone(), Some(x), row.clone(), row, 1e-5)),
    ("rms_norm", |x, row| rms_norm(x.clone(), Some(x), row, 1e-5)),
    ("gelu", |x, _| gelu(x)),
    ("gated", |x, _| gated(x, Activation::Silu)),
    ("attention", |x, _| {
        let [rows, columns] = x.dims();
        let shape = AttentionShape::new(2, rows / 2, 2, columns / 2);
        attention(x.clone(), x.clone(), x, shape, &Mask::causal().into())
    }),
    ("attention with padding", |x, _| {
        let [rows, columns] = x.dims();
        let shape = AttentionShape::new(2, rows / 2, 1, columns);
        let mask = Mask::prefix([2, 1]).with_lengths([rows / 2 - 1, 0]);
        attention(x.clone(), x.clone(), x, shape, &mask.into())
    }),
    ("attention with a window and turned", |x, _| {
        let [rows, columns] = x.dims();
        let shape = AttentionShape::new(2, rows / 2, 1, columns);
        let options = AttentionOptions {
            mask: Mask::causal().with_window(2),
            rotary: Some(Rotary::new(100.0, columns)),
            soft_cap: Some(3.0),
            ..AttentionOptions::default()
        };
        attention(x.clone(), x.clone(), x, shape, &options)
    }),
    ("conv2d", |x, _| {
        let [rows, columns] = x.dims();
        let weight = x.clone().slice([0..6, 0..columns]).reshape([3, 1, 2, columns]);
        let [kernel, stride, padding] = [[1, 2], [1, 2], [0, 1]];
        let shape =
            Conv2dShape { batch: 2, height: 1, width: rows / 2, channels: columns, output: 3, kernel, stride, padding };
        conv2d(x, weight, shape)
    }),
    ("batch_norm", |x, row| {
        let input =
            BatchNormInput { residual: Some(x.clone()), weight: row.clone(), bias: row, x, relu: true, eps: 1e-3 };
        batch_norm(input, None).0
    }),
    ("average_pool", |x, _| average_pool(x, 2)),
    ("linear_cross_entropy", |x, _| {
        let [rows, columns] = x.dims();
        let targets: Vec<i64> = (0..rows).map(|i| if i == 4 { -100 } else { (i % 4) as i64 }).collect();
        let weight = x.clone().slice([0..4, 0..columns]);
        linear_cross_entropy(x, weight, &targets, 5.0, Precision::F32).expect("they fit").reshape([1, 1])
    }),
    ("cross_entropy", |x, _| {
        let [rows, columns] = x.dims();
        let targets: Vec<i64> = (0..rows).map(|i| if i == 4 { -100 } else { (i % columns) as i64 }).collect();
        cross_entropy(x, &targets, 5.0).expect("they fit").reshape([1, 1])
    }),
    ("embedding", |x, _| embedding(x, &[5, 0, 3, 3])),
    ("dropout", |x, _| dropout(x, 0.5, DropoutKey { seed: 1, step: 2, place: 3 })),
    ("fake_quantize", |x, row| {
        let (scales, zeros) = (row.clone().abs().add_scalar(0.1).flip([0]), row.ones_like().flip([0]));
        fake_quantize(x, scales, zeros, 3)
    }),
    ("fake_quantize_rows", |x, _| fake_quantize_rows(x, 3)),
];

#[test]
fn give_what_their_elements_give() {
    for view in views() {
        let row = reversed_row(&view);
        for (name, operator) in OPERATORS {
            let actual = values(operator(view.clone(), row.clone()));
            assert_eq!(actual, values(operator(compact(&view), compact(&row))), "{name}");
        }
    }
}

#[test]
fn get_the_gradients_that_their_elements_get() {
    for view in views() {
        for (name, operator) in OPERATORS {
            let gradient = |x: Tensor<2>| {
                let row = compact(&reversed_row(&x)).autodiff();
                let x = x.autodiff().require_grad();
                let gradients = operator(x.clone(), row).sum().backward();
                values(x.grad(&gradients).expect("has a part in the output"))
            };
            assert_eq!(gradient(view.clone()), gradient(compact(&view)), "{name}");
        }
    }
}
