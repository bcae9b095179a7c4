//! A small model and a task that it learns in seconds.

use std::num::NonZeroUsize;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use lapidary_data::{Batch, BatchOptions, Dataset, Encoded, Target};
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::objective::{Classification, Objective};
use lapidary_models::{Pass, Task, parameters};
use lapidary_train::{
    AdamWOptions, EpochBatches, Interrupt, MetricsRow, Schedule, TrainError, TrainOptions, Trained, train,
};

const PAD: u32 = 0;
const FIRST: u32 = 1;
const LAST: u32 = 2;
/// Tokens that only one of the two classes uses.
const OF_A_CLASS: u32 = 6;

/// Which class do an example's tokens belong to? Three to six tokens each.
pub fn examples(count: usize) -> Dataset {
    let mut stream = Stream::new(5, 0);
    (0..count)
        .map(|i| {
            let label = (i / 4 % 2) as u32;
            let words = (0..3 + i % 4).map(|_| 4 + label * OF_A_CLASS + stream.below(OF_A_CLASS as usize) as u32);
            let ids: Vec<u32> = [FIRST].into_iter().chain(words).chain([LAST]).collect();
            Encoded { types: vec![0; ids.len()], ids, image: None, target: Target::Class(label) }
        })
        .collect()
}

pub fn batches(examples: &[Encoded], batch_size: usize) -> EpochBatches<'_> {
    let size = |n| NonZeroUsize::new(n).unwrap();
    let options = BatchOptions { batch_size: size(batch_size), bucket_batches: size(2), seed: 3 };
    EpochBatches::new(examples, options, PAD).unwrap()
}

pub fn config() -> BertConfig {
    BertConfig {
        vocabulary: (4 + 2 * OF_A_CLASS) as usize,
        width: 8,
        blocks: 2,
        heads: 2,
        feed_forward: 16,
        positions: 8,
        token_types: 2,
        norm_eps: 1e-12,
        deviation: 0.3,
        pad_id: PAD,
        task: Task::Classes(vec!["no".into(), "yes".into()]),
    }
}

pub fn model(seed: u64) -> Bert {
    Bert::new(&config(), seed, &Device::flex().autodiff())
}

pub fn options(total: u64) -> TrainOptions {
    TrainOptions {
        name: "test".into(),
        schedule: Schedule::new(1e-2, 0.1, total),
        optimizer: AdamWOptions::default().into(),
        accumulate: 1,
        clip: 1.0,
        precision: Precision::F32,
        dropout: 0.1,
        seed: 7,
        evaluate_every: 0,
        save_every: 0,
        keep: 1,
        noise_scale: false,
        sync_batch_norm: false,
    }
}

/// Trains on batches of 8 with nobody who interrupts.
pub fn train_quietly(model: Bert, options: &TrainOptions, folder: &Path) -> Result<Trained<Bert>, TrainError> {
    let examples = examples(24);
    let batches = batches(&examples, 8);
    train(model, &Classification, &batches, &mut |model| Ok(fit(model)), options, folder, &Interrupt::default())
}

/// A metric that every parameter has a part in, larger when better: minus the mean loss over the task.
pub fn fit(model: &Bert) -> f64 {
    let examples = examples(24);
    let batch = Batch::collate(&examples.iter().collect::<Vec<_>>(), PAD);
    let loss = Classification.loss(&model.valid(), &batch, &Pass::evaluation(), batch.rows as f32).unwrap();
    -f64::from(loss.into_scalar::<f32>())
}

/// All parameters of a model, one after the other.
pub fn values<M: Module>(model: &M) -> Vec<f32> {
    let mut values = Vec::new();
    parameters::visit(model, &mut |parameter| values.extend(parameters::elements(parameter.value)));
    values
}

/// A log without what differs from run to run.
pub fn timeless(rows: &[MetricsRow]) -> Vec<MetricsRow> {
    rows.iter().map(|row| MetricsRow { seconds: 0.0, ..row.clone() }).collect()
}

/// Names in a folder, hidden ones too.
pub fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
