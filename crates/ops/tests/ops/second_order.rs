//! The gradient of a gradient: at the level of backends an operator may be tracked twice, and then it is exact.

use burn::backend::autodiff::Autodiff;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::{AutodiffBackend, Flex};
use burn::tensor::TensorData;
use lapidary_ops::gelu::Gelu;

use crate::support::{assert_close, random};

type Once = Autodiff<Flex>;
type Twice = Autodiff<Once>;

#[test]
fn of_gelu() {
    let data = random(50, 1);
    let x = FlexTensor::from_data(TensorData::new(data.clone(), [5, 10]));
    let x = Once::float_set_require_grad(Once::from_inner(x), true);
    let twice = Twice::float_set_require_grad(Twice::from_inner(x.clone()), true);

    let gradients = Twice::backward(Twice::float_sum(<Twice as Gelu>::forward(twice.clone())));
    let first = Twice::grad(&twice, &gradients).expect("a part of the output");
    let gradients = Once::backward(Once::float_sum(first));
    let second = Once::grad(&x, &gradients).expect("a part of the gradient").into_data();

    // (x Φ)'' = (2 − x²) φ
    let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let expected: Vec<f64> = data.iter().map(|&x| f64::from(x)).map(|x| (2.0 - x * x) * density(x)).collect();
    assert_close(&second.iter().collect::<Vec<f64>>(), &expected, 1e-6, "the second derivative");
}
