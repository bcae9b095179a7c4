//! The pictures of a recipe: read, divided into those that are trained on, kept and tested on.

use std::path::PathBuf;

use anyhow::ensure;
use burn::tensor::Device;
use lapidary_data::{Augmentation, Normalization, PictureBatch, PictureSet};
use lapidary_models::Pass;
use lapidary_models::objective::{Objective, PictureClassification};
use lapidary_models::resnet::ResNet;
use lapidary_train::TrainError;
use lapidary_train::study::Seen;
use sha2::{Digest, Sha256};

use crate::recipe::{PictureData, PictureRecipe, Roots};

/// The files of a recipe, which are there.
#[derive(Clone, Debug)]
pub struct PictureFiles {
    pub train: PathBuf,
    pub test: PathBuf,
}

impl PictureFiles {
    /// # Errors
    /// One that is missing.
    pub fn find(recipe: &PictureRecipe, roots: &Roots) -> anyhow::Result<Self> {
        Ok(Self { train: roots.data(&recipe.data.train)?, test: roots.data(&recipe.data.test)? })
    }
}

/// Pictures in memory.
pub struct Pictures {
    /// Trained on.
    pub train: PictureSet,
    /// Kept from training: settings and checkpoints are chosen on them.
    pub kept: PictureSet,
    /// Reported on.
    pub test: PictureSet,
    /// Of the training part.
    pub normalization: Normalization,
    /// What training does to a picture.
    pub augmentation: Augmentation,
    /// Of all of them, with their classes: what stages and studies depend on.
    pub digest: String,
}

impl Pictures {
    /// Reads what a recipe names.
    ///
    /// # Errors
    /// What cannot be read, other classes or sizes in the test, fewer pictures than are to be kept.
    pub fn read(recipe: &PictureRecipe, files: &PictureFiles) -> anyhow::Result<Self> {
        let data = &recipe.data;
        let all = PictureSet::read(&files.train, &data.train_part)?;
        let test = PictureSet::read(&files.test, &data.test_part)?;
        ensure!(
            all.classes == test.classes,
            "the training part has the classes {:?}, the test {:?}",
            all.classes,
            test.classes
        );
        let sizes = [&all, &test].map(|set| (set.height, set.width));
        ensure!(
            sizes[0] == sizes[1],
            "the training part has pictures of {:?}, the test of {:?} pixels",
            sizes[0],
            sizes[1]
        );
        let classes = all.classes.len();
        let each = |count: usize, key: &str| {
            ensure!(count >= classes, "data.{key} is {count}, less than one for each of {classes} classes");
            Ok(count / classes)
        };
        let kept_each = each(data.validation, "validation")?;
        let train_each = data.pictures.map(|pictures| each(pictures, "pictures")).transpose()?.unwrap_or(usize::MAX);
        let (mut train, mut kept) = (Vec::new(), Vec::new());
        for class in 0..classes {
            let of_class: Vec<usize> = (0..all.len()).filter(|&i| all.labels[i] as usize == class).collect();
            let name = &all.classes[class];
            ensure!(
                of_class.len() > kept_each,
                "class {name} has {} pictures, and {kept_each} of each are kept from training; lower data.validation",
                of_class.len()
            );
            let (rest, last) = of_class.split_at(of_class.len() - kept_each);
            ensure!(
                train_each == usize::MAX || rest.len() >= train_each,
                "data.pictures wants {train_each} pictures of each class, and {name} has {}; lower it",
                rest.len()
            );
            train.extend(&rest[..rest.len().min(train_each)]);
            kept.extend(last);
        }
        let (train, kept) = (all.subset(&train), all.subset(&kept));
        Ok(Self {
            normalization: Normalization::of(&train),
            augmentation: Augmentation { padding: data.padding, mirror: data.mirror },
            digest: digest([&train, &kept, &test]),
            train,
            kept,
            test,
        })
    }

    /// Mean loss in nats, and accuracy in per cent, on `count` pictures of a set, from all over it, as they are.
    ///
    /// # Errors
    /// Pictures that the network does not fit.
    pub fn look(&self, model: &ResNet, set: &PictureSet, count: usize, pass: &Pass) -> Result<Seen, TrainError> {
        const TOGETHER: usize = 250;
        let rows: Vec<usize> = (0..count).map(|i| i * set.len() / count).collect();
        let (mut loss, mut right) = (0.0, 0);
        // A set is sorted by class: each part has pictures of all of them, since norms may take its statistics.
        let parts = count.div_ceil(TOGETHER);
        for part in 0..parts {
            let rows: Vec<usize> = rows.iter().skip(part).step_by(parts).copied().collect();
            let batch = PictureBatch::plain(set, &rows, &self.normalization);
            let share = PictureClassification.loss(model, &batch, pass, 1.0)?;
            loss += f64::from(share.into_scalar::<f32>());
            let logits = PictureClassification::logits(model, &batch, pass);
            let classes = logits.dims()[1];
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            for (logits, label) in logits.chunks_exact(classes).zip(&batch.labels) {
                let most = (0..classes).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                right += usize::from(most == Some(*label as usize));
            }
        }
        let n = count.max(1) as f64;
        Ok(Seen { loss: loss / n, accuracy: 100.0 * right as f64 / n })
    }

    /// All of a set, with the statistics that the network has of its training.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn evaluate(&self, model: &ResNet, set: &PictureSet) -> Result<Seen, TrainError> {
        self.look(model, set, set.len(), &Pass::evaluation())
    }
}

/// Of the contents of sets, wherever they were read from.
fn digest(sets: [&PictureSet; 3]) -> String {
    let mut digest = Sha256::new();
    for set in sets {
        let sizes = [set.len(), set.height, set.width, set.classes.len()].map(|size| (size as u64).to_le_bytes());
        sizes.iter().for_each(|size| digest.update(size));
        set.classes.iter().for_each(|name| digest.update(format!("{name}\n")));
        set.labels.iter().for_each(|label| digest.update(label.to_le_bytes()));
        digest.update(&set.pixels);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The settings of a recipe's data without where it lies: the pictures themselves count.
pub fn settings(recipe: &PictureRecipe, pictures: &Pictures) -> serde_json::Value {
    let PictureData { padding, mirror, .. } = recipe.data;
    serde_json::json!({ "pictures": pictures.digest, "padding": padding, "mirror": mirror })
}

/// A fresh network for a recipe.
///
/// # Errors
/// A number of layers that cannot be.
pub fn fresh(recipe: &PictureRecipe, pictures: &Pictures, seed: u64, device: &Device) -> anyhow::Result<ResNet> {
    let config = recipe.model.config(pictures.train.classes.len())?;
    Ok(ResNet::new(&config, seed, &device.clone().autodiff()))
}
