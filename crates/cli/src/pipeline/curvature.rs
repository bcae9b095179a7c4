//! The second stage: how sharply the loss is curved along each block.

use burn::module::Module;
use lapidary_curvature::problem::ClassifiedExamples;
use lapidary_curvature::{LayerSensitivity, PowerOptions};
use lapidary_data::{Batch, Encoded};
use lapidary_kernels::rng::Stream;
use lapidary_models::Classifier;
use serde::{Deserialize, Serialize};

use super::finetune::{Checkpointed, reload};
use super::{ModelSource, Run};
use crate::curvature::{Blocks, Measured, Measuring, sensitivities};
use crate::stage::{Inputs, Stage};

/// The seed of shuffles and start vectors is the run's; this keeps them apart from those of training.
const STREAM: u64 = 0x6375_7276;

/// What the stage gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curvature {
    /// Ω by block.
    pub layers: Vec<LayerSensitivity>,
    /// Every eigenvalue.
    pub measured: Vec<Measured>,
    /// Seconds, over all resumptions.
    pub seconds: f64,
}

/// Measures the top Hessian eigenvalue of every block on disjoint samples of the training rows, or finds it done.
pub fn curvature<S: ModelSource>(
    run: &Run,
    source: &S,
    seed: u64,
    finetuned: &Checkpointed,
) -> anyhow::Result<(Stage, Curvature)> {
    let settings = &run.recipe.curvature;
    let inputs = Inputs::new(&serde_json::json!({ "curvature": settings, "seed": seed }))?
        .on(run.device)
        .after(&finetuned.stage);
    let stage = run.folder.stage(&format!("seed{seed}/curvature"), &inputs)?;
    if let Some(done) = stage.done::<Curvature>()? {
        tracing::info!("{}: done before", stage.name());
        return Ok((stage, done));
    }
    stage.begin()?;
    let model = reload(source, &finetuned.folder, &run.device.clone().autodiff())?;
    let plain = model.valid();
    let blocks = plain.blocks();
    let (samples, pad_id) = (samples(run, seed), run.examples.tokenizer.pad_id()?);
    let blocks = Blocks {
        model: &model,
        blocks,
        path: &S::Model::block_path,
        samples: samples.len(),
        problem: &|sample| Ok(ClassifiedExamples::new(batches(&samples[sample], settings.batch_size, pad_id))),
        advance: &|problem: &mut ClassifiedExamples, block| problem.advance(&plain, block),
    };
    let (measured, seconds) = blocks.measure(&Measuring {
        title: &format!("seed {seed} curvature"),
        options: PowerOptions {
            iterations: settings.iterations,
            tolerance: settings.tolerance,
            seed: seed.wrapping_add(STREAM),
        },
        partial: &stage.path().join("eigenvalues.json"),
        interrupt: run.interrupt,
    })?;
    let done = Curvature { layers: sensitivities(&measured, blocks.blocks)?, measured, seconds };
    stage.finish(&done)?;
    Ok((stage, done))
}

/// Disjoint samples of the training rows.
fn samples<'a>(run: &Run<'a>, seed: u64) -> Vec<Vec<&'a Encoded>> {
    let settings = &run.recipe.curvature;
    let train = &run.examples.train;
    let mut order: Vec<usize> = (0..train.len()).collect();
    Stream::new(seed, STREAM).shuffle(&mut order);
    let examples = settings.examples.min(train.len() / settings.samples.max(1)).max(1);
    order
        .chunks(examples)
        .take(settings.samples)
        .map(|rows| {
            let mut rows: Vec<&Encoded> = rows.iter().map(|&row| &train[row]).collect();
            // By length: the mean over a sample does not depend on the order, the padding does.
            rows.sort_by_key(|row| row.ids.len());
            rows
        })
        .collect()
}

fn batches(rows: &[&Encoded], batch_size: usize, pad_id: u32) -> Vec<Batch> {
    rows.chunks(batch_size.max(1)).map(|rows| Batch::collate(rows, pad_id)).collect()
}
