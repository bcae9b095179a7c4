//! A plan laid onto a model, and the cut model packed.

use burn::tensor::Tensor;
use lapidary_models::checkpoint::{PackedTensor, QuantizedTensor};
use lapidary_models::layer::WeightRange;
use lapidary_models::{Classifier, parameters};

use crate::quantizer::quantize_codes;
use crate::{BitPlan, Method, ParameterShape, Precision, QuantError, Ranges, find_ranges};

/// What is cut beside the matrices of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOptions {
    /// How a matrix's ranges are chosen.
    pub method: Method,
    /// Bits of the tables of vectors, each row in its own range.
    pub embedding_bits: u32,
    /// Bits of what enters the cut matrices, row by row; `None` leaves them `f32`.
    pub activation_bits: Option<u32>,
}

/// The matrices of a model that a plan can name, in the model's order, with their blocks.
pub fn matrices<M: Classifier>(model: &mut M) -> Vec<(ParameterShape, Option<usize>)> {
    model
        .matrices_mut()
        .into_iter()
        .map(|matrix| {
            let [rows, cols] = matrix.linear.weight.val().dims();
            (ParameterShape { name: matrix.name, rows, cols }, matrix.block)
        })
        .collect()
}

/// A plan from bits by block: blocks by their index, matrices outside the trunk `outside` bits, at most `groups` groups.
pub fn plan_by_block<M: Classifier>(
    model: &mut M,
    block_bits: &[u32],
    outside: u32,
    groups: usize,
) -> Result<BitPlan, QuantError> {
    let mut plan = BitPlan::new();
    for (shape, block) in matrices(model) {
        let bits = match block {
            None => outside,
            Some(layer) => *block_bits.get(layer).ok_or_else(|| QuantError::NoSuchLayer {
                name: shape.name.clone(),
                layer,
                layers: block_bits.len(),
            })?,
        };
        plan.insert(shape.name, Precision { bits, groups: groups.min(shape.rows) })?;
    }
    Ok(plan)
}

/// Rounds the model's weights on their way into every product from now on. The weights themselves stay, so that
/// quantization-aware training can go on moving them.
///
/// # Errors
/// A plan that names other matrices than the model's, weights that are not finite.
pub fn cut<M: Classifier>(mut model: M, plan: &BitPlan, options: &CutOptions) -> Result<M, QuantError> {
    let shapes: Vec<ParameterShape> = matrices(&mut model).into_iter().map(|(shape, _)| shape).collect();
    plan.validate(&shapes)?;
    for matrix in model.matrices_mut() {
        let Some(Precision { bits, groups }) = plan.get(&matrix.name) else { continue };
        let [rows, cols] = matrix.linear.weight.val().dims();
        let weights = floats(matrix.linear.weight.val());
        let ranges = find_ranges(&weights, rows, cols, groups, bits, options.method)
            .map_err(|source| QuantError::Parameter { name: matrix.name.clone(), source: Box::new(source) })?;
        matrix.linear.range = Some(WeightRange::new(ranges.scales, ranges.zeros, bits, &matrix.linear.weight));
        matrix.linear.activation_bits = options.activation_bits;
    }
    for (_, table) in model.tables_mut() {
        table.bits = Some(options.embedding_bits);
    }
    Ok(model)
}

/// The codes and ranges of everything that is cut, by name.
///
/// # Errors
/// Weights that are not finite, a scale that training drove to zero.
pub fn pack<M: Classifier>(model: &mut M) -> Result<Vec<(String, PackedTensor)>, QuantError> {
    let mut packed = Vec::new();
    for matrix in model.matrices_mut() {
        let Some(range) = &matrix.linear.range else { continue };
        let ranges = Ranges { scales: floats(range.used_scales()), zeros: floats(range.zeros.val()) };
        packed.push(pack_one(matrix.name, matrix.linear.weight.val(), &ranges, range.bits)?);
    }
    for (name, table) in model.tables_mut() {
        let Some(bits) = table.bits else { continue };
        let [rows, cols] = table.weight.val().dims();
        let ranges = find_ranges(&floats(table.weight.val()), rows, cols, rows, bits, Method::MinMax)
            .map_err(|source| QuantError::Parameter { name: name.clone(), source: Box::new(source) })?;
        packed.push(pack_one(name, table.weight.val(), &ranges, bits)?);
    }
    Ok(packed)
}

fn pack_one(name: String, weight: Tensor<2>, ranges: &Ranges, bits: u32) -> Result<(String, PackedTensor), QuantError> {
    let shape @ [rows, cols] = weight.dims();
    let in_parameter = |source: QuantError| QuantError::Parameter { name: name.clone(), source: Box::new(source) };
    let codes = quantize_codes(&floats(weight), rows, cols, ranges, bits).map_err(in_parameter)?;
    let layout = QuantizedTensor { bits: bits as u8, groups: ranges.groups(), shape };
    // `quantize_codes` has checked that every zero is a code.
    let zeros = ranges.zeros.iter().map(|&zero| zero as u8).collect();
    let tensor = PackedTensor::from_codes(layout, &codes, ranges.scales.clone(), zeros)
        .map_err(|error| QuantError::Packing { name: name.clone(), reason: error.to_string() })?;
    Ok((name, tensor))
}

fn floats<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    let x = if x.is_autodiff() { x.inner() } else { x };
    let elements = x.shape().num_elements();
    parameters::elements(x.reshape([elements]))
}
