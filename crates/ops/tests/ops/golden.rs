//! What PyTorch computed: `operators.safetensors`, whose tensors are named `OPERATOR.CASE.TENSOR`.

use burn::tensor::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{Input, TOLERANCE, differentiate, tensors_of};
use crate::support::assert_close;

static FILE: &[u8] = include_bytes!("../golden/operators.safetensors");

/// One case, as `OPERATOR.CASE`.
pub struct Case(pub &'static str);

impl Case {
    fn view(&self, name: &str) -> Option<TensorView<'static>> {
        let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
        file.tensor(&format!("{}.{name}", self.0)).ok()
    }

    /// A tensor of any type, if the case has it; `f64` holds all of its numbers.
    pub fn find(&self, name: &str) -> Option<Vec<f64>> {
        let view = self.view(name)?;
        let data = view.data();
        Some(match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as f64).collect(),
            other => panic!("{}.{name} is of type {other:?}", self.0),
        })
    }

    pub fn numbers(&self, name: &str) -> Vec<f64> {
        self.find(name).unwrap_or_else(|| panic!("the file has no {}.{name}", self.0))
    }

    /// Counts, one a row.
    pub fn sizes(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.find(name)?.into_iter().map(|size| size as usize).collect())
    }

    pub fn input(&self, name: &'static str) -> Input {
        let shape = match self.view(name).expect("every input is there").shape() {
            &[columns] => [1, columns],
            &[rows, columns] => [rows, columns],
            other => panic!("{}.{name} has shape {other:?}", self.0),
        };
        Input { name, shape, data: self.numbers(name).into_iter().map(|x| x as f32).collect() }
    }

    #[track_caller]
    pub fn assert_close(&self, actual: &[f64], name: &str) {
        assert_close(actual, &self.numbers(name), TOLERANCE, &format!("{}.{name}", self.0));
    }

    /// The operator's output and the gradients of its inputs are PyTorch's.
    #[track_caller]
    pub fn check<const N: usize>(
        &self,
        inputs: [&'static str; N],
        output: &str,
        operator: impl Fn([Tensor<2>; N]) -> Tensor<2>,
    ) {
        let dy: Vec<f32> = self.numbers(&format!("d{output}")).into_iter().map(|x| x as f32).collect();
        for dtype in [DType::F32, DType::F64] {
            let leaves = tensors_of(&inputs.map(|name| self.input(name)), &Device::flex(), dtype);
            let actual = differentiate(leaves, &dy, &operator);
            self.assert_close(&actual.output, output);
            for (name, gradient) in inputs.iter().zip(&actual.gradients) {
                // The two terms of a sum have one gradient, and the file has it once.
                let name = if *name == "residual" { "x" } else { name };
                self.assert_close(gradient, &format!("d{name}"));
            }
        }
    }
}
