//! A training that was stopped and taken up again is the training that was never stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::SafetensorsFile;
use lapidary_models::objective::Classification;
use lapidary_train::{Interrupt, MetricsLog, TrainError, TrainOptions, Trained, train};

use crate::task::{self, batches, examples, fit, listing, model, timeless, values};

/// Validation off the epochs' ends (8 micro-batches), saving off validation, micro-batches and dropout.
fn options() -> TrainOptions {
    TrainOptions { accumulate: 3, evaluate_every: 5, save_every: 4, keep: 2, ..task::options(12) }
}

type Validate<'a> = &'a mut dyn FnMut(&Bert) -> Result<f64, TrainError>;

/// A resumed run gets fresh weights of another seed: what it goes on with can only come from the state.
fn run(folder: &Path, seed: u64, validate: Validate<'_>, interrupt: &Interrupt) -> Result<Trained<Bert>, TrainError> {
    let examples = examples(24);
    let batches = batches(&examples, 3);
    train(model(seed), &Classification, &batches, validate, &options(), folder, interrupt)
}

fn straight(folder: &Path) -> Trained<Bert> {
    run(folder, 1, &mut |model| Ok(fit(model)), &Interrupt::default()).unwrap()
}

/// Leaves a run that was interrupted at step 5.
fn interrupted(folder: &Path) {
    let interrupt = Interrupt::default();
    let mut validate = |model: &Bert| {
        interrupt.raise();
        Ok(fit(model))
    };
    let error = run(folder, 1, &mut validate, &interrupt).err().unwrap();
    assert!(matches!(error, TrainError::Interrupted { step: 5, total: 12 }), "{error}");
}

/// Everything in a state but the clock: parameters and moments.
fn tensors(folder: &Path, step: u64) -> BTreeMap<String, Vec<u8>> {
    let file = SafetensorsFile::open(&folder.join(format!("state-{step:08}.safetensors"))).unwrap();
    let names = file.header().tensors.iter().map(|info| info.name.clone());
    names.filter(|name| name != "training_state").map(|name| (name.clone(), file.bytes(&name).unwrap())).collect()
}

#[track_caller]
fn assert_same(resumed: &Trained<Bert>, resumed_folder: &Path, straight: &Trained<Bert>, straight_folder: &Path) {
    assert_eq!(timeless(&resumed.rows), timeless(&straight.rows));
    assert_eq!(resumed.best, straight.best);
    assert_eq!(values(&resumed.model), values(&straight.model));
    assert_eq!(tensors(resumed_folder, 12), tensors(straight_folder, 12));
}

#[test]
fn interrupted_at_every_look() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [whole, parts] = folders.each_ref().map(|folder| folder.path());
    let expected = straight(whole);
    assert_eq!(expected.rows.len(), 12);

    let mut calls = 0;
    let resumed = loop {
        calls += 1;
        let interrupt = Interrupt::default();
        let mut validate = |model: &Bert| {
            interrupt.raise();
            Ok(fit(model))
        };
        match run(parts, calls, &mut validate, &interrupt) {
            Err(TrainError::Interrupted { step, total }) => assert_eq!((step, total), (5 * calls, 12)),
            other => break other.unwrap(),
        }
    };
    assert_eq!(calls, 3);
    assert_same(&resumed, parts, &expected, whole);
    let seconds: Vec<f64> = resumed.rows.iter().map(|row| row.seconds).collect();
    assert!(seconds.is_sorted(), "the clock goes on: {seconds:?}");
}

#[test]
fn lost_between_two_states() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [whole, parts] = folders.each_ref().map(|folder| folder.path());
    let expected = straight(whole);

    let mut looks = 0;
    let mut fails_at_step_10 = |model: &Bert| {
        looks += 1;
        if looks == 2 { Err(TrainError::Validation("the power is out".into())) } else { Ok(fit(model)) }
    };
    let error = run(parts, 1, &mut fails_at_step_10, &Interrupt::default()).err().unwrap();
    assert!(matches!(error, TrainError::Validation(_)), "{error}");
    let log = parts.join("metrics.jsonl");
    assert!(MetricsLog::read(&log).unwrap().iter().any(|row| row.step == 9), "steps after the state are in the log");
    // A crash may cut the last line off.
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, &text[..text.len() - 20]).unwrap();

    assert_same(&run(parts, 2, &mut |model| Ok(fit(model)), &Interrupt::default()).unwrap(), parts, &expected, whole);
    let states: Vec<String> = listing(parts).into_iter().filter(|name| name.starts_with("state-")).collect();
    assert_eq!(states, ["state-00000008.safetensors", "state-00000012.safetensors"], "the last two are kept");
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let expected = straight(folder.path());
    let before = listing(folder.path());
    let again = run(folder.path(), 2, &mut |_| panic!("no look is needed"), &Interrupt::default()).unwrap();
    assert_same(&again, folder.path(), &expected, folder.path());
    assert_eq!(listing(folder.path()), before);
}

#[test]
fn the_state_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    interrupted(folder.path());
    let before = listing(folder.path());
    let examples = examples(24);
    let batches = batches(&examples, 3);
    let other = |model: Bert, options: &TrainOptions| {
        let quiet = Interrupt::default();
        let trained = train(model, &Classification, &batches, &mut |_| Ok(0.0), options, folder.path(), &quiet);
        let error = trained.err().unwrap();
        assert!(error.to_string().contains("state-00000005.safetensors"), "{error}");
        error
    };
    let device = burn::tensor::Device::flex().autodiff();
    let bert = |config: BertConfig| Bert::new(&config, 1, &device);

    let error = other(model(1), &TrainOptions { clip: 2.0, ..options() });
    assert!(matches!(&error, TrainError::State { reason, .. } if reason.contains("other settings")), "{error}");
    let wider = bert(BertConfig { width: 16, ..task::config() });
    assert!(matches!(other(wider, &options()), TrainError::State { .. }));
    let shallower = bert(BertConfig { blocks: 1, ..task::config() });
    assert!(matches!(other(shallower, &options()), TrainError::State { .. }));
    let deeper = bert(BertConfig { blocks: 3, ..task::config() });
    assert!(matches!(other(deeper, &options()), TrainError::State { .. }));
    assert_eq!(listing(folder.path()), before, "nothing was touched");
}

#[test]
fn a_damaged_state_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    interrupted(folder.path());
    let state = folder.path().join("state-00000005.safetensors");
    let whole = fs::read(&state).unwrap();
    for damaged in [&whole[..0], &whole[..100], &whole[..whole.len() / 2], &whole[..whole.len() - 1]] {
        fs::write(&state, damaged).unwrap();
        let error = run(folder.path(), 1, &mut |_| Ok(0.0), &Interrupt::default()).err().unwrap();
        assert!(matches!(error, TrainError::Checkpoint(_)), "{} bytes: {error}", damaged.len());
        assert!(error.to_string().contains("state-00000005.safetensors"), "{error}");
    }
    // The position inside is text that no longer parses.
    let mut scrambled = whole.clone();
    let place = scrambled.windows(8).position(|bytes| bytes == b"{\"step\":").unwrap();
    scrambled[place] = b'x';
    fs::write(&state, scrambled).unwrap();
    let error = run(folder.path(), 1, &mut |_| Ok(0.0), &Interrupt::default()).err().unwrap();
    assert!(matches!(error, TrainError::State { .. }), "{error}");

    fs::write(&state, whole).unwrap();
    run(folder.path(), 1, &mut |model| Ok(fit(model)), &Interrupt::default()).unwrap();
}
