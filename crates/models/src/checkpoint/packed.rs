//! Packed tensors: matrices stored as codes of 2 to 8 bits with one scale and one zero code a group of rows.
//!
//! Group `g` of `G` holds the rows `[g·rows/G, (g+1)·rows/G)`, and a weight is `scale · (code − zero)`. A matrix `NAME`
//! is stored as three tensors: U8 `NAME.codes` of shape `[rows, bytes a row]`, F32 `NAME.scales` `[G]` and U8
//! `NAME.zeros` `[G]`. Codes fill a row's bytes from the least significant bit on; each row ends on a whole byte, the
//! bits left over are zero.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::error::printable;
use super::{Checkpoint, CheckpointError, Config, Dtype, TensorSource};

/// The key of `config.json` that holds a [`QuantizationConfig`].
pub const CONFIG_KEY: &str = "quantization_config";
/// The `quant_method` of this format.
pub const METHOD: &str = "lapidary";
/// The version of this format.
pub const VERSION: u32 = 1;

/// `quantization_config`: which tensors are packed, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationConfig {
    /// [`METHOD`].
    pub quant_method: String,
    /// [`VERSION`].
    pub version: u32,
    /// Bits of the activations the weights were trained for: 2 to 8, or 32 for none quantized.
    pub activation_bits: u8,
    /// The packed tensors by name.
    pub tensors: BTreeMap<String, QuantizedTensor>,
}

/// How one matrix is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizedTensor {
    /// Bits a code, 2 to 8.
    pub bits: u8,
    /// Groups of rows, each with a scale and a zero code; at most one a row.
    pub groups: usize,
    /// Rows and columns.
    pub shape: [usize; 2],
}

/// What is wrong with a packed tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PackedError(String);

impl QuantizationConfig {
    /// A configuration without tensors yet.
    pub fn new(activation_bits: u8) -> Self {
        Self { quant_method: METHOD.to_owned(), version: VERSION, activation_bits, tensors: BTreeMap::new() }
    }

    /// Reads and checks `quantization_config`; `None` where there is none.
    pub fn of(config: &Config) -> Result<Option<Self>, CheckpointError> {
        let Some(value) = config.get(CONFIG_KEY) else { return Ok(None) };
        // The method first: another program's configuration should be called that, and not be blamed for its keys.
        let invalid = |reason: String| Err(config.invalid(CONFIG_KEY, reason));
        match value.get("quant_method").and_then(|method| method.as_str()) {
            Some(METHOD) => {}
            Some(other) => return invalid(format!("method `{}` is not one that can be read", printable(other))),
            None => return invalid("`quant_method` is missing".to_owned()),
        }
        let Some(quantization) = config.optional_struct::<Self>(CONFIG_KEY)? else { return Ok(None) };
        if quantization.version != VERSION {
            return invalid(format!("is of version {}, this program reads {VERSION}", quantization.version));
        }
        if !matches!(quantization.activation_bits, 2..=8 | 32) {
            return invalid(format!("activation_bits should be 2 to 8 or 32, is {}", quantization.activation_bits));
        }
        for (name, tensor) in &quantization.tensors {
            if let Err(error) = tensor.check() {
                return invalid(format!("tensor `{}`: {error}", printable(name)));
            }
        }
        Ok(Some(quantization))
    }

    /// Checks without reading any codes that every packed tensor's parts are in the checkpoint with the shapes they
    /// should have, and that none is stored a second time unpacked.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        for (name, tensor) in &self.tensors {
            tensor.check_parts(checkpoint, name)?;
        }
        Ok(())
    }
}

impl QuantizedTensor {
    /// Checks bits, groups and shape, and that the sizes that follow from them can be counted.
    pub fn check(&self) -> Result<(), PackedError> {
        let [rows, cols] = self.shape;
        let bad = |reason: String| Err(PackedError(reason));
        if !(2..=8).contains(&self.bits) {
            return bad(format!("bits should be 2 to 8, are {}", self.bits));
        }
        if rows == 0 || cols == 0 {
            return bad(format!("shape {:?} has no elements", self.shape));
        }
        if !(1..=rows).contains(&self.groups) {
            return bad(format!("groups should be 1 to {rows}, one a row, are {}", self.groups));
        }
        // Sixteen bytes a weight bounds the codes, their floats and every product formed of rows and groups.
        let countable = rows.checked_mul(cols).and_then(|n| n.checked_mul(16)).is_some();
        if !countable || rows.checked_mul(self.groups).is_none() {
            return bad(format!("shape {:?} has more elements than can be counted", self.shape));
        }
        Ok(())
    }

    /// Number of weights.
    pub fn elements(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Bytes of a row's codes.
    pub fn row_bytes(&self) -> usize {
        row_bytes(self.shape[1], self.bits)
    }

    /// The rows of group `g`.
    pub fn group_rows(&self, group: usize) -> Range<usize> {
        let rows = self.shape[0];
        group * rows / self.groups..(group + 1) * rows / self.groups
    }

    /// The tensors that a packed one is stored as: suffix, type, shape.
    fn parts(&self) -> [(&'static str, Dtype, Vec<usize>); 3] {
        [
            ("codes", Dtype::U8, vec![self.shape[0], self.row_bytes()]),
            ("scales", Dtype::F32, vec![self.groups]),
            ("zeros", Dtype::U8, vec![self.groups]),
        ]
    }

    fn check_parts(&self, checkpoint: &Checkpoint, name: &str) -> Result<(), CheckpointError> {
        if checkpoint.contains(name) {
            let path = checkpoint.file(name)?.path();
            return Err(CheckpointError::tensor(path, name, "is stored both packed and unpacked"));
        }
        for (part, dtype, shape) in self.parts() {
            let part = format!("{name}.{part}");
            let info = checkpoint.info(&part)?;
            if info.dtype != dtype || info.shape != shape {
                let (found, found_shape) = (info.dtype, &info.shape);
                let reason = format!("is {found} {found_shape:?}, {CONFIG_KEY} makes it {dtype} {shape:?}");
                return Err(CheckpointError::tensor(checkpoint.file(&part)?.path(), &part, reason));
            }
        }
        Ok(())
    }
}

/// A matrix of `shape` `[rows, cols]` as packed codes with a scale and a zero code a group. Always consistent: the
/// constructors check what [`dequantize`] relies on.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedTensor {
    layout: QuantizedTensor,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
}

impl PackedTensor {
    /// From packed codes (`rows · row_bytes` of them), scales and zero codes (one a group).
    pub fn new(layout: QuantizedTensor, codes: Vec<u8>, scales: Vec<f32>, zeros: Vec<u8>) -> Result<Self, PackedError> {
        layout.check()?;
        let bad = |reason: String| Err(PackedError(reason));
        let expected = layout.shape[0] * layout.row_bytes();
        if codes.len() != expected {
            return bad(format!("has {} bytes of codes, needs {expected}", codes.len()));
        }
        if scales.len() != layout.groups || zeros.len() != layout.groups {
            let (groups, scales, zeros) = (layout.groups, scales.len(), zeros.len());
            return bad(format!("has {scales} scales and {zeros} zeros for {groups} groups"));
        }
        if let Some(group) = scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) {
            return bad(format!("scale {} of group {group} should be positive and finite", scales[group]));
        }
        let highest = highest_code(layout.bits);
        if let Some(group) = zeros.iter().position(|&zero| zero > highest) {
            return bad(format!("zero code {} of group {group} is over {highest}", zeros[group]));
        }
        let used = layout.shape[1] * layout.bits as usize % 8;
        if used != 0 && codes.chunks_exact(layout.row_bytes()).any(|row| row[row.len() - 1] >> used != 0) {
            return bad("bits after the end of a row are not zero".to_owned());
        }
        Ok(Self { layout, codes, scales, zeros })
    }

    /// From one code a byte, row-major.
    pub fn from_codes(
        layout: QuantizedTensor,
        codes: &[u8],
        scales: Vec<f32>,
        zeros: Vec<u8>,
    ) -> Result<Self, PackedError> {
        layout.check()?;
        let [rows, cols] = layout.shape;
        if codes.len() != rows * cols {
            return Err(PackedError(format!("has {} codes for shape {:?}", codes.len(), layout.shape)));
        }
        let highest = highest_code(layout.bits);
        if let Some(code) = codes.iter().find(|&&code| code > highest) {
            return Err(PackedError(format!("code {code} does not fit {} bits", layout.bits)));
        }
        Self::new(layout, pack_codes(codes, rows, cols, layout.bits), scales, zeros)
    }

    /// Bits, groups and shape, as they stand in `quantization_config`.
    pub fn layout(&self) -> &QuantizedTensor {
        &self.layout
    }

    pub fn bits(&self) -> u8 {
        self.layout.bits
    }

    pub fn groups(&self) -> usize {
        self.layout.groups
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.layout.shape
    }

    /// Packed codes, `rows · row_bytes`.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// One scale a group, positive.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The code that means 0, one a group.
    pub fn zeros(&self) -> &[u8] {
        &self.zeros
    }

    /// Bytes it takes: codes, scales and zeros.
    pub fn bytes(&self) -> usize {
        self.codes.len() + 4 * self.scales.len() + self.zeros.len()
    }

    /// The three tensors that store it.
    pub fn sources(&self, name: &str) -> [TensorSource<'_>; 3] {
        let [(_, _, codes), ..] = self.layout.parts();
        let groups = [self.layout.groups];
        [
            TensorSource::u8(format!("{name}.codes"), codes, &self.codes[..]),
            TensorSource::f32(format!("{name}.scales"), groups, &self.scales[..]),
            TensorSource::u8(format!("{name}.zeros"), groups, &self.zeros[..]),
        ]
    }
}

/// Reads and checks the packed tensor `name` of a checkpoint whose `quantization_config` is `quantization`.
pub fn read_packed(
    checkpoint: &Checkpoint,
    quantization: &QuantizationConfig,
    name: &str,
) -> Result<PackedTensor, CheckpointError> {
    let layout = quantization.tensors.get(name).ok_or_else(|| {
        let reason = format!("does not list tensor `{}`", printable(name));
        checkpoint.config().invalid(CONFIG_KEY, reason)
    })?;
    layout.check_parts(checkpoint, name)?;
    let part = |suffix: &str| format!("{name}.{suffix}");
    let codes = checkpoint.bytes(&part("codes"))?;
    let scales = checkpoint.tensor(&part("scales"))?.data;
    let zeros = checkpoint.bytes(&part("zeros"))?;
    PackedTensor::new(*layout, codes, scales, zeros).map_err(|PackedError(reason)| CheckpointError::Tensor {
        path: checkpoint.path().to_owned(),
        tensor: printable(name),
        reason,
    })
}

/// The weights `scale · (code − zero)`, row-major.
pub fn dequantize(packed: &PackedTensor) -> Vec<f32> {
    let layout = packed.layout();
    let [rows, cols] = layout.shape;
    let codes = unpack_codes(&packed.codes, rows, cols, layout.bits);
    let mut weights = Vec::with_capacity(codes.len());
    for (group, (&scale, &zero)) in packed.scales.iter().zip(&packed.zeros).enumerate() {
        let rows = layout.group_rows(group);
        let codes = &codes[rows.start * cols..rows.end * cols];
        weights.extend(codes.iter().map(|&code| scale * (f32::from(code) - f32::from(zero))));
    }
    weights
}

/// Packs `rows · cols` codes, one a byte, into rows of whole bytes.
///
/// # Panics
/// If there are not `rows · cols` codes, or `bits` is not 1 to 8. A code that needs more than `bits` bits loses the
/// higher ones.
pub fn pack_codes(codes: &[u8], rows: usize, cols: usize, bits: u8) -> Vec<u8> {
    assert!((1..=8).contains(&bits) && codes.len() == rows * cols, "codes do not fit {rows}x{cols} of {bits} bits");
    let row_bytes = row_bytes(cols, bits);
    let mask = highest_code(bits);
    let mut packed = vec![0; rows * row_bytes];
    if packed.is_empty() {
        return packed;
    }
    for (row, packed) in codes.chunks_exact(cols).zip(packed.chunks_exact_mut(row_bytes)) {
        let (mut pending, mut filled, mut next) = (0u32, 0, 0);
        for &code in row {
            pending |= u32::from(code & mask) << filled;
            filled += bits;
            if filled >= 8 {
                packed[next] = pending as u8;
                (pending, filled, next) = (pending >> 8, filled - 8, next + 1);
            }
        }
        if filled > 0 {
            packed[next] = pending as u8;
        }
    }
    packed
}

/// The inverse of [`pack_codes`]: one code a byte.
///
/// # Panics
/// If `packed` is not `rows` rows of the bytes that `cols` codes need, or `bits` is not 1 to 8.
pub fn unpack_codes(packed: &[u8], rows: usize, cols: usize, bits: u8) -> Vec<u8> {
    let row_bytes = row_bytes(cols, bits);
    assert!((1..=8).contains(&bits) && packed.len() == rows * row_bytes, "bytes are not {rows}x{cols} of {bits} bits");
    let mask = highest_code(bits);
    let mut codes = Vec::with_capacity(rows * cols);
    if packed.is_empty() {
        return codes;
    }
    for row in packed.chunks_exact(row_bytes) {
        let (mut pending, mut filled, mut bytes) = (0u32, 0, row.iter());
        codes.extend((0..cols).map(|_| {
            if filled < bits {
                // A row has the bytes that its codes need, so there always is one here.
                pending |= bytes.next().map_or(0, |&byte| u32::from(byte)) << filled;
                filled += 8;
            }
            let code = pending as u8 & mask;
            (pending, filled) = (pending >> bits, filled - bits);
            code
        }));
    }
    codes
}

fn row_bytes(cols: usize, bits: u8) -> usize {
    (cols * usize::from(bits)).div_ceil(8)
}

fn highest_code(bits: u8) -> u8 {
    u8::MAX >> (8 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_fill_bytes_from_the_lowest_bit() {
        assert_eq!(pack_codes(&[1, 2, 3, 0, 1], 1, 5, 2), [0b00_11_10_01, 0b01]);
        // The third code of 3 bits straddles the byte.
        assert_eq!(pack_codes(&[0b101, 0b010, 0b110], 1, 3, 3), [0b10_010_101, 0b1]);
        assert_eq!(pack_codes(&[7, 9], 2, 1, 4), [7, 9]);
    }

    #[test]
    fn groups_follow_the_rows() {
        let layout = QuantizedTensor { bits: 2, groups: 2, shape: [3, 2] };
        let packed =
            PackedTensor::from_codes(layout, &[0, 1, 2, 3, 0, 3], vec![0.5, 2.0], vec![1, 0]).expect("consistent");
        assert_eq!(dequantize(&packed), [-0.5, 0.0, 4.0, 6.0, 0.0, 6.0]);
        assert_eq!(packed.bytes(), 3 + 8 + 2);
    }

    #[test]
    fn inconsistent_parts_are_refused() {
        let layout = QuantizedTensor { bits: 3, groups: 1, shape: [2, 3] };
        let make =
            |codes: &[u8], scale: f32, zero: u8| PackedTensor::new(layout, codes.to_vec(), vec![scale], vec![zero]);
        assert!(make(&[0, 0, 0, 0], 1.0, 7).is_ok());
        assert!(make(&[0, 0, 0], 1.0, 0).unwrap_err().to_string().contains("bytes of codes"));
        assert!(make(&[0; 4], f32::NAN, 0).unwrap_err().to_string().contains("group 0"));
        assert!(make(&[0; 4], -1.0, 0).is_err());
        assert!(make(&[0; 4], 1.0, 8).unwrap_err().to_string().contains("over 7"));
        assert!(make(&[0, 2, 0, 0], 1.0, 0).unwrap_err().to_string().contains("after the end of a row"));
        let huge = QuantizedTensor { bits: 2, groups: 1, shape: [usize::MAX, 2] };
        assert!(huge.check().unwrap_err().to_string().contains("counted"));
        assert!(QuantizedTensor { groups: 3, ..layout }.check().is_err());
        assert!(QuantizedTensor { bits: 9, ..layout }.check().is_err());
    }
}
