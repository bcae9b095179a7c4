//! Each Burn operator with its gradients as Burn's autodiff collects them: against what PyTorch computed (see
//! `oracles/operators.py`), and on random shapes against a twin made of Burn's own operations.

mod adamw;
mod attention;
mod cross_entropy;
mod dropout;
mod embedding;
mod fake_quantize;
mod gelu;
mod golden;
mod layer_norm;
mod linear;
mod views;

use burn::tensor::{Device, Tensor, TensorData};

use crate::support::{assert_close, random};

/// Of an element's larger of 1 and its magnitude.
const TOLERANCE: f64 = 1e-5;

/// What an operator is differentiated by. All inputs are matrices here, a vector is one row: see [`vector`].
struct Input {
    name: &'static str,
    shape: [usize; 2],
    data: Vec<f32>,
}

impl Input {
    /// Standard normal numbers, others for every name.
    fn random(name: &'static str, rows: usize, columns: usize) -> Self {
        let seed = name.bytes().map(u64::from).sum();
        Self { name, shape: [rows, columns], data: random(rows * columns, seed) }
    }
}

fn tensors<const N: usize>(inputs: &[Input; N], device: &Device) -> [Tensor<2>; N] {
    inputs.each_ref().map(|input| Tensor::from_data(TensorData::new(input.data.clone(), input.shape), device))
}

/// The only row of a matrix.
fn vector(row: Tensor<2>) -> Tensor<1> {
    let [_, columns] = row.dims();
    row.reshape([columns])
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// An operator's output, and the gradient of `Σ dy · output` by each of its inputs.
struct Differentiated<const N: usize> {
    output: Vec<f32>,
    gradients: [Vec<f32>; N],
}

fn differentiate<const N: usize>(
    inputs: &[Input; N],
    dy: &[f32],
    operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Differentiated<N> {
    let leaves = tensors(inputs, &Device::flex().autodiff()).map(|leaf| leaf.require_grad());
    let output = operator(leaves.clone());
    let dy = Tensor::from_data(TensorData::new(dy.to_vec(), output.dims()), &output.device());
    let gradients = (output.clone() * dy).sum().backward();
    let of = |leaf: &Tensor<2>| values(leaf.grad(&gradients).expect("every input has a part in the output"));
    Differentiated { output: values(output), gradients: leaves.each_ref().map(of) }
}

/// An operator and its twin agree in value and in every gradient, and the operator gives the same without a graph.
#[track_caller]
fn assert_same<const N: usize>(
    inputs: [Input; N],
    tolerance: f64,
    operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    twin: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    let without_graph = values(operator(tensors(&inputs, &Device::flex())));
    let dy = random(without_graph.len(), 1);
    let actual = differentiate(&inputs, &dy, operator);
    let expected = differentiate(&inputs, &dy, twin);
    assert_eq!(actual.output, without_graph, "a graph changes no value");
    assert_close(&actual.output, &expected.output, tolerance, "the output");
    for (input, (actual, expected)) in inputs.iter().zip(actual.gradients.iter().zip(&expected.gradients)) {
        assert_close(actual, expected, tolerance, &format!("the gradient of {}", input.name));
    }
}
