//! The loop: what it learns, and how it fails.

use std::fs;
use std::path::Path;

use approx::assert_abs_diff_eq;
use lapidary_data::{Batch, Encoded, Target};
use lapidary_kernels::precision::Precision;
use lapidary_models::bert::Bert;
use lapidary_models::objective::Classification;
use lapidary_models::parameters;
use lapidary_train::{
    AdamWOptions, BatchSource, Decay, EpochBatches, Interrupt, Schedule, TrainError, TrainOptions, Trained, train,
};

use crate::task::{batches, examples, fit, listing, model, options, train_quietly, values};

#[test]
fn the_loss_falls() {
    let folder = tempfile::tempdir().unwrap();
    let trained = train_quietly(model(1), &options(40), folder.path()).unwrap();
    let losses: Vec<f64> = trained.rows.iter().map(|row| row.loss.unwrap()).collect();
    assert_eq!(losses.len(), 40);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[35..]));
    assert!(first > 0.4 && last < 0.5 * first, "{first} fell to {last}");
    assert_eq!(trained.best, (fit(&trained.model), 40));
}

#[test]
fn the_best_model_is_returned_and_not_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(24);
    let mut seen = Vec::new();
    let mut validate = |model: &Bert| {
        seen.push(values(model));
        Ok(if seen.len() == 2 { 1.0 } else { 0.5 })
    };
    let options = TrainOptions { evaluate_every: 2, ..options(7) };
    let batches = batches(&examples, 8);
    let quiet = Interrupt::default();
    let trained = train(model(1), &Classification, &batches, &mut validate, &options, folder.path(), &quiet).unwrap();
    assert_eq!(trained.best, (1.0, 4));
    assert_eq!(values(&trained.model), seen[1]);
    assert_eq!(seen.len(), 4, "at steps 2, 4, 6 and at the end");
}

/// Four steps on the same eight examples each, in micro-batches of `size`.
fn accumulated(size: usize) -> Trained<Bert> {
    let folder = tempfile::tempdir().unwrap();
    let examples = examples(8);
    let options = TrainOptions {
        accumulate: 8usize.div_ceil(size) as u64,
        precision: Precision::F32,
        dropout: 0.0,
        // Above rounding: AdamW would blow gradients that are zero but for it, as those of the keys' biases, up to
        // steps of full size.
        optimizer: AdamWOptions { eps: 1e-2, ..AdamWOptions::default() }.into(),
        ..options(4)
    };
    let batches = batches(&examples, size);
    train(model(2), &Classification, &batches, &mut |_| Ok(0.0), &options, folder.path(), &Interrupt::default())
        .unwrap()
}

#[test]
fn micro_batches_add_up_to_a_batch() {
    let whole = accumulated(8);
    for size in [4, 5] {
        let parts = accumulated(size);
        for (part, whole) in parts.rows.iter().zip(&whole.rows) {
            assert_abs_diff_eq!(part.loss.unwrap(), whole.loss.unwrap(), epsilon = 1e-5);
            assert_abs_diff_eq!(part.gradient_norm.unwrap(), whole.gradient_norm.unwrap(), epsilon = 1e-5);
        }
        assert_abs_diff_eq!(values(&parts.model)[..], values(&whole.model)[..], epsilon = 1e-5);
    }
}

#[test]
fn every_epoch_has_each_example_once() {
    let examples = examples(22);
    let batches = batches(&examples, 8);
    assert_eq!(batches.per_epoch(), 3);
    let epoch = |epoch: u64| -> Vec<Batch> { (0..3).map(|i| batches.micro_batch(3 * epoch + i).unwrap()).collect() };
    for number in 0..3 {
        let mut rows: Vec<Vec<u32>> = Vec::new();
        for batch in epoch(number) {
            rows.extend(batch.ids.chunks(batch.length).zip(&batch.lengths).map(|(ids, &n)| ids[..n].to_vec()));
        }
        let mut expected: Vec<Vec<u32>> = examples.iter().map(|example| example.ids.clone()).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected);
    }
    assert_ne!(epoch(0), epoch(1));
    assert_eq!(epoch(0), epoch(0), "going back gives the same again");
}

#[test]
fn a_diverged_loss_names_the_step() {
    let folder = tempfile::tempdir().unwrap();
    let hopeless = TrainOptions {
        schedule: Schedule { peak: f64::INFINITY, warmup: 0, total: 5, decay: Decay::Linear },
        ..options(5)
    };
    let error = train_quietly(model(1), &hopeless, folder.path()).err().unwrap();
    assert!(matches!(error, TrainError::NotFinite { what: "the loss", step: 1, .. }), "{error}");
    assert!(error.to_string().contains("at step 1"), "{error}");
    assert!(!listing(folder.path()).iter().any(|name| name.ends_with(".safetensors")), "nothing is saved");
}

#[test]
fn a_weight_that_is_no_number_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let broken = parameters::map(model(1), &mut |parameter| match parameter.path {
        "trunk.blocks.0.feed_forward.up.weight" => parameter.value.mul_scalar(f32::NAN),
        _ => parameter.value,
    });
    let error = train_quietly(broken, &options(5), folder.path()).err().unwrap();
    assert!(matches!(error, TrainError::NotFinite { step: 0, value, .. } if value.is_nan()), "{error}");
}

#[test]
fn nothing_to_train_on() {
    let options = lapidary_data::BatchOptions {
        batch_size: std::num::NonZeroUsize::MIN,
        bucket_batches: std::num::NonZeroUsize::MIN,
        seed: 0,
    };
    let empty: &[Encoded] = &[];
    let error = EpochBatches::new(empty, options, 0).err().unwrap();
    assert!(matches!(error, TrainError::Empty), "{error}");
}

#[test]
fn a_label_without_a_class_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut examples = examples(4);
    examples[3].target = Target::Class(2);
    let batches = batches(&examples, 4);
    let quiet = Interrupt::default();
    let trained = train(model(1), &Classification, &batches, &mut |_| Ok(0.0), &options(2), folder.path(), &quiet);
    let error = trained.err().unwrap();
    assert!(matches!(error, TrainError::Model(_)) && error.to_string().contains("target 2"), "{error}");
}

/// A training that cannot write to `folder`: the error names the path that is in the way.
#[track_caller]
fn refused(folder: &Path, in_the_way: &Path) {
    let options = TrainOptions { save_every: 1, ..options(3) };
    let error = train_quietly(model(1), &options, folder).err().unwrap();
    assert!(matches!(error, TrainError::Log { .. } | TrainError::Checkpoint(_)), "{error}");
    assert!(error.to_string().contains(&in_the_way.display().to_string()), "{error}");
}

#[test]
fn what_cannot_be_written_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    refused(&file, &file);
    refused(&file.join("run"), &file.join("run"));
    assert_eq!(fs::read(&file).unwrap(), b"not a folder");

    for name in ["metrics.jsonl", "best.safetensors", "state-00000001.safetensors"] {
        let folder = scratch.path().join(format!("run with {name}"));
        let in_the_way = folder.join(name);
        fs::create_dir_all(in_the_way.join("full")).unwrap();
        refused(&folder, &in_the_way);
        assert!(!listing(&folder).iter().any(|name| name.ends_with(".tmp")), "{:?}", listing(&folder));
    }
}
