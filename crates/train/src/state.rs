//! The state of a training on disk: one file, written whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_models::checkpoint::{SafetensorsFile, TensorSource, atomic_write, write_safetensors};
use lapidary_models::parameters;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::noise_scale::NoiseScale;
use crate::optimizer::{Entries, Header, Optimizer};

const HEADER: &str = "training_state";

/// What a resumed run needs beside tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Steps done.
    pub step: u64,
    /// The best validation metric and its step.
    pub best: Option<(f64, u64)>,
    /// Seconds of training so far.
    pub seconds: f64,
    /// How noisy the gradient has been.
    #[serde(default)]
    pub noise: NoiseScale,
    /// What the run was told; a state of another run is refused.
    pub run: String,
}

/// Files of one training in one folder.
pub(crate) struct StateFolder {
    path: PathBuf,
    keep: usize,
}

impl StateFolder {
    pub(crate) fn new(path: &Path, keep: usize) -> Self {
        Self { path: path.to_owned(), keep: keep.max(1) }
    }

    fn state_path(&self, step: u64) -> PathBuf {
        self.path.join(format!("state-{step:08}.safetensors"))
    }

    pub(crate) fn best_path(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// Saves model, optimizer and position, then lets go of the oldest states.
    pub(crate) fn save<M: Module>(
        &self,
        model: &M,
        optimizer: &Optimizer,
        position: &Position,
    ) -> Result<(), TrainError> {
        let mut tensors = parameter_tensors(model);
        let (header, of_optimizer) = optimizer.save();
        tensors.extend(of_optimizer);
        let header = serde_json::to_vec(&(position, header)).map_err(std::io::Error::from);
        let header = header.map_err(|source| TrainError::Log { path: self.path.clone(), source })?;
        tensors.push(TensorSource::u8(HEADER, vec![header.len()], header));
        atomic_write(&self.state_path(position.step), |writer| write_safetensors(writer, tensors))?;
        let states = self.states()?;
        for old in states.iter().rev().skip(self.keep) {
            fs::remove_file(self.state_path(*old))
                .map_err(|source| TrainError::Log { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Keeps the parameters that did best.
    pub(crate) fn save_best<M: Module>(&self, model: &M) -> Result<(), TrainError> {
        Ok(atomic_write(&self.best_path(), |writer| write_safetensors(writer, parameter_tensors(model)))?)
    }

    /// Steps of the saved states, oldest first.
    fn states(&self) -> Result<Vec<u64>, TrainError> {
        let failed = |source| TrainError::Log { path: self.path.clone(), source };
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("state-")?.strip_suffix(".safetensors"));
            steps.extend(step.and_then(|step| step.parse::<u64>().ok()));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest state, if any: model and optimizer as they were.
    pub(crate) fn load<M: Module>(
        &self,
        model: M,
        optimizer: &mut Optimizer,
        run: &str,
    ) -> Result<(M, Option<Position>), TrainError> {
        let Some(&step) = self.states()?.last() else { return Ok((model, None)) };
        let path = self.state_path(step);
        let wrong = |reason: String| TrainError::State { path: path.clone(), reason };
        let file = SafetensorsFile::open(&path)?;
        let header = file.bytes(HEADER)?;
        let (position, header): (Position, Header) =
            serde_json::from_slice(&header).map_err(|error| wrong(error.to_string()))?;
        if position.run != run {
            return Err(wrong("it is the state of a run with other settings".into()));
        }
        let device = model.devices().pop().unwrap_or(Device::flex()).without_autodiff();
        let shapes = parameters::shapes(&model);
        let mut entries = Entries::new(&file);
        optimizer.load(header, &mut entries, &shapes, &device).map_err(wrong)?;
        // The header, the parameters and what the optimizer took.
        let (found, expected) = (file.header().tensors.len(), 1 + shapes.len() + entries.taken());
        if found != expected {
            return Err(wrong(format!("it holds {found} tensors, this model and its optimizer have {expected}")));
        }
        let model = load_parameters(model, &file)?;
        Ok((model, Some(position)))
    }

    /// The parameters that did best.
    pub(crate) fn load_best<M: Module>(&self, model: M) -> Result<M, TrainError> {
        load_parameters(model, &SafetensorsFile::open(&self.best_path())?)
    }
}

fn parameter_tensors<M: Module>(model: &M) -> Vec<TensorSource<'static>> {
    let mut tensors = Vec::new();
    parameters::visit(model, &mut |parameter| {
        // A handle, not a copy: the elements are read when their turn to be written comes.
        let value = parameter.value;
        let shape = parameter.shape.to_vec();
        tensors.push(TensorSource::new(
            format!("parameter.{}", parameter.path),
            lapidary_models::checkpoint::Dtype::F32,
            shape,
            move |writer| {
                let bytes: Vec<u8> = parameters::elements(value).into_iter().flat_map(f32::to_le_bytes).collect();
                writer.write_all(&bytes)
            },
        ));
    });
    tensors
}

fn load_parameters<M: Module>(model: M, file: &SafetensorsFile) -> Result<M, TrainError> {
    let mut failed = None;
    let model = parameters::map(model, &mut |parameter| {
        let elements = parameter.shape.iter().product::<usize>();
        match flat(file, &format!("parameter.{}", parameter.path), elements, &parameter.value.device()) {
            Ok(value) => value,
            Err(error) => {
                failed.get_or_insert(error);
                parameter.value
            }
        }
    });
    failed.map_or(Ok(model), Err)
}

fn flat(file: &SafetensorsFile, name: &str, elements: usize, device: &Device) -> Result<Tensor<1>, TrainError> {
    let tensor = file.tensor(name)?;
    if tensor.data.len() != elements {
        let reason = format!("{name} has {} elements, the model has {elements}", tensor.data.len());
        return Err(TrainError::State { path: file.path().to_owned(), reason });
    }
    Ok(Tensor::from_data(TensorData::new(tensor.data, [elements]), device))
}
