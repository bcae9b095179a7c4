//! BERT against `transformers`: the folders that `oracles/bert.py` made, and what becomes of them.

mod batch;
mod config;
mod export;
mod faults;
mod golden;
mod packed;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use lapidary_data::Batch;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::{Checkpoint, FolderContents, TensorSource, write_folder};
use lapidary_models::load::{NamedTensor, Unshared, load};
use lapidary_models::{Classifier, ModelError, Pass};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value};

const GOLDEN: [&str; 5] = ["bert-a", "bert-b", "bert-c", "bert-spans", "bert-tags"];

/// A checkpoint, and what `transformers` computed with it.
struct Golden {
    path: PathBuf,
    expected: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let expected = fs::read(path.join("expected.safetensors")).expect("readable");
        Self { path, expected }
    }

    /// What was computed with weights and input alone.
    fn expected(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.expected).expect("a safetensors file")
    }

    fn view(&self, name: &str) -> TensorView<'_> {
        self.expected().tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.view(name).data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        self.view(name).data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as u32).collect()
    }

    /// The input, with targets of 0 where the file has none.
    fn batch(&self) -> Batch {
        let &[rows, length] = self.view("input_ids").shape() else { panic!("ids are a matrix") };
        let visible = self.integers("attention_mask");
        Batch {
            rows,
            length,
            ids: self.integers("input_ids"),
            types: self.integers("token_type_ids"),
            lengths: visible.chunks(length).map(|row| row.iter().sum::<u32>() as usize).collect(),
            targets: match self.expected().tensor("labels") {
                Ok(_) => {
                    self.view("labels").data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
                }
                Err(_) => vec![0; rows],
            },
            images: Vec::new(),
        }
    }

    fn config(&self) -> BertConfig {
        let checkpoint = Checkpoint::open(&self.path).expect("a checkpoint");
        BertConfig::read(checkpoint.config(), None).expect("a BERT")
    }

    fn model(&self, device: &Device) -> Bert {
        let (model, unshared) = read(&self.path, device).expect("a BERT");
        assert_eq!(unshared, Unshared::default());
        model
    }

    #[track_caller]
    fn assert_close(&self, actual: &[f32], name: &str) {
        let expected = self.floats(name);
        assert_eq!(actual.len(), expected.len(), "{name}");
        for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!(
                (actual - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                "{name}[{i}] is {actual}, not {expected}"
            );
        }
    }
}

/// The BERT of a folder.
fn read(path: &Path, device: &Device) -> Result<(Bert, Unshared), ModelError> {
    let checkpoint = Checkpoint::open(path)?;
    let config = BertConfig::read(checkpoint.config(), None)?;
    load(Bert::new(&config, 1, device), &checkpoint)
}

fn write(path: &Path, config: &Map<String, Value>, tensors: Vec<TensorSource<'_>>) {
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: "" }).expect("written");
}

fn object(config: &BertConfig) -> Map<String, Value> {
    config.to_json().as_object().expect("an object").clone()
}

fn sources(tensors: Vec<NamedTensor>) -> Vec<TensorSource<'static>> {
    tensors.into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect()
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

fn logits(model: &Bert, batch: &Batch) -> Vec<f32> {
    values(model.logits(batch, &Pass::evaluation()))
}
