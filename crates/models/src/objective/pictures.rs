//! Cross-entropy over the classes of pictures.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_data::PictureBatch;
use lapidary_ops as ops;

use super::{Objective, draw_classes};
use crate::error::ModelError;
use crate::layer::Pictures;
use crate::pass::Pass;
use crate::resnet::ResNet;
use crate::taps::Positions;

/// One class for each picture.
#[derive(Clone, Copy, Debug, Default)]
pub struct PictureClassification;

impl PictureClassification {
    /// `[pictures, classes]`.
    pub fn logits(model: &ResNet, batch: &PictureBatch, pass: &Pass) -> Tensor<2> {
        let PictureBatch { pixels, labels, height, width } = batch;
        let data = TensorData::new(pixels.clone(), [pixels.len() / 3, 3]);
        let device = model.devices().pop().unwrap_or_else(Device::flex);
        let x = Tensor::<2>::from_data(data, &device);
        model.logits(Pictures { x, batch: labels.len(), height: *height, width: *width }, pass)
    }
}

impl Objective<ResNet> for PictureClassification {
    type Batch = PictureBatch;

    fn loss(
        &self,
        model: &ResNet,
        batch: &PictureBatch,
        pass: &Pass,
        normalizer: f32,
    ) -> Result<Tensor<1>, ModelError> {
        let targets: Vec<i64> = batch.labels.iter().map(|label| i64::from(*label)).collect();
        Ok(ops::cross_entropy(Self::logits(model, batch, pass), &targets, normalizer)?)
    }

    fn targets(&self, batch: &PictureBatch) -> usize {
        batch.labels.len()
    }

    fn positions(&self, _: &ResNet, batch: &PictureBatch) -> Positions {
        Positions { examples: batch.labels.len(), lengths: None }
    }

    fn sampled(
        &self,
        model: &ResNet,
        batch: &PictureBatch,
        pass: &Pass,
        draw: (u64, u64),
    ) -> Result<Option<PictureBatch>, ModelError> {
        let labels = draw_classes(Self::logits(model, batch, pass), draw);
        Ok(Some(PictureBatch { labels, ..batch.clone() }))
    }
}
