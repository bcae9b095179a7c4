//! Each Burn operator with its gradients as Burn's autodiff collects them: against what PyTorch computed (see
//! `oracles/operators.py`), and on random shapes against a twin made of Burn's own operations, in `f32` and in `f64`.
//! The kernels are `f32`, so that the comparison in `f64` is one of the plain bodies. (The twins multiply where they
//! might divide by a number: Burn's gradient of `div_scalar` has the precision of `f32`.)

mod adamw;
mod attention;
mod convolution;
mod cross_entropy;
mod decoder;
mod dropout;
mod embedding;
mod fake_quantize;
mod gelu;
mod golden;
mod kept;
mod layer_norm;
mod linear;
mod plain;
mod second_order;
pub mod views;
mod watched;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::support::{assert_close, random};

/// Of an element's larger of 1 and its magnitude.
const TOLERANCE: f64 = 1e-5;

/// The same in `f64`, as a share of the tolerance in `f32`: both grow with the terms of a sum.
const IN_F64: f64 = 1e-7;

/// What an operator is differentiated by. All inputs are matrices here, a vector is one row: see [`vector`].
pub struct Input {
    name: &'static str,
    shape: [usize; 2],
    data: Vec<f32>,
}

impl Input {
    /// Standard normal numbers, others for every name.
    pub fn random(name: &'static str, rows: usize, columns: usize) -> Self {
        let seed = name.bytes().map(u64::from).sum();
        Self { name, shape: [rows, columns], data: random(rows * columns, seed) }
    }
}

pub fn tensors<const N: usize>(inputs: &[Input; N], device: &Device) -> [Tensor<2>; N] {
    tensors_of(inputs, device, DType::F32)
}

fn tensors_of<const N: usize>(inputs: &[Input; N], device: &Device, dtype: DType) -> [Tensor<2>; N] {
    inputs.each_ref().map(|input| Tensor::from_data(TensorData::new(input.data.clone(), input.shape), (device, dtype)))
}

/// Numbers as a tensor that an operator takes along with another one.
fn constant<const D: usize, const E: usize>(numbers: &[f32], shape: [usize; D], like: &Tensor<E>) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), shape), (&like.device(), like.dtype()))
}

/// The only row of a matrix.
pub fn vector(row: Tensor<2>) -> Tensor<1> {
    let [_, columns] = row.dims();
    row.reshape([columns])
}

pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter().collect()
}

/// An operator's output, and the gradient of `Σ dy · output` by each of its inputs.
pub struct Differentiated<const N: usize> {
    pub output: Vec<f64>,
    pub gradients: [Vec<f64>; N],
}

pub fn differentiate<const N: usize>(
    leaves: [Tensor<2>; N],
    dy: &[f32],
    operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) -> Differentiated<N> {
    let leaves = leaves.map(|leaf| leaf.autodiff().require_grad());
    let output = operator(leaves.clone());
    let dy = constant(dy, output.dims(), &output);
    // Along dimensions: a sum over a whole tensor is atomic additions on a GPU, in any order.
    let gradients = (output.clone() * dy).sum_dim(1).sum_dim(0).backward();
    let of = |leaf: &Tensor<2>| values(leaf.grad(&gradients).expect("every input has a part in the output"));
    Differentiated { output: values(output), gradients: leaves.each_ref().map(of) }
}

/// An operator and its twin agree in value and in every gradient, in `f32` and in `f64`, and the operator gives the
/// same without a graph.
#[track_caller]
fn assert_same<const N: usize>(
    inputs: [Input; N],
    tolerance: f64,
    operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    twin: impl Fn([Tensor<2>; N]) -> Tensor<2>,
) {
    for (dtype, tolerance) in [(DType::F32, tolerance), (DType::F64, tolerance * IN_F64)] {
        let leaves = || tensors_of(&inputs, &Device::flex(), dtype);
        let without_graph = values(operator(leaves()));
        let dy = random(without_graph.len(), 1);
        let actual = differentiate(leaves(), &dy, &operator);
        let expected = differentiate(leaves(), &dy, &twin);
        assert_eq!(actual.output, without_graph, "a graph changes no value");
        assert_close(&actual.output, &expected.output, tolerance, &format!("the output in {dtype:?}"));
        for (input, (actual, expected)) in inputs.iter().zip(actual.gradients.iter().zip(&expected.gradients)) {
            assert_close(actual, expected, tolerance, &format!("the gradient of {} in {dtype:?}", input.name));
        }
    }
}
