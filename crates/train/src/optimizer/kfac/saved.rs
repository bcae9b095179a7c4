//! The state of K-FAC as it is saved: averages as they are, and the inverses with them, since the averages have gone on
//! since the last inversion.

use std::collections::BTreeMap;

use burn::tensor::Device;
use faer::Mat;
use lapidary_curvature::kronecker::{InputFactor, LayerFactors};
use lapidary_models::checkpoint::TensorSource;
use serde::{Deserialize, Serialize};

use super::KfacOptimizer;
use super::layer::{Eigen, InputInverse, Inverse, Layer};
use crate::optimizer::saved::{Entries, f64_tensor};

/// What is no tensor.
#[derive(Serialize, Deserialize)]
pub(crate) struct Header {
    steps: u64,
    damping: f64,
    diagonal_weight: f64,
    layers: BTreeMap<String, LayerHeader>,
}

#[derive(Serialize, Deserialize)]
struct LayerHeader {
    weight: f64,
    bias: Option<String>,
    inputs: usize,
    outputs: usize,
    is_table: bool,
    inverse: Option<Form>,
}

#[derive(Serialize, Deserialize)]
enum Form {
    Split,
    Eigen,
}

impl KfacOptimizer {
    pub(crate) fn save(&self) -> (Header, Vec<TensorSource<'static>>) {
        let mut tensors = self.sgd.save();
        let mut layers = BTreeMap::new();
        for (path, layer) in &self.layers {
            let LayerFactors { bias, input, gradient, .. } = &layer.factors;
            let (inputs, is_table) = match input {
                InputFactor::Full(input) => {
                    tensors.push(f64_tensor(format!("input.{path}"), elements(input)));
                    (input.nrows(), false)
                }
                InputFactor::Diagonal(input) => {
                    tensors.push(f64_tensor(format!("input.{path}"), input.clone()));
                    (input.len(), true)
                }
            };
            tensors.push(f64_tensor(format!("gradient.{path}"), elements(gradient)));
            let f32_tensor =
                |name: &str, data: &[f32]| TensorSource::f32(format!("{name}.{path}"), vec![data.len()], data.to_vec());
            let inverse = layer.inverse.as_ref().map(|inverse| match inverse {
                Inverse::Split { input: InputInverse::Full(input) | InputInverse::Diagonal(input), gradient } => {
                    tensors.push(f32_tensor("inverse_input", input));
                    tensors.push(f32_tensor("inverse_gradient", gradient));
                    Form::Split
                }
                Inverse::Eigen(eigen) => {
                    if !is_table {
                        tensors.push(f32_tensor("vectors_input", &eigen.input_vectors));
                    }
                    tensors.push(f32_tensor("vectors_gradient", &eigen.gradient_vectors));
                    tensors.push(f64_tensor(format!("values_input.{path}"), eigen.input_values.clone()));
                    tensors.push(f64_tensor(format!("values_gradient.{path}"), eigen.gradient_values.clone()));
                    Form::Eigen
                }
            });
            let outputs = gradient.nrows();
            let header = LayerHeader { weight: layer.weight, bias: bias.clone(), inputs, outputs, is_table, inverse };
            layers.insert(path.clone(), header);
        }
        for (path, diagonal) in &self.diagonals {
            tensors.push(f64_tensor(format!("diagonal.{path}"), diagonal.clone()));
        }
        let (steps, damping, diagonal_weight) = (self.steps, self.damping, self.diagonal_weight);
        (Header { steps, damping, diagonal_weight, layers }, tensors)
    }

    /// # Errors
    /// What is missing, or of another size.
    pub(crate) fn load(
        &mut self,
        header: Header,
        entries: &mut Entries,
        shapes: &[(String, Vec<usize>)],
        device: &Device,
    ) -> Result<(), String> {
        self.sgd.load(entries, shapes, device)?;
        (self.steps, self.damping, self.diagonal_weight) = (header.steps, header.damping, header.diagonal_weight);
        self.layers.clear();
        for (path, LayerHeader { weight, bias, inputs, outputs, is_table, inverse }) in header.layers {
            let elements = |path: &str| {
                let shape = shapes.iter().find(|(known, _)| known == path).map(|(_, shape)| shape);
                shape.map(|shape| shape.iter().product::<usize>())
            };
            let Some(of_weight) = elements(&path) else {
                return Err(format!("it has factors of {path}, which the model has not"));
            };
            let of_bias = bias.as_ref().map_or(Some(0), |bias| elements(bias));
            if inputs.checked_mul(outputs) != of_bias.map(|bias| of_weight + bias) {
                return Err(format!("its factors of {path} are {inputs} by {outputs}, which the parameter is not"));
            }
            let size = |n: usize| n.checked_mul(n).ok_or_else(|| format!("a factor of {path} has {n} rows"));
            let square = |numbers: Vec<f64>, n: usize| Mat::from_fn(n, n, |i, j| numbers[i * n + j]);
            let input = match is_table {
                true => InputFactor::Diagonal(entries.f64(&format!("input.{path}"), inputs)?),
                false => InputFactor::Full(square(entries.f64(&format!("input.{path}"), size(inputs)?)?, inputs)),
            };
            let gradient = square(entries.f64(&format!("gradient.{path}"), size(outputs)?)?, outputs);
            let inverse = match inverse {
                None => None,
                Some(Form::Split) => {
                    let all = if is_table { inputs } else { size(inputs)? };
                    let input = entries.f32(&format!("inverse_input.{path}"), all)?;
                    let gradient = entries.f32(&format!("inverse_gradient.{path}"), size(outputs)?)?;
                    let input = if is_table { InputInverse::Diagonal(input) } else { InputInverse::Full(input) };
                    Some(Inverse::Split { input, gradient })
                }
                Some(Form::Eigen) => Some(Inverse::Eigen(Eigen {
                    input_values: entries.f64(&format!("values_input.{path}"), inputs)?,
                    input_vectors: match is_table {
                        true => Vec::new(),
                        false => entries.f32(&format!("vectors_input.{path}"), size(inputs)?)?,
                    },
                    gradient_values: entries.f64(&format!("values_gradient.{path}"), outputs)?,
                    gradient_vectors: entries.f32(&format!("vectors_gradient.{path}"), size(outputs)?)?,
                })),
            };
            let factors = LayerFactors { weight: path.clone(), bias, input, gradient };
            self.layers.insert(path, Layer { factors, weight, inverted: inverse.is_some(), inverse });
        }
        self.diagonals.clear();
        for (path, shape) in shapes {
            let name = format!("diagonal.{path}");
            if entries.has(&name) {
                self.diagonals.insert(path.clone(), entries.f64(&name, shape.iter().product())?);
            }
        }
        Ok(())
    }
}

/// Row-major.
fn elements(matrix: &Mat<f64>) -> Vec<f64> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)])).collect()
}
