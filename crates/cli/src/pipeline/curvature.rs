//! The second stage: how sharply the loss is curved along each block.

use burn::module::Module;
use lapidary_curvature::problem::ClassifiedExamples;
use lapidary_curvature::{Difference, Hessian, LayerSensitivity, PowerOptions, Selection, Surface, top_eigenvalue};
use lapidary_data::{Batch, Encoded};
use lapidary_kernels::rng::Stream;
use lapidary_models::Classifier;
use lapidary_models::checkpoint::atomic_write;
use lapidary_train::{Progress, TrainError};
use serde::{Deserialize, Serialize};

use super::finetune::{Checkpointed, reload};
use super::{ModelSource, Run};
use crate::stage::{Inputs, Stage};

/// The seed of shuffles and start vectors is the run's; this keeps them apart from those of training.
const STREAM: u64 = 0x6375_7276;

/// One top eigenvalue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Which sample of the training rows.
    pub sample: usize,
    /// Which block.
    pub block: usize,
    /// Rayleigh quotient.
    pub value: f64,
    /// `‖Hv − λv‖ / |λ|`.
    pub residual: f64,
    /// Products made.
    pub iterations: usize,
    /// Whether value and residual are within the tolerance.
    pub converged: bool,
    /// The finite-difference step and its estimated error.
    pub difference: Difference,
}

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
    let partial = stage.path().join("eigenvalues.json");
    let (mut measured, before): (Vec<Measured>, f64) = match std::fs::read(&partial) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => (Vec::new(), 0.0),
    };
    let begun = std::time::Instant::now();

    let model = reload(source, &finetuned.folder, &run.device.clone().autodiff())?;
    let plain = model.valid();
    let blocks = plain.blocks();
    let samples = samples(run, seed);
    let total = samples.len() * blocks;
    let mut progress = Progress::new(&format!("seed {seed} curvature"), total as u64, measured.len() as u64);
    for (number, rows) in samples.iter().enumerate() {
        if measured.len() >= (number + 1) * blocks {
            continue;
        }
        let mut sample = ClassifiedExamples::new(batches(rows, settings.batch_size, run));
        for block in 0..blocks {
            let place = number * blocks + block;
            if measured.len() <= place {
                sample.advance(&plain, block);
                let prefix = S::Model::block_path(block);
                let selection = Selection::of(&model, |path| path.starts_with(&prefix))?;
                let surface = Surface::new(model.clone(), &sample, selection)?;
                // A step that was settled on one sample serves the others: same block, same scale.
                let settled = measured.iter().find(|other| other.block == block).map(|other| other.difference);
                let mut hessian = Hessian::new(surface, settled);
                let options = PowerOptions {
                    iterations: settings.iterations,
                    tolerance: settings.tolerance,
                    seed: seed.wrapping_add(STREAM),
                };
                let eigen = top_eigenvalue(&mut hessian, &options, &mut |step| {
                    let message = format!(
                        "block {block}, sample {number}: λ {:.3} after {} products",
                        step.value, step.iteration
                    );
                    progress.set(place as u64, &message);
                })?;
                let difference = hessian.difference().unwrap_or(Difference { step: 0.0, error: 0.0 });
                measured.push(Measured {
                    sample: number,
                    block,
                    value: eigen.value,
                    residual: eigen.residual,
                    iterations: eigen.iterations,
                    converged: eigen.converged,
                    difference,
                });
                let so_far = (&measured, before + begun.elapsed().as_secs_f64());
                let text = serde_json::to_vec(&so_far)?;
                atomic_write(&partial, |writer| writer.write_all(&text))?;
                if run.interrupt.raised() {
                    let (step, total) = (measured.len() as u64, total as u64);
                    return Err(TrainError::Interrupted { step, total }.into());
                }
            }
        }
    }
    progress.finish("done");
    let layers = (0..blocks)
        .map(|block| {
            let values = measured.iter().filter(|one| one.block == block).map(|one| one.value).collect();
            LayerSensitivity::new(block, values)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let done = Curvature { layers, measured, seconds: before + begun.elapsed().as_secs_f64() };
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

fn batches(rows: &[&Encoded], batch_size: usize, run: &Run) -> Vec<Batch> {
    rows.chunks(batch_size.max(1)).map(|rows| Batch::collate(rows, run.examples.tokenizer.pad_id())).collect()
}
