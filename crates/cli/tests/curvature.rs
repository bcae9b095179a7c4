//! `lapidary curvature` on a tiny BERT and a tiny decoder.

use std::fs;

use serde_json::Value;

use super::run::Place;
use super::text::{folder, in_folder};
use super::{Called, lapidary};

fn measure(place: &Place, more: &[&str]) -> Called {
    measure_into(place, "curvature", more)
}

fn measure_into(place: &Place, out: &str, more: &[&str]) -> Called {
    let mut command = lapidary();
    command.arg("curvature").arg(place.path("bert")).arg("--data").arg(place.path("train.tsv"));
    command.arg("--out").arg(place.path(out)).arg("--json").args(more);
    Called::of(command.output().expect("it starts"))
}

fn metrics(called: &Called) -> Value {
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    serde_json::from_str::<Value>(&called.stdout).expect("JSON")["metrics"].clone()
}

fn number(metrics: &Value, name: &str) -> f64 {
    metrics[format!("curvature.{name}")].as_f64().unwrap_or_else(|| panic!("{name} in {metrics}"))
}

#[test]
fn every_question_about_a_classifier() {
    let place = Place::new();
    let questions = ["--examples", "40", "--layer-examples", "6", "--trace", "--density", "--layers", "--landscape"];
    let called = measure(&place, &questions);
    let found = metrics(&called);
    for line in ["gradients of", "products within"] {
        assert!(called.stderr.contains(line), "it says what it will cost: {}", called.stderr);
    }
    assert_eq!((number(&found, "examples"), number(&found, "parameters")), (40.0, 2.0 * 2488.0));
    assert!(number(&found, "largest.1") >= number(&found, "largest.2"));
    assert!(number(&found, "smallest.1") <= number(&found, "smallest.2"));
    assert!(number(&found, "trace.standard_error") > 0.0 && number(&found, "omega.block1") >= 0.0);
    let page = fs::read_to_string(place.path("curvature/report.html")).expect("a page");
    for part in ["Density of the eigenvalues", "The loss around the model", "Sensitivity of the blocks", "Spectrum"] {
        assert!(page.contains(part), "{part}");
    }
    let left = |name: &str| place.path(name).exists();
    assert!(!left("curvature/eigenvalues/products.f32") && left("curvature/eigenvalues/vectors.f32"));

    let again = measure(&place, &questions);
    assert!(again.stderr.contains("landscape: done before"), "{}", again.stderr);
    assert_eq!(metrics(&again), found);

    // The batches change nothing, and neither do the numbers within their precision.
    for more in [["--batch-size", "7"], ["--precision", "f64"]] {
        let other = metrics(&measure_into(&place, more[1], &[&["--examples", "40"], &more[..]].concat()));
        for name in ["loss", "largest.1", "smallest.1"] {
            let (a, b) = (number(&found, name), number(&other, name));
            assert!((a - b).abs() < 0.01 * number(&found, "largest.1"), "{more:?} {name}: {a}, {b}");
        }
    }
    let over = ["--over", "trunk.blocks.1.", "--matrix", "gauss-newton"];
    let block = metrics(&measure_into(&place, "block", &over));
    assert_eq!(number(&block, "parameters"), 2488.0);
    assert!(number(&block, "smallest.1") > -1e-3 * number(&block, "largest.1"), "it is positive semidefinite");
}

#[test]
fn a_measurement_that_was_stopped_goes_on() {
    let place = Place::new();
    let whole = metrics(&measure(&place, &[]));
    let stage = place.path("again/eigenvalues");
    metrics(&measure_into(&place, "again", &[]));
    // What one leaves behind that was stopped while it made its first products.
    let mark: Value = serde_json::from_slice(&fs::read(stage.join("stage.json")).expect("read")).expect("JSON");
    fs::write(stage.join("stage.json"), serde_json::json!({ "key": mark["key"] }).to_string()).expect("written");
    fs::write(stage.join("products.f32"), b"cut off").expect("written");
    let called = measure_into(&place, "again", &[]);
    assert!(called.stderr.contains("eigenvalues: goes on where it was stopped"), "{}", called.stderr);
    assert_eq!(number(&metrics(&called), "largest.1"), number(&whole, "largest.1"));
}

#[test]
fn the_curvature_of_a_decoder() {
    let folder = folder();
    let run = ["run", "small.toml", "--set", "pretrain.variant.both.steps=2", "--set", "pretrain.variant.twin.steps=2"];
    assert_eq!(in_folder(folder.path(), &run).code, Some(0));
    let model = "runs/small/pretrain/twin/model";
    let call = |more: &[&str]| {
        in_folder(
            folder.path(),
            &[&["curvature", model, "--data", "texts", "--examples", "8", "--json"], more].concat(),
        )
    };
    let found = metrics(&call(&["--layers", "--layer-examples", "4", "--trace"]));
    assert!(number(&found, "loss") > 1.0 && number(&found, "largest.1") > 0.0);
    assert!(folder.path().join("runs/curvature-twin/report.html").is_file(), "named by what is above its folder");
    let other = metrics(&call(&["--batch-size", "3", "--out", "other"]));
    let (a, b) = (number(&found, "largest.1"), number(&other, "largest.1"));
    assert!((a - b).abs() < 0.01 * a, "the batches change nothing: {a}, {b}");
    let fisher = metrics(&call(&["--matrix", "fisher", "--out", "fisher"]));
    assert!(number(&fisher, "smallest.1") > -1e-3 * number(&fisher, "largest.1"));
}

#[test]
fn bad_calls_are_told_in_one_line() {
    let place = Place::new();
    for (more, code, expected) in [
        (&["--over", "attic."][..], 2, "--over attic.: no parameter's path begins with it; give trunk, all"),
        (&["--examples", "61"], 2, "--examples 61: the data has 60 texts"),
        (&["--layers", "--layer-examples", "7"], 2, "takes 10 disjoint samples of 7 texts each: the data has 60"),
        (&["--largest", "0", "--smallest", "0"], 2, "ask for an eigenvalue, --trace, --density or --layers"),
        (&["--largest", "0", "--smallest", "0", "--landscape"], 2, "--landscape is along eigenvectors"),
        (&["--tolerance", "0"], 2, "--tolerance should be above 0 and below 1, is 0"),
        (&["--text", "title"], 1, "title"),
    ] {
        let called = measure(&place, more);
        assert!(called.code == Some(code) && called.stderr.contains(expected), "{more:?}: {}", called.stderr);
        assert!(!called.stderr.contains("panicked") && called.stdout.is_empty(), "{}", called.stderr);
    }
    // A model without the head of a task.
    let config = fs::read_to_string(place.path("bert/config.json")).expect("read");
    let config = config.replace("\"hidden_size\"", "\"num_labels\": 3,\n  \"hidden_size\"");
    fs::write(place.path("bert/config.json"), config).expect("written");
    let called = measure(&place, &[]);
    assert!(called.code != Some(0) && !called.stderr.contains("panicked"), "{}", called.stderr);
}
