//! A checkpoint folder: `config.json` and one or several safetensors files seen as one set of tensors.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::config::read_json;
use super::error::printable;
use super::packed::QuantizationConfig;
use super::{CheckpointError, Config, SafetensorsFile, TensorF32, TensorInfo};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// An open checkpoint folder. Tensors stay on disk until they are asked for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    files: Vec<SafetensorsFile>,
    /// The file, by its place in `files`, that holds each tensor.
    places: BTreeMap<String, usize>,
}

impl Checkpoint {
    /// Opens a folder, reads `config.json` and checks the header of every safetensors file. As in `transformers`, a
    /// `model.safetensors` goes before an index of shards.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let about = path.metadata().map_err(CheckpointError::read(path))?;
        if !about.is_dir() {
            return Err(CheckpointError::folder(path, "is not a folder; a checkpoint is a folder with config.json"));
        }
        let config = Config::read(&path.join("config.json"))?;
        let (files, places) = if path.join(SINGLE).exists() {
            let file = SafetensorsFile::open(&path.join(SINGLE))?;
            let places = file.header().tensors.iter().map(|info| (info.name.clone(), 0)).collect();
            (vec![file], places)
        } else if path.join(INDEX).exists() {
            open_shards(path)?
        } else {
            let reason = format!("has neither {SINGLE} nor {INDEX}; other formats must be converted to safetensors");
            return Err(CheckpointError::folder(path, reason));
        };
        Ok(Self { path: path.to_owned(), config, files, places })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The safetensors files: one, or the shards.
    pub fn files(&self) -> &[SafetensorsFile] {
        &self.files
    }

    /// Names of all stored tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Descriptions of all stored tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.places.iter().filter_map(|(name, &file)| self.files[file].info(name))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The description of a stored tensor.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.file(name)?.info(name).ok_or_else(|| self.missing(name))
    }

    /// A tensor of F32, F16, BF16 or F64 as `f32`.
    pub fn tensor(&self, name: &str) -> Result<TensorF32, CheckpointError> {
        self.file(name)?.tensor(name)
    }

    /// [`tensor`](Self::tensor), which must have this shape.
    pub fn tensor_of_shape(&self, name: &str, shape: &[usize]) -> Result<TensorF32, CheckpointError> {
        // Checked before reading: a tensor of the wrong shape may also be much larger than the right one.
        let found = &self.info(name)?.shape;
        if found != shape {
            let reason = format!("has shape {found:?}, the model needs {shape:?}");
            return Err(CheckpointError::tensor(self.file(name)?.path(), name, reason));
        }
        self.tensor(name)
    }

    /// A tensor's bytes as stored: little-endian, row-major.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        self.file(name)?.bytes(name)
    }

    /// How the packed tensors are to be read, or `None` for a checkpoint without any. Another program's
    /// `quantization_config` is an error: its tensors would be read as something they are not.
    pub fn quantization(&self) -> Result<Option<QuantizationConfig>, CheckpointError> {
        QuantizationConfig::of(&self.config)
    }

    /// The file that holds a tensor.
    pub(crate) fn file(&self, name: &str) -> Result<&SafetensorsFile, CheckpointError> {
        self.places.get(name).map(|&file| &self.files[file]).ok_or_else(|| self.missing(name))
    }

    /// The error for a tensor that is not here, with a name that differs from it only in a prefix if there is one.
    fn missing(&self, name: &str) -> CheckpointError {
        let prefixed = |one: &str, other: &str| one.strip_suffix(other).is_some_and(|prefix| prefix.ends_with('.'));
        let nearest = self.names().find(|known| prefixed(known, name) || prefixed(name, known));
        CheckpointError::MissingTensor {
            path: self.path.clone(),
            tensor: printable(name),
            nearest: nearest.map(printable),
        }
    }
}

type Shards = (Vec<SafetensorsFile>, BTreeMap<String, usize>);

/// Opens the shards that the index names. Index and shards must agree on every tensor: a disagreement means that files
/// of two checkpoints were mixed.
fn open_shards(folder: &Path) -> Result<Shards, CheckpointError> {
    let index = folder.join(INDEX);
    let bad = |reason: String| CheckpointError::Index { path: index.clone(), reason };
    let json = read_json(&index)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| bad("has no object `weight_map`".to_owned()))?;

    let mut files: Vec<SafetensorsFile> = Vec::new();
    let mut opened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (name, shard) in map {
        let shard = shard.as_str().ok_or_else(|| bad(format!("the file of `{}` is not a string", printable(name))))?;
        let place = match opened.get(shard) {
            Some(&place) => place,
            None => {
                let relative = Path::new(shard);
                let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
                if shard.is_empty() || !inside {
                    return Err(bad(format!("names the file `{}`, which is outside the folder", printable(shard))));
                }
                let path = folder.join(relative);
                if !path.is_file() {
                    let (name, shard) = (printable(name), printable(shard));
                    return Err(bad(format!("tensor `{name}` should be in `{shard}`, and there is no such file")));
                }
                files.push(SafetensorsFile::open(&path)?);
                opened.insert(shard, files.len() - 1);
                files.len() - 1
            }
        };
        if files[place].info(name).is_none() {
            return Err(bad(format!("`{}` should have tensor `{}` and has not", printable(shard), printable(name))));
        }
        places.insert(name.clone(), place);
    }
    for (place, file) in files.iter().enumerate() {
        if let Some(stray) = file.header().tensors.iter().find(|info| places.get(&info.name) != Some(&place)) {
            let name = printable(&stray.name);
            return Err(bad(format!("does not list tensor `{name}` for {}, which has it", file.path().display())));
        }
    }
    Ok((files, places))
}
