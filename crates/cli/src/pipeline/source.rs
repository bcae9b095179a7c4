//! Where a run's models come from and what their checkpoints say of them.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use burn::tensor::Device;
use lapidary_data::Encoded;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::load::{Unshared, load_for_task};
use lapidary_models::vilt::{Vilt, ViltConfig};
use lapidary_models::{Classifier, ModelError, Task};
use serde_json::{Map, Value};

use super::Examples;

/// Builds models of one architecture.
pub trait ModelSource {
    /// The architecture.
    type Model: Classifier;

    /// The model before fine-tuning; whatever begins fresh is drawn from the seed. Lives on the device given.
    ///
    /// # Errors
    /// A checkpoint that cannot be read or does not fit.
    fn build(&self, seed: u64, device: &Device) -> Result<(Self::Model, Unshared), ModelError>;
    /// `config.json` of a checkpoint of it.
    fn config(&self) -> Map<String, Value>;
    /// The pretrained checkpoint, if it begins from one: files that its outcome depends on.
    fn folder(&self) -> Option<&Path>;
    /// Whether the model has a vector for each of the examples' tokens and places.
    ///
    /// # Errors
    /// It has not.
    fn check(&self, examples: &Examples) -> anyhow::Result<()>;
}

/// A BERT from a Hugging Face folder.
pub struct BertSource {
    folder: PathBuf,
    checkpoint: Checkpoint,
    config: BertConfig,
}

impl BertSource {
    /// Opens a folder, for a task that may be another than that of its checkpoint.
    ///
    /// # Errors
    /// A folder that is missing, damaged, or holds no BERT.
    pub fn open(folder: &Path, task: &Task) -> Result<Self, ModelError> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = BertConfig::read(checkpoint.config(), Some(task))?;
        config.check_size(&checkpoint)?;
        Ok(Self { folder: folder.to_owned(), checkpoint, config })
    }
}

impl ModelSource for BertSource {
    type Model = Bert;

    fn build(&self, seed: u64, device: &Device) -> Result<(Bert, Unshared), ModelError> {
        load_for_task(Bert::new(&self.config, seed, device), &self.checkpoint)
    }
    fn config(&self) -> Map<String, Value> {
        object(self.config.to_json())
    }
    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }
    fn check(&self, examples: &Examples) -> anyhow::Result<()> {
        examples.check(self.config.vocabulary, self.config.positions, self.config.token_types)
    }
}

/// A reader of pictures and questions that begins from scratch.
pub struct ViltSource {
    config: ViltConfig,
}

impl ViltSource {
    /// Models of these sizes.
    pub fn new(config: ViltConfig) -> Self {
        Self { config }
    }
}

impl ModelSource for ViltSource {
    type Model = Vilt;

    fn build(&self, seed: u64, device: &Device) -> Result<(Vilt, Unshared), ModelError> {
        Ok((Vilt::new(&self.config, seed, device), Unshared::default()))
    }
    fn config(&self) -> Map<String, Value> {
        object(self.config.to_json())
    }
    fn folder(&self) -> Option<&Path> {
        None
    }
    fn check(&self, examples: &Examples) -> anyhow::Result<()> {
        // It has no segment vectors: what type a token has makes no difference.
        examples.check(self.config.vocabulary, self.config.positions, usize::MAX)?;
        let side = self.config.image as u32;
        let fits = |row: &Encoded| row.image.as_ref().is_some_and(|image| (image.width, image.height) == (side, side));
        ensure!(examples.rows().all(fits), "every example needs a picture of {side} x {side} pixels for this model");
        Ok(())
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
