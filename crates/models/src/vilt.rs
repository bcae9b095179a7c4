//! A reader of one picture and one text, after ViLT (2102.03334): patches and words enter one trunk side by side, and
//! a classifier reads the first token of the text.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_data::{Batch, Picture};
use lapidary_kernels::mask::Mask;
use lapidary_ops as ops;
use serde_json::{Value, json};

use crate::checkpoint::Config;
use crate::classifier::{Checkpointed, Classifier, Matrix};
use crate::error::ModelError;
use crate::layer::{Embedding, Initializer, Linear, Norm};
use crate::pass::Pass;
use crate::trunk::{Trunk, TrunkConfig};

/// Colour channels of a picture.
const CHANNELS: usize = 3;

/// Sizes of the reader.
#[derive(Clone, Debug, PartialEq)]
pub struct ViltConfig {
    /// `V`.
    pub vocabulary: usize,
    /// Longest text, in tokens.
    pub positions: usize,
    /// Side of the picture in pixels.
    pub image: usize,
    /// Side of a patch in pixels, a divisor of the picture's.
    pub patch: usize,
    /// `D`.
    pub width: usize,
    /// `H`.
    pub heads: usize,
    /// `F`.
    pub feed_forward: usize,
    /// Number of blocks.
    pub blocks: usize,
    /// Names of the classes.
    pub labels: Vec<String>,
}

impl ViltConfig {
    /// `P`, the patches of a picture.
    pub fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// A missing key, a wrong type, sizes that do not divide.
    pub fn read(config: &Config) -> Result<Self, ModelError> {
        let labels = config.optional_struct::<Vec<String>>("labels")?.unwrap_or_default();
        let read = Self {
            vocabulary: config.usize("vocab_size")?,
            positions: config.usize("max_position_embeddings")?,
            image: config.usize("image_size")?,
            patch: config.usize("patch_size")?,
            width: config.usize("hidden_size")?,
            heads: config.usize("num_attention_heads")?,
            feed_forward: config.usize("intermediate_size")?,
            blocks: config.usize("num_hidden_layers")?,
            labels,
        };
        let divides = |key, part: usize, whole: usize| {
            if part == 0 || whole == 0 || !whole.is_multiple_of(part) {
                return Err(config.invalid(key, format!("{part} does not divide {whole}")));
            }
            Ok(())
        };
        for (key, size) in [
            ("vocab_size", read.vocabulary),
            ("max_position_embeddings", read.positions),
            ("intermediate_size", read.feed_forward),
            ("num_hidden_layers", read.blocks),
            ("labels", read.labels.len()),
        ] {
            if size == 0 {
                return Err(config.invalid(key, "must be at least 1").into());
            }
        }
        divides("patch_size", read.patch, read.image)?;
        divides("num_attention_heads", read.heads, read.width)?;
        Ok(read)
    }

    /// Its `config.json`.
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["LapidaryVilt"],
            "model_type": "lapidary-vilt",
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "image_size": self.image,
            "patch_size": self.patch,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.blocks,
            "labels": self.labels,
        })
    }
}

/// Vectors of words and patches.
#[derive(Module, Debug)]
pub struct ViltEmbeddings {
    word: Embedding,
    position: Embedding,
    patch: Linear,
    patch_position: Embedding,
}

/// The reader.
#[derive(Module, Debug)]
pub struct Vilt {
    embeddings: ViltEmbeddings,
    trunk: Trunk,
    norm: Norm,
    pooler: Linear,
    classifier: Linear,
    #[module(skip)]
    sizes: [usize; 3],
}

impl Vilt {
    /// Fresh weights on `device`.
    pub fn new(config: &ViltConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, 0.05, device);
        let trunk = TrunkConfig::new(config.width, config.heads, config.feed_forward, config.blocks);
        Self {
            embeddings: ViltEmbeddings {
                word: Embedding::new(config.vocabulary, config.width, init),
                position: Embedding::new(config.positions, config.width, init),
                patch: Linear::new(config.patch.pow(2) * CHANNELS, config.width, true, init),
                patch_position: Embedding::new(config.patches(), config.width, init),
            },
            trunk: Trunk::new(&trunk, init),
            norm: Norm::layer(config.width, 1e-5, init),
            pooler: Linear::new(config.width, config.width, true, init),
            classifier: Linear::new(config.width, config.labels.len(), true, init),
            sizes: [config.image, config.patch, config.blocks],
        }
    }

    /// `P`, the patches of a picture.
    fn patches(&self) -> usize {
        let [image, patch, _] = self.sizes;
        (image / patch).pow(2)
    }

    /// The pixels of all pictures, patch after patch, `[B·P, patch²·3]`, in -1 to 1.
    fn pixels(&self, pictures: &[impl AsRef<Picture>]) -> Tensor<2> {
        let [image, patch, _] = self.sizes;
        let mut pixels = Vec::with_capacity(pictures.len() * image * image * CHANNELS);
        for picture in pictures {
            let rgb = &picture.as_ref().rgb;
            for top in (0..image).step_by(patch) {
                for left in (0..image).step_by(patch) {
                    for y in top..top + patch {
                        let begin = (y * image + left) * CHANNELS;
                        pixels.extend(
                            rgb[begin..begin + patch * CHANNELS].iter().map(|&value| f32::from(value) / 127.5 - 1.0),
                        );
                    }
                }
            }
        }
        let shape = [pictures.len() * self.patches(), patch * patch * CHANNELS];
        let weight = self.embeddings.patch.weight.val();
        Tensor::from_data(TensorData::new(pixels, shape), (&weight.device(), weight.dtype()))
    }
}

impl Checkpointed for Vilt {
    fn checkpoint_name(path: &str) -> String {
        path.to_owned()
    }

    fn known_extra(_name: &str) -> bool {
        false
    }

    fn may_be_fresh(_name: &str) -> bool {
        false
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        let mut matrices = Vec::new();
        for (block, layer) in self.trunk.blocks.iter_mut().enumerate() {
            for (path, linear) in layer.linears_mut() {
                let name = format!("trunk.blocks.{block}.{path}.weight");
                matrices.push(Matrix { name, block: Some(block), linear });
            }
        }
        for (name, linear) in
            [("embeddings.patch.weight", &mut self.embeddings.patch), ("pooler.weight", &mut self.pooler)]
        {
            matrices.push(Matrix { name: name.into(), block: None, linear });
        }
        matrices
    }
}

impl Classifier for Vilt {
    fn blocks(&self) -> usize {
        self.sizes[2]
    }

    fn mask(&self, batch: &Batch) -> Mask {
        // Patches stand before the text, so that a row's padding is still at its end.
        let lengths: Vec<usize> = batch.lengths.iter().map(|length| self.patches() + length).collect();
        Mask::full().with_lengths(lengths)
    }

    fn embed(&self, batch: &Batch, pass: &Pass) -> Tensor<2> {
        let (rows, length, patches) = (batch.rows, batch.length, self.patches());
        let embeddings = &self.embeddings;
        let count = |n: usize| -> Vec<u32> { (0..rows).flat_map(|_| 0..n as u32).collect() };
        let words = embeddings.word.forward(&batch.ids, pass) + embeddings.position.forward(&count(length), pass); // [B·L, D]
        let picture = embeddings.patch.forward(self.pixels(&batch.images), pass)
            + embeddings.patch_position.forward(&count(patches), pass); // [B·P, D]
        let [_, width] = words.dims();
        let both = Tensor::cat(vec![picture.reshape([rows, patches, width]), words.reshape([rows, length, width])], 1); // [B, P + L, D]
        pass.dropout(both.reshape([rows * (patches + length), width]), u64::MAX)
    }

    fn advance(&self, x: Tensor<2>, blocks: Range<usize>, batch: &Batch, pass: &Pass) -> Tensor<2> {
        self.trunk.forward(x, blocks, batch.rows, &self.mask(batch), pass)
    }

    fn head(&self, x: Tensor<2>, batch: &Batch, pass: &Pass) -> Tensor<2> {
        let length = self.patches() + batch.length;
        let first: Vec<u32> = (0..batch.rows).map(|row| (row * length + self.patches()) as u32).collect();
        let x = self.norm.forward(ops::embedding(x, &first)); // [B, D]
        let pooled = self.pooler.forward(x, pass).tanh();
        self.classifier.forward(pass.dropout(pooled, u64::MAX - 1), pass) // [B, labels]
    }

    fn tables_mut(&mut self) -> Vec<(String, &mut Embedding)> {
        let tables = &mut self.embeddings;
        [("word", &mut tables.word), ("position", &mut tables.position), ("patch_position", &mut tables.patch_position)]
            .into_iter()
            .map(|(path, table)| (format!("embeddings.{path}.weight"), table))
            .collect()
    }
}
