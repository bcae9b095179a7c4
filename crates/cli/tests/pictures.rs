//! Networks for pictures, and the study of how optimizers take to larger batches.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::text::in_folder;
use super::{Called, lapidary};

const RECIPE: &str = r#"
kind = "pictures"
name = "shades"

[data]
train = "train.bin"
test = "test.bin"
validation = 20
padding = 1

[model]
layers = 8

[train]
epochs = 2
batch_size = 20
accumulate = 2
noise_scale = true

[[train.variant]]
name = "plain"
optimizer = { kind = "sgd" }
learning_rate = 0.05

[[train.variant]]
name = "curved"
optimizer = { kind = "kfac", damping = 0.03, factors = { every = 2 }, inverses = { every = 3 } }
learning_rate = 0.02
decay = "cosine"

[study]
batch_sizes = [10, 20]
settings = 2
epochs = 1
target_loss = 2.0
seeds = 2

[[study.optimizer]]
name = "sgd"
optimizer = { kind = "sgd" }
learning_rate = { from = 0.01, to = 0.1 }

[[study.optimizer]]
name = "kfac"
optimizer = { kind = "kfac" }
learning_rate = { from = 0.003, to = 0.03 }
damping = { from = 0.01, to = 0.1 }
"#;

/// CIFAR's binary files of pictures whose class is their shade, and a recipe for them.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let pictures = |count: usize, salt: usize| -> Vec<u8> {
        let picture = |i: usize| {
            let class = (i % 10) as u8;
            let pixel = move |p: usize| 20 * class + ((p * 31 + i * 17 + salt) % 40) as u8;
            std::iter::once(class).chain((0..3072).map(pixel))
        };
        (0..count).flat_map(picture).collect()
    };
    fs::write(folder.path().join("train.bin"), pictures(60, 1)).expect("written");
    fs::write(folder.path().join("test.bin"), pictures(20, 2)).expect("written");
    fs::write(folder.path().join("shades.toml"), RECIPE).expect("written");
    folder
}

fn json(called: &Called) -> Value {
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    serde_json::from_str(&called.stdout).expect("JSON")
}

fn metric(result: &Value, name: &str) -> f64 {
    result["metrics"][name].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn networks_are_trained_by_every_optimizer() {
    let folder = folder();
    let run = || in_folder(folder.path(), &["run", "shades.toml", "--json"]);
    let result = json(&run());
    for (name, expected) in [("train", 40.0), ("kept", 20.0), ("test", 20.0)] {
        assert_eq!(metric(&result, &format!("pictures.data.{name}")), expected, "{name}");
    }
    for variant in ["plain", "curved"] {
        let accuracy = metric(&result, &format!("pictures.test.accuracy.{variant}"));
        assert!((0.0..=100.0).contains(&accuracy), "{variant}: {accuracy}");
        assert_eq!(metric(&result, &format!("pictures.steps.{variant}")), 4.0);
    }
    let page = fs::read_to_string(folder.path().join("runs/shades/report.html")).expect("a page");
    assert!(
        page.contains("Blocks of K-FAC") && page.contains("Noise scale") && page.contains("Training loss over time")
    );
    let model = folder.path().join("runs/shades/train/curved/model");
    let inspected = in_folder(folder.path(), &["inspect", model.to_str().expect("UTF-8")]);
    assert!(inspected.stdout.contains("lapidary_resnet"), "{}", inspected.stdout);
    let again = run();
    assert!(again.stderr.contains("train/curved: done before"), "{}", again.stderr);
    assert_eq!(json(&again)["metrics"], result["metrics"]);
}

/// A study's result without what differs from run to run.
fn timeless(result: &Value) -> Vec<(String, Value)> {
    let metrics = result["metrics"].as_object().expect("metrics").iter();
    metrics.filter(|(name, _)| !name.contains("seconds")).map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[test]
fn a_study_is_shared_out_stopped_and_taken_up_again() {
    let folder = folder();
    let study =
        |arguments: &[&str]| in_folder(folder.path(), &[&["study", "shades.toml", "--json"], arguments].concat());
    let cost = json(&study(&["--dry-run", "--out", "dry"]));
    let trials: u64 = cost["parts"].as_array().expect("parts").iter().filter_map(|part| part["trials"].as_u64()).sum();
    assert_eq!(trials, 2 * 2 * 2 + 2 * 2 * 2, "settings, the best of each size once more, and its noise");
    assert!(cost["seconds"].as_f64() > Some(0.0));
    assert!(!folder.path().join("dry").exists(), "it does nothing");

    let result = json(&study(&["--out", "alone"]));
    assert_eq!((metric(&result, "study.trials"), metric(&result, "study.trials_done")), (16.0, 16.0));
    for optimizer in ["sgd", "kfac"] {
        for batch in [10, 20] {
            let of = |what: &str| metric(&result, &format!("study.{optimizer}.b{batch}.{what}"));
            assert_eq!(of("trials"), 2.0);
            assert!(of("learning_rate") > 0.0 && of("kept_accuracy") >= 0.0 && of("last_loss") > 0.0);
        }
    }
    assert!(metric(&result, "study.kfac.b10.damping") > 0.0 && metric(&result, "study.sgd.b10.damping").is_nan());
    let page = fs::read_to_string(folder.path().join("alone/report.html")).expect("a page");
    assert!(page.contains("The answer") && page.contains("Sensitivity") && page.contains("Steps to the target"));

    // The same numbers from two processes with a thread each, and from a study that lost a trial in flight.
    let shared = json(&study(&["--out", "shared", "--workers", "2", "--threads", "2"]));
    let alone = json(&study(&["--out", "alone", "--threads", "1"]));
    assert_eq!(timeless(&shared), timeless(&alone));
    let file = rusqlite::Connection::open(folder.path().join("shared/study.sqlite")).expect("opened");
    file.execute("UPDATE trial SET status = 'running', outcome = NULL WHERE id = 3", []).expect("changed");
    file.execute("DELETE FROM curve WHERE trial = 3", []).expect("changed");
    drop(file);
    let again = study(&["--out", "shared"]);
    assert!(again.stderr.contains("1 trials were in flight"), "{}", again.stderr);
    assert_eq!(timeless(&json(&again)), timeless(&alone));
    let reported = json(&study(&["--out", "shared", "--report"]));
    assert_eq!(timeless(&reported), timeless(&alone));
}

#[test]
fn a_target_out_of_reach_and_steps_that_diverge_are_rows() {
    let folder = folder();
    let arguments = [
        "study",
        "shades.toml",
        "--json",
        "--set",
        "study.target_loss=1e-6",
        "--set",
        "study.optimizer.sgd.learning_rate={ from = 1e20, to = 1e30 }",
        "--set",
        "study.seeds=1",
    ];
    let result = json(&in_folder(folder.path(), &arguments));
    assert_eq!(metric(&result, "study.sgd.b10.trials_diverged"), 2.0);
    assert_eq!(metric(&result, "study.kfac.b10.trials_at_target"), 0.0);
    assert!(metric(&result, "study.kfac.b10.steps_to_loss").is_nan());
    let notes = result["notes"].to_string();
    assert!(notes.contains("kfac never came to the target"), "{notes}");
}

#[test]
fn bad_studies_are_told_in_one_line() {
    let folder = folder();
    let called = |arguments: &[&str]| in_folder(folder.path(), arguments);
    let study = |set: &str| called(&["study", "shades.toml", "--set", set]);
    for (assignment, expected) in [
        ("study.batch_sizes=[]", "study.batch_sizes: should have one at least"),
        ("study.optimizer.kfac.damping.from=0", "study.optimizer.1.damping.from: should be a positive number, is 0"),
        ("study.optimizer.sgd.damping={ from = 1, to = 2 }", "only K-FAC has it"),
        ("study.search=grid", "study.settings: should be a square"),
        ("study.optimizer.kfac.optimizer.kind=newton", "unknown variant `newton`"),
        ("study.optimizer.kfac.optimizer.speed=3", "unknown field `speed`"),
        ("model.layers=9", "model.layers"),
        ("train.variant.curved.name=PLAIN", "train.variant: has `plain` twice"),
        ("train.accumulate=1", "train.noise_scale: is measured between the micro-batches"),
    ] {
        assert!(study(assignment).error(2).contains(expected), "{assignment}: {}", study(assignment).stderr);
    }
    assert!(study("study.batch_sizes=[10, 64]").error(1).contains("there are 40 pictures to train on"));
    assert!(study("data.validation=60").error(1).contains("lower data.validation"));
    let none = called(&["run", "shades.toml", "--set", "train.variant=[]"]);
    assert!(none.error(2).contains("`lapidary study` runs"), "{}", none.stderr);
    let large = called(&["run", "shades.toml", "--set", "train.batch_size=64"]);
    assert!(large.error(1).contains("train.batch_size is 64, and there are 40 pictures"), "{}", large.stderr);

    // A file of another study, and one that is none.
    let small = ["--set", "study.settings=2", "--set", "study.seeds=1", "--set", "study.noise_scale=false"];
    let first = called(&[&["study", "shades.toml", "--out", "one"][..], &small].concat());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let other = called(&["study", "shades.toml", "--out", "one", "--set", "study.settings=3"]);
    assert!(other.error(1).contains("study.settings is 2 there and 3 here"), "{}", other.stderr);
    fs::write(folder.path().join("one/study.sqlite"), "no database, but long enough; ".repeat(100)).expect("written");
    let damaged = called(&["study", "shades.toml", "--out", "one"]);
    assert!(damaged.error(1).contains("is damaged or no study"), "{}", damaged.stderr);
}

#[test]
fn two_studies_do_not_share_a_folder() {
    let folder = folder();
    let begin = |path: &Path| {
        let mut command = lapidary();
        command.current_dir(path).env("LAPIDARY_DATA", path).args([
            "study",
            "shades.toml",
            "--set",
            "study.epochs=500",
        ]);
        command.args(["--set", "study.stop_at_targets=false"]);
        command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().expect("it starts")
    };
    let mut first = begin(folder.path());
    let lock = folder.path().join("runs/shades-study/study.sqlite");
    for _ in 0..200 {
        if lock.is_file() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let second = in_folder(folder.path(), &["study", "shades.toml", "--set", "study.epochs=500"]);
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    assert!(second.error(1).contains("is in use by another run"), "{}", second.stderr);
}

/// The process that shares out a study is asked to end, and not those that it started.
#[cfg(unix)]
#[test]
fn a_study_that_is_ended_takes_its_processes_with_it() {
    let folder = folder();
    let mut command = lapidary();
    command.current_dir(folder.path()).env("LAPIDARY_DATA", folder.path());
    command.args(["study", "shades.toml", "--workers", "2", "--set", "study.epochs=100000", "--out", "long"]);
    command.args(["--set", "study.target_loss=1e-9"]);
    let stderr = fs::File::create(folder.path().join("log")).expect("a file");
    let mut watcher = command.stderr(stderr).stdout(std::process::Stdio::null()).spawn().expect("it starts");
    let file = folder.path().join("long/study.sqlite");
    let running = || {
        let count = |file: rusqlite::Connection| {
            file.query_row("SELECT COUNT(*) FROM trial WHERE status = 'running'", [], |row| row.get::<_, i64>(0))
        };
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(&file, flags).and_then(count).unwrap_or(0)
    };
    let until = |done: &mut dyn FnMut() -> bool| {
        (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            done()
        })
    };
    assert!(until(&mut || running() == 2), "both have a trial");
    let killed = std::process::Command::new("kill").arg(watcher.id().to_string()).status().expect("kill");
    assert!(killed.success());
    assert!(until(&mut || watcher.try_wait().expect("asked").is_some()), "it ends");
    let log = fs::read_to_string(folder.path().join("log")).expect("a log");
    assert!(log.contains("error: stopped; run the same command again to go on"), "{log}");
    // Nobody holds the trials any more.
    let again = ["study", "shades.toml", "--report", "--set", "study.epochs=100000", "--out", "long", "--json"];
    let again = in_folder(folder.path(), &[&again[..], &["--set", "study.target_loss=1e-9"]].concat());
    assert_eq!(metric(&json(&again), "study.trials_done"), 0.0);
}
