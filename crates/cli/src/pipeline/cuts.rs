//! The third stage: each variant of fewer bits, rounded directly and trained with the rounding in place.

use std::num::NonZeroUsize;

use anyhow::Context;
use burn::module::Module;
use lapidary_data::BatchOptions;
use lapidary_kernels::rng;
use lapidary_models::Classifier;
use lapidary_models::checkpoint::packed::CONFIG_KEY;
use lapidary_models::checkpoint::{
    Checkpoint, Component, FolderContents, QuantizationConfig, Summary, TensorSource, write_folder,
};
use lapidary_models::load::export;
use lapidary_models::objective::Classification;
use lapidary_quant::{
    BitPlan, CutOptions, Method, MixedPrecision, allocate, cut, matrices, megabytes, pack, plan_by_block,
};
use lapidary_train::{AdamWOptions, EpochBatches, MetricsRow, Schedule, TrainOptions, train};
use serde::{Deserialize, Serialize};

use super::evaluate::{Scored, score, validator};
use super::finetune::{Checkpointed, reload};
use super::{Curvature, ModelSource, Run};
use crate::recipe::{Bits, Variant};
use crate::stage::{Inputs, Stage};

/// What one variant gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cut {
    /// Its name.
    pub name: String,
    /// Bits by block.
    pub block_bits: Vec<u32>,
    /// Scores on the test part, weights rounded without training.
    pub direct: Scored,
    /// Scores on the test part of the packed checkpoint that quantization-aware training ended with.
    pub trained: Scored,
    /// The main score on the validation part and its step.
    pub validation: (f64, u64),
    /// Size of the packed checkpoint's tensors, MB of 2^20 bytes.
    pub size_mb: f64,
    /// The same without the tables of vectors.
    pub size_mb_without_embeddings: f64,
    /// Average bits of the cut matrices, ranges included.
    pub average_bits: f64,
    /// Parameters that stay in f32.
    pub dense: Vec<String>,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had held by then.
    #[serde(default)]
    pub peak_rss_bytes: u64,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// Bits of each block by a variant.
pub fn block_bits(variant: &Variant, blocks: usize, curvature: &Curvature) -> anyhow::Result<(Vec<u32>, u32)> {
    Ok(match variant.bits {
        Bits::Uniform(bits) => (vec![bits.into(); blocks], bits.into()),
        Bits::Mixed { low, high } => {
            let high_layers = variant.high_layers.unwrap_or(blocks / 2);
            let mixed = MixedPrecision { low_bits: low.into(), high_bits: high.into(), high_layers };
            // What lies outside the trunk is small and has no Ω: it gets the larger width.
            (allocate(&curvature.layers, &mixed)?, high.into())
        }
    })
}

/// Cuts one variant with one seed, or finds it done.
pub fn cut_variant<S: ModelSource>(
    run: &Run,
    source: &S,
    seed: u64,
    variant: &Variant,
    finetuned: &Checkpointed,
    curvature: (&Stage, &Curvature),
) -> anyhow::Result<Cut> {
    let settings = &run.recipe.quantize;
    let mut inputs = Inputs::new(&serde_json::json!({
        "variant": variant,
        "groups": settings.groups,
        "embedding_bits": settings.embedding_bits,
        "activation_bits": settings.activation_bits,
        "finetune": {
            "precision": run.recipe.finetune.precision,
            "weight_decay": run.recipe.finetune.weight_decay,
            "clip": run.recipe.finetune.clip,
        },
        "seed": seed,
    }))?
    .on(run.device)
    .after(&finetuned.stage);
    if matches!(variant.bits, Bits::Mixed { .. }) {
        inputs = inputs.after(curvature.0);
    }
    let stage = run.folder.stage(&format!("seed{seed}/{}", variant.name), &inputs)?;
    let folder = stage.path().join("model");
    if let Some(done) = stage.done::<Cut>()? {
        tracing::info!("{}: done before, test {:.2} %", stage.name(), done.trained.main.percent);
        return Ok(done);
    }
    stage.begin()?;

    let device = run.device.clone().autodiff();
    let mut model = reload(source, &finetuned.folder, &device)?;
    let blocks = model.blocks();
    let (block_bits, outside) = block_bits(variant, blocks, curvature.1)?;
    let plan = plan_by_block(&mut model, &block_bits, outside, settings.groups)?;
    plan.write(&stage.path().join("plan.toml"))?;
    let options = |method| CutOptions {
        method,
        embedding_bits: settings.embedding_bits.into(),
        activation_bits: (settings.activation_bits < 32).then_some(settings.activation_bits.into()),
    };
    let direct = cut(model.valid(), &plan, &options(Method::MinMax))?;
    let direct = score(&direct, &run.examples.test, run)?;

    let model = cut(model, &plan, &options(Method::LeastSquares))?;
    let batch_size = NonZeroUsize::new(variant.batch_size).context("batch_size of a variant is 0")?;
    let bucket_batches = NonZeroUsize::new(run.recipe.finetune.bucket_batches).unwrap_or(NonZeroUsize::MIN);
    // Another order of the examples than in fine-tuning.
    let order = rng::bits(seed, 1, 0);
    let batches = EpochBatches::new(
        &run.examples.train,
        BatchOptions { batch_size, bucket_batches, seed: order },
        run.examples.tokenizer.pad_id()?,
    )?;
    let steps = variant.steps as u64;
    let evaluate_every = (steps / 4).max(1);
    let train_options = TrainOptions {
        name: format!("seed {seed} {}", variant.name),
        schedule: Schedule::new(variant.learning_rate, 0.1, steps),
        optimizer: AdamWOptions { weight_decay: run.recipe.finetune.weight_decay, ..AdamWOptions::default() }.into(),
        accumulate: 1,
        clip: run.recipe.finetune.clip,
        // Rounding is noise enough.
        dropout: 0.0,
        precision: run.recipe.finetune.precision,
        seed: order,
        evaluate_every,
        save_every: evaluate_every,
        keep: 1,
        noise_scale: false,
        sync_batch_norm: false,
    };
    let mut validate = validator(run);
    let trained = train(
        model,
        &Classification,
        &batches,
        &mut |model| validate(&model.valid()),
        &train_options,
        &stage.path().join("training"),
        run.interrupt,
    )?;
    drop(validate);

    let card = format!(
        "# {}, {}\n\nQuantization-aware training with seed {seed}, {steps} steps; {} groups of rows a matrix, \
         {}-bit embeddings, {}-bit activations. Bits by block: {block_bits:?}.\n",
        run.recipe.name, variant.name, settings.groups, settings.embedding_bits, settings.activation_bits
    );
    let mut cut_model = trained.model.valid();
    let dense = save_packed(&mut cut_model, source, settings.activation_bits, &folder, &card, run)?;
    // What is scored is what was written.
    let written = reload(source, &folder, run.device)?;
    let trained_score = score(&written, &run.examples.test, run)?;
    let summary = Summary::of(&Checkpoint::open(&folder)?)?;
    let shapes: Vec<_> = matrices(&mut cut_model).into_iter().map(|(shape, _)| shape).collect();
    let done = Cut {
        name: variant.name.clone(),
        block_bits,
        direct,
        trained: trained_score,
        validation: trained.best,
        size_mb: megabytes(summary.bytes),
        size_mb_without_embeddings: megabytes(summary.bytes_without(Component::Embeddings)),
        average_bits: average_bits(&plan, &shapes)?,
        dense,
        seconds: trained.seconds,
        peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
        curve: trained.rows,
    };
    stage.finish(&done)?;
    Ok(done)
}

/// Bits a weight of the cut matrices, their ranges counted.
fn average_bits(plan: &BitPlan, shapes: &[lapidary_quant::ParameterShape]) -> anyhow::Result<f64> {
    let size = plan.size(shapes)?;
    Ok(size.total() as f64 * 8.0 / size.weights as f64)
}

/// Writes a cut model as a packed folder; gives the names of what stays in f32.
fn save_packed<S: ModelSource>(
    model: &mut S::Model,
    source: &S,
    activation_bits: u8,
    path: &std::path::Path,
    card: &str,
    run: &Run,
) -> anyhow::Result<Vec<String>> {
    let packed = pack(model)?;
    let mut quantization = QuantizationConfig::new(activation_bits);
    let mut tensors: Vec<TensorSource> = Vec::new();
    for (name, tensor) in &packed {
        quantization.tensors.insert(name.clone(), *tensor.layout());
        tensors.extend(tensor.sources(name));
    }
    let mut dense = Vec::new();
    for tensor in export(model) {
        if !quantization.tensors.contains_key(&tensor.name) {
            dense.push(tensor.name.clone());
            tensors.push(TensorSource::f32(tensor.name, tensor.shape, tensor.data));
        }
    }
    let mut config = source.config();
    config.insert(CONFIG_KEY.into(), serde_json::to_value(&quantization)?);
    write_folder(path, FolderContents { config: &config, tensors, tokenizer: None, model_card: card })?;
    run.examples.tokenizer.save(path)?;
    Ok(dense)
}
