//! Checkpoints: Hugging Face folders, read and written without any tensor library.
//!
//! A checkpoint is a folder with `config.json` and either `model.safetensors` or
//! `model.safetensors.index.json` and the shards it names, beside the tokenizer's files and a model card as
//! `README.md`. A packed checkpoint is the same folder with some tensors stored as low-bit codes and a
//! `quantization_config` in `config.json` that says how to read them (see [`packed`]).
//!
//! Single files of PyTorch are read too ([`TorchFile`]), without running the code that they are.
//!
//! Files come from strangers. Everything a file claims is checked against what it holds before memory is taken for
//! it, a tensor is read only when it is asked for, and every fault is a [`CheckpointError`] that names the file and
//! the tensor.

mod config;
mod dtype;
mod error;
mod folder;
mod header;
pub mod packed;
mod safetensors;
mod summary;
mod torch;
mod write;

pub use config::Config;
pub use dtype::Dtype;
pub use error::CheckpointError;
pub(crate) use error::printable;
pub use folder::Checkpoint;
pub use header::{Header, TensorInfo};
pub use packed::{PackedTensor, QuantizationConfig, QuantizedTensor};
pub use safetensors::{SafetensorsFile, TensorF32};
pub use summary::{Component, ComponentTotal, PackingTotal, Summary, TensorRow};
pub use torch::{TorchFile, TorchTensor};
pub use write::{FolderContents, TensorSource, atomic_write, write_folder, write_safetensors};
