//! Weights between a checkpoint and a model, by name.

use burn::tensor::{Tensor, TensorData};

use crate::checkpoint::{Checkpoint, CheckpointError, QuantizationConfig, SafetensorsFile, packed, printable};
use crate::classifier::Checkpointed;
use crate::error::ModelError;
use crate::parameters;

/// What a checkpoint and a model did not share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unshared {
    /// Tensors that the checkpoint lacks and that begin fresh.
    pub fresh: Vec<String>,
    /// Tensors of the checkpoint that the model has no use for.
    pub extra: Vec<String>,
}

/// Fills a model from a checkpoint, dense or packed; a packed matrix is unpacked into `f32`.
///
/// # Errors
/// A tensor that is missing, is of another shape, has an element that is not finite, or belongs to no parameter,
/// unless the model says that it may.
pub fn load<M: Checkpointed>(model: M, checkpoint: &Checkpoint) -> Result<(M, Unshared), ModelError> {
    fill(model, checkpoint, Heads::Fit)
}

/// The same for a model that is to learn another task: a head of another shape, as that of other classes has, begins
/// fresh.
///
/// # Errors
/// As [`load`].
pub fn load_for_task<M: Checkpointed>(model: M, checkpoint: &Checkpoint) -> Result<(M, Unshared), ModelError> {
    fill(model, checkpoint, Heads::MayBeFresh)
}

/// What becomes of a head that does not fit the model's.
#[derive(Clone, Copy, PartialEq)]
enum Heads {
    Fit,
    MayBeFresh,
}

fn fill<M: Checkpointed>(model: M, checkpoint: &Checkpoint, heads: Heads) -> Result<(M, Unshared), ModelError> {
    let quantization = checkpoint.quantization()?;
    if let Some(quantization) = &quantization {
        quantization.check(checkpoint)?;
    }
    let mut unshared = Unshared::default();
    let mut used = Vec::new();
    let mut failed = None;
    let mut model = parameters::map(model, &mut |parameter| {
        if failed.is_some() {
            return parameter.value;
        }
        let name = M::checkpoint_name(parameter.path);
        let misfit = || checkpoint.info(&name).is_ok_and(|info| info.shape != parameter.shape);
        if heads == Heads::MayBeFresh && M::may_be_fresh(&name) && misfit() {
            unshared.fresh.push(name);
            return parameter.value;
        }
        match read(checkpoint, quantization.as_ref(), &name, parameter.shape) {
            Ok(Some((stored, data))) => {
                used.push(stored);
                let elements = data.len();
                Tensor::from_data(TensorData::new(data, [elements]), &parameter.value.device())
            }
            Ok(None) if M::may_be_fresh(&name) => {
                unshared.fresh.push(name);
                parameter.value
            }
            Ok(None) => {
                failed = checkpoint.info(&name).err().map(ModelError::from);
                parameter.value
            }
            Err(error) => {
                failed = Some(error);
                parameter.value
            }
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    for name in checkpoint.names() {
        let stem = [".codes", ".scales", ".zeros"].iter().find_map(|end| name.strip_suffix(end));
        let stem = stem.filter(|stem| quantization.as_ref().is_some_and(|q| q.tensors.contains_key(*stem)));
        if used.iter().any(|used| used == stem.unwrap_or(name)) {
            continue;
        }
        if !M::known_extra(name) && !M::known_extra(&format!("bert.{name}")) {
            return Err(ModelError::Unknown { folder: checkpoint.path().display().to_string(), name: printable(name) });
        }
        unshared.extra.push(name.to_owned());
    }
    if let Some(quantization) = quantization.filter(|quantization| quantization.activation_bits < 32) {
        for matrix in model.matrices_mut() {
            if quantization.tensors.contains_key(&matrix.name) {
                matrix.linear.activation_bits = Some(quantization.activation_bits.into());
            }
        }
    }
    Ok((model, unshared))
}

/// The tensor called `name`, or called so without the model's prefix as bare encoders are saved.
fn read(
    checkpoint: &Checkpoint,
    quantization: Option<&QuantizationConfig>,
    name: &str,
    shape: &[usize],
) -> Result<Option<(String, Vec<f32>)>, ModelError> {
    let bare = name.split_once('.').map_or(name, |(_, bare)| bare);
    for name in [name, bare] {
        if let Some((quantization, layout)) = quantization.and_then(|q| Some((q, q.tensors.get(name)?))) {
            if layout.shape != shape {
                let reason = format!("is packed with shape {:?}, the model needs {shape:?}", layout.shape);
                let (path, tensor) = (checkpoint.path().to_owned(), name.to_owned());
                return Err(CheckpointError::Tensor { path, tensor, reason }.into());
            }
            let data = packed::dequantize(&packed::read_packed(checkpoint, quantization, name)?);
            return Ok(Some((name.to_owned(), finite(checkpoint, name, data)?)));
        }
        if checkpoint.contains(name) {
            let data = checkpoint.tensor_of_shape(name, shape)?.data;
            return Ok(Some((name.to_owned(), finite(checkpoint, name, data)?)));
        }
    }
    Ok(None)
}

/// The weights, or the error for one that is infinite or NaN: it would make every result NaN and name no cause.
fn finite(checkpoint: &Checkpoint, name: &str, data: Vec<f32>) -> Result<Vec<f32>, CheckpointError> {
    let Some(place) = data.iter().position(|x| !x.is_finite()) else { return Ok(data) };
    let path = checkpoint.file(name).map_or(checkpoint.path(), SafetensorsFile::path).to_owned();
    let reason = format!("element {place} is {}, weights must be finite", data[place]);
    Err(CheckpointError::Tensor { path, tensor: name.to_owned(), reason })
}

/// A tensor on its way into a file: name, shape, elements.
pub struct NamedTensor {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: Vec<f32>,
}

/// The model's parameters under their names in a checkpoint. Ranges of cut matrices are not among them.
pub fn export<M: Checkpointed>(model: &M) -> Vec<NamedTensor> {
    let mut tensors = Vec::new();
    parameters::visit(model, &mut |parameter| {
        if !parameter.path.contains(".range.") {
            tensors.push(NamedTensor {
                name: M::checkpoint_name(parameter.path),
                shape: parameter.shape.to_vec(),
                data: parameters::elements(parameter.value),
            });
        }
    });
    tensors
}
