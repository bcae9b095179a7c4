//! `lapidary run` on a tiny BERT: all stages, taken up again, and every bad input that a user can hand it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary_data::Tokenizer;
use serde_json::Value;
use tempfile::TempDir;

use super::{Called, lapidary};

/// A checkpoint, data and a recipe in a folder of their own.
pub struct Place {
    folder: TempDir,
}

const WORDS: [&str; 8] = ["good", "bad", "fine", "poor", "film", "plot", "a", "the"];

impl Place {
    pub fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden/bert-a");
        let checkpoint = place.path("bert");
        fs::create_dir(&checkpoint).expect("made");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(golden.join(name), checkpoint.join(name)).expect("copied");
        }
        Tokenizer::from_words(&WORDS).expect("words").save(&checkpoint).expect("saved");
        let row = |i: usize| format!("a {} {}\t{}\n", WORDS[i % 4], WORDS[4 + i % 2], i % 2);
        let table = |rows: usize| format!("sentence\tlabel\n{}", (0..rows).map(row).collect::<String>());
        place.write("train.tsv", &table(60));
        place.write("dev.tsv", &table(12));
        place.write(
            "recipe.toml",
            r#"
name = "tiny"
seeds = [1]
[model]
checkpoint = "bert"
labels = ["bad", "good"]
[data]
train = "train.tsv"
dev = "dev.tsv"
text = "sentence"
label = "label"
validation_rows = 10
max_length = 12
[finetune]
epochs = 2
batch_size = 10
evaluate_every = 3
[curvature]
samples = 2
examples = 8
iterations = 4
[quantize]
groups = 4
[[quantize.variant]]
name = "w4"
bits = 4
steps = 3
batch_size = 10
[[quantize.variant]]
name = "mp23"
bits = "mixed:2/3"
high_layers = 1
steps = 3
batch_size = 10
"#,
        );
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    pub fn run(&self, more: &[&str]) -> Called {
        Called::of(self.command(more).output().expect("it starts"))
    }

    /// A run that is yet to start.
    pub fn command(&self, more: &[&str]) -> Command {
        let (recipe, out) = (self.path("recipe.toml"), self.path("out"));
        let mut command = lapidary();
        command.arg("run").arg(recipe).arg("--out").arg(out).args(more);
        command.arg("--data").arg(self.folder.path()).arg("--models").arg(self.folder.path());
        command
    }

    /// The last line of a run that must fail with a code, without its `error: `; the result must not be there.
    pub fn failure(&self, more: &[&str], code: i32) -> String {
        let called = self.run(more);
        assert_eq!(called.code, Some(code), "{}", called.stderr);
        assert!(!called.stderr.contains("panicked"), "{}", called.stderr);
        let errors: Vec<&str> = called.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one line says what was wrong: {}", called.stderr);
        assert!(!self.path("out/result.json").exists(), "nothing half-written");
        errors[0].trim_start_matches("error: ").to_owned()
    }
}

fn number(result: &Value, name: &str) -> f64 {
    result["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name} in {result}"))
}

#[test]
fn a_recipe_runs_through_and_is_not_run_again() {
    let place = Place::new();
    let first = place.run(&["--json"]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let result: Value = serde_json::from_str(&first.stdout).expect("one JSON object");
    for name in ["f32", "w4.direct", "w4.qat", "mp23.qat", "f32.seed1"] {
        assert!((0.0..=100.0).contains(&number(&result, &format!("tiny.dev.accuracy.{name}"))));
    }
    assert!(number(&result, "tiny.size_mb.mp23") < number(&result, "tiny.size_mb.w4"));
    assert!(number(&result, "tiny.size_mb.w4") < number(&result, "tiny.size_mb.f32"));
    let page = fs::read_to_string(place.path("out/report.html")).expect("a report");
    assert!(page.contains("<svg") && !page.contains("http://") && page.contains("Sensitivity"));
    assert!(fs::read_to_string(place.path("out/seed1/mp23/plan.toml")).expect("a plan").contains("bits = 2"));

    let packed = place.path("out/seed1/w4/model");
    let inspected = Called::of(lapidary().arg("inspect").arg(packed).output().expect("it starts"));
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);

    let second = place.run(&["--json"]);
    let again: Value = serde_json::from_str(&second.stdout).expect("one JSON object");
    assert_eq!(again["metrics"], result["metrics"]);
    assert_eq!(second.stderr.matches("done before").count(), 4, "{}", second.stderr);

    // Another seed of one setting is another stage; what came before it is kept.
    let third = place.run(&["--set", "quantize.variant.w4.steps=2"]);
    assert_eq!(third.code, Some(0), "{}", third.stderr);
    assert_eq!(third.stderr.matches("done before").count(), 3, "{}", third.stderr);
}

#[test]
fn bad_data_is_told_with_its_line() {
    for (table, expected) in [
        ("sentence\tlabel\ngood film\t1\nbad film\n", "3"),
        ("sentence\tlabel\ngood film\t7\n", "7"),
        ("sentence\tlabel\ngood film\tgreat\n", "great"),
        ("sentence\tlabel\n", "train.tsv"),
        ("", "train.tsv"),
        ("text\tlabel\ngood film\t1\n", "sentence"),
    ] {
        let place = Place::new();
        place.write("train.tsv", table);
        let error = place.failure(&[], 1);
        assert!(error.contains("train.tsv") && error.contains(expected), "{error}");
    }
    let place = Place::new();
    fs::remove_file(place.path("dev.tsv")).expect("removed");
    assert!(place.failure(&[], 2).contains("dev.tsv"));
    let place = Place::new();
    assert!(place.failure(&["--set", "data.validation_rows=60"], 1).contains("validation_rows"));
}

#[test]
fn bad_checkpoints_are_told_with_file_and_tensor() {
    let damage = |name: &str, bytes: &[u8], code: i32, expected: &[&str]| {
        let place = Place::new();
        fs::write(place.path("bert").join(name), bytes).expect("written");
        let error = place.failure(&[], code);
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    let golden = Place::new();
    let whole = fs::read(golden.path("bert/model.safetensors")).expect("read");
    damage("model.safetensors", &whole[..whole.len() - 9], 1, &["model.safetensors"]);
    damage("model.safetensors", &[0xff; 64], 1, &["model.safetensors"]);
    damage("tokenizer.json", b"{}", 1, &["tokenizer.json"]);
    let config = fs::read_to_string(golden.path("bert/config.json")).expect("read");
    let wider = config.replace("\"intermediate_size\": 40", "\"intermediate_size\": 48");
    damage("config.json", wider.as_bytes(), 1, &["intermediate.dense", "48"]);
    let fewer = config.replace("\"vocab_size\": 61", "\"vocab_size\": \"many\"");
    damage("config.json", fewer.as_bytes(), 2, &["config.json", "vocab_size"]);
    let huge = config.replace("\"hidden_size\": 16", "\"hidden_size\": 4000000000000");
    damage("config.json", huge.as_bytes(), 2, &["hidden_size", "bytes"]);
    let other = config.replace("\"model_type\": \"bert\"", "\"model_type\": \"t5\"");
    damage("config.json", other.as_bytes(), 2, &["model_type", "t5"]);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let place = Place::new();
    let error = place.failure(&["--set", "finetune.learning_rate=1e30", "--set", "finetune.clip=1e30"], 1);
    assert!(error.contains("step") && error.contains("learning rate"), "{error}");
}

#[test]
fn a_folder_in_use_or_foreign_is_left_alone() {
    let place = Place::new();
    let stage = place.path("out/seed1/finetune");
    fs::create_dir_all(&stage).expect("made");
    fs::write(stage.join("thesis.txt"), "mine").expect("written");
    assert!(place.failure(&[], 1).contains("finetune"));
    assert_eq!(fs::read_to_string(stage.join("thesis.txt")).expect("still there"), "mine");
}

#[test]
fn any_optimizer_and_the_noise_of_its_gradient() {
    let place = Place::new();
    let run = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>();
        Called::of(
            lapidary()
                .current_dir(place.path("."))
                .args(["run", "recipe.toml", "--json", "--set", "quantize.variant=[]"])
                .args(sets)
                .output()
                .expect("it starts"),
        )
    };
    let kfac = "finetune.optimizer={ kind = \"kfac\", damping = 0.1, estimate = \"sampled\" }";
    let called = run(&[kfac, "finetune.accumulate=2", "finetune.noise_scale=true"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let page = fs::read_to_string(place.path("runs/tiny/report.html")).expect("a page");
    assert!(page.contains("Noise scale of the gradient"));
    for (sets, expected) in [
        (&["finetune.noise_scale=true"][..], "set finetune.accumulate to 2 or more"),
        (&[kfac, "finetune.weight_decay=0.3"], "is part of finetune.optimizer where there is one"),
        (&["finetune.optimizer={ kind = \"kfac\", damping = 0 }"], "finetune.optimizer.damping: should be a positive"),
        (
            &["finetune.optimizer={ kind = \"kfac\", damping_rule = { kind = \"adaptive\", factor = 2 } }"],
            "finetune.optimizer.damping_rule: factor should be between 0 and 1",
        ),
    ] {
        let called = run(sets);
        assert!(called.error(2).contains(expected), "{}", called.stderr);
    }
}
