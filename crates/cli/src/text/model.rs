//! What all trainings of a text recipe do with a model: its sizes, its objective, its checkpoint.

use std::path::Path;

use anyhow::Context;
use lapidary_data::Tokenizer;
use lapidary_models::Pass;
use lapidary_models::checkpoint::{FolderContents, TensorSource, write_folder};
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};
use lapidary_models::load::export;
use lapidary_models::objective::{Autoregressive, Denoising, Objective, TextBatch, TextObjective};
use lapidary_train::TrainError;

use super::prompt::{TASK, TaskForm};
use crate::recipe::{DecoderSettings, Encoding, ObjectiveName, Task};

/// The sizes that a recipe gives.
pub fn config(model: &DecoderSettings, vocabulary: usize) -> DecoderConfig {
    DecoderConfig {
        vocabulary,
        positions: model.positions,
        position_encoding: match model.position_encoding {
            Encoding::Rotary => PositionEncoding::ROTARY,
            Encoding::Learned => PositionEncoding::Learned,
        },
        width: model.width,
        heads: model.heads,
        shifted_heads: model.shifted_heads,
        feed_forward: model.feed_forward,
        blocks: model.blocks,
        self_conditioning: model.self_conditioning,
        shifted_canvas: model.shifted_canvas,
    }
}

pub fn denoising(unroll: &[f64], config: &DecoderConfig) -> Denoising {
    Denoising {
        weights: unroll.iter().map(|weight| *weight as f32).collect(),
        vocabulary: config.vocabulary,
        shifted: config.shifted_canvas,
    }
}

/// `prompts`: whether those count where text is written token after token.
pub fn objective(name: ObjectiveName, prompts: bool, denoising: &Denoising) -> TextObjective {
    let autoregressive = Autoregressive { prompts };
    match name {
        ObjectiveName::Autoregressive => TextObjective::Autoregressive(autoregressive),
        ObjectiveName::Denoising => TextObjective::Denoising(denoising.clone()),
        ObjectiveName::Both => TextObjective::Both(autoregressive, denoising.clone()),
    }
}

/// Nats a target.
pub fn mean_loss(model: &Decoder, objective: &TextObjective, batches: &[TextBatch]) -> Result<f64, TrainError> {
    let (mut sum, mut targets) = (0.0, 0);
    for batch in batches {
        let loss = objective.loss(model, batch, &Pass::evaluation(), 1.0)?;
        sum += f64::from(loss.into_scalar::<f32>());
        targets += objective.targets(batch);
    }
    Ok(sum / targets.max(1) as f64)
}

/// The key of `config.json` that says what a model was trained for.
pub const OBJECTIVE: &str = "training_objective";

/// What a checkpoint has beside its tensors.
pub struct Saved<'a> {
    pub config: &'a DecoderConfig,
    pub objective: ObjectiveName,
    /// Of a model that was fine-tuned on one.
    pub task: Option<&'a Task>,
    pub tokenizer: &'a Tokenizer,
    /// For people.
    pub card: String,
}

/// Writes the checkpoint, with its tokenizer and what it was trained for.
pub fn save(model: &Decoder, saved: &Saved, path: &Path) -> anyhow::Result<()> {
    let tensors =
        export(model).into_iter().map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)).collect();
    let mut config = saved.config.to_json();
    config[OBJECTIVE] = serde_json::to_value(saved.objective)?;
    if let Some(task) = saved.task {
        config[TASK] = serde_json::to_value(TaskForm::from(task))?;
    }
    let config = config.as_object().context("a config is an object")?;
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: &saved.card })?;
    saved.tokenizer.save(path)?;
    Ok(())
}
