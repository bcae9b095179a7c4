//! The tensors of a saved state, taken one by one: what is missing is an error, and what is left over too.

use burn::tensor::{Device, Tensor, TensorData};
use lapidary_models::checkpoint::{Dtype, SafetensorsFile, TensorSource};
use lapidary_models::parameters;

/// A flat tensor of `f64`.
pub(crate) fn f64_tensor(name: String, data: Vec<f64>) -> TensorSource<'static> {
    TensorSource::new(name, Dtype::F64, vec![data.len()], move |writer| {
        writer.write_all(&data.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<u8>>())
    })
}

/// A flat tensor of `f32`.
pub(crate) fn f32_tensor(name: String, tensor: &Tensor<1>) -> TensorSource<'static> {
    let data = parameters::elements(tensor.clone());
    TensorSource::f32(name, vec![data.len()], data)
}

/// What a file holds, and how much of it has been taken.
pub(crate) struct Entries<'a> {
    file: &'a SafetensorsFile,
    taken: usize,
}

impl<'a> Entries<'a> {
    pub fn new(file: &'a SafetensorsFile) -> Self {
        Self { file, taken: 0 }
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.info(name).is_some()
    }

    /// Tensors that have been taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// # Errors
    /// There is none, or it has another number of elements.
    pub fn f32(&mut self, name: &str, elements: usize) -> Result<Vec<f32>, String> {
        self.check(name, elements)?;
        Ok(self.file.tensor(name).map_err(|error| error.to_string())?.data)
    }

    /// As [`f32`](Self::f32), on a device.
    ///
    /// # Errors
    /// The same.
    pub fn tensor(&mut self, name: &str, elements: usize, device: &Device) -> Result<Tensor<1>, String> {
        Ok(Tensor::from_data(TensorData::new(self.f32(name, elements)?, [elements]), device))
    }

    /// # Errors
    /// As [`f32`](Self::f32), and one of another type.
    pub fn f64(&mut self, name: &str, elements: usize) -> Result<Vec<f64>, String> {
        self.check(name, elements)?;
        match self.file.info(name).map(|info| info.dtype) {
            Some(Dtype::F64) => {
                let bytes = self.file.bytes(name).map_err(|error| error.to_string())?;
                Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
            }
            _ => Err(format!("{name} is not of 64-bit numbers")),
        }
    }

    fn check(&mut self, name: &str, elements: usize) -> Result<(), String> {
        let info = self.file.info(name).ok_or_else(|| format!("it lacks {name}"))?;
        let found: usize = info.shape.iter().product();
        if found != elements {
            return Err(format!("{name} has {found} elements, should have {elements}"));
        }
        self.taken += 1;
        Ok(())
    }
}
