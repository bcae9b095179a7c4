//! What PyTorch computed: the files of `oracles/`, whose tensors are named `OPERATOR.CASE.TENSOR`.

use burn::tensor::{DType, Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{Input, TOLERANCE, differentiate, tensors_of};
use crate::support::assert_close;

static FILES: [&[u8]; 3] = [
    include_bytes!("../golden/operators.safetensors"),
    include_bytes!("../golden/decoder_operators.safetensors"),
    include_bytes!("../golden/convolution.safetensors"),
];

/// One case, as `OPERATOR.CASE`.
pub struct Case(pub &'static str);

impl Case {
    fn view(&self, name: &str) -> Option<TensorView<'static>> {
        FILES.iter().find_map(|file| {
            let file = SafeTensors::deserialize(file).expect("a safetensors file");
            file.tensor(&format!("{}.{name}", self.0)).ok()
        })
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

    /// A number.
    pub fn number(&self, name: &str) -> f64 {
        self.numbers(name)[0]
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.view(name).unwrap_or_else(|| panic!("the file has no {}.{name}", self.0)).shape().to_vec()
    }

    /// A tensor as a matrix, its last dimension that of the columns.
    pub fn input(&self, name: &'static str) -> Input {
        let shape = self.shape(name);
        let columns = shape.last().copied().unwrap_or(1);
        let shape = [shape.iter().product::<usize>() / columns.max(1), columns];
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
