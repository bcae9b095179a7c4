//! Results: what is written is read back, and nothing else is read.

use std::fs;
use std::path::PathBuf;

use lapidary_eval::result::{Metrics, RunResult, RunSettings, check_name};
use tempfile::TempDir;

pub fn run(name: &str) -> RunResult {
    let mut run = RunResult::new(name, RunSettings { isa: "avx2".into(), device: "cpu".into(), threads: 2, seed: 7 });
    run.finish(725.4);
    run
}

fn folder_with(name: &str, text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_result_is_read_back_as_it_was_written() {
    let mut result = run("qbert-sst2");
    result.metrics.insert("sst2.dev.accuracy.w4.qat", 89.449_541_284_403_67).unwrap();
    result.metrics.insert("sst2.dev.accuracy.f32", 0.1 + 0.2).unwrap();
    result.peers.insert("decoder_step.f32.ratio_to_pytorch", 0.85).unwrap();
    result.notes.push("a \"note\"\nof two lines".into());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qbert-sst2.json");
    result.write(&path).unwrap();
    assert_eq!(RunResult::read(&path).unwrap(), result);
    assert_eq!(RunResult::read_folder(folder.path()).unwrap(), [result]);

    // The file has the fields of the design in their order, and metrics in the order they were added.
    let text = fs::read_to_string(&path).unwrap();
    let fields = [
        "name",
        "commit",
        "date",
        "machine",
        "isa",
        "device",
        "threads",
        "seed",
        "seconds",
        "peak_rss_bytes",
        "metrics",
        "sst2.dev.accuracy.w4.qat",
        "sst2.dev.accuracy.f32",
        "peers",
        "notes",
    ];
    let places: Vec<_> = fields.iter().map(|field| text.find(&format!("\"{field}\":")).unwrap()).collect();
    assert!(places.is_sorted() && text.ends_with("}\n"), "{text}");
}

#[test]
fn a_strange_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("good.json");
    run("good").write(&path).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let cases = [
        (good.replace("\"notes\"", "\"extra\": 1,\n  \"notes\""), "unknown field `extra`"),
        (good.replace("\"seed\": 7,", ""), "missing field `seed`"),
        (good.replace("\"seed\": 7,", "\"seed\": 7, \"seed\": 8,"), "duplicate field `seed`"),
        (good.replace("\"seed\": 7", "\"seed\": -7"), "integer `-7`"),
        (good.replace("\"metrics\": {}", "\"metrics\": {\"a.b\": 1.0, \"a.b\": 2.0}"), "twice"),
        (good.replace("\"metrics\": {}", "\"metrics\": {\"Accuracy\": 1.0}"), "\"Accuracy\" is not dotted"),
        (good.replace("\"metrics\": {}", "\"metrics\": {\"a.b\": null}"), "null"),
        (good[..good.len() / 2].into(), "EOF"),
        (String::new(), "EOF"),
    ];
    for (text, reason) in cases {
        assert_ne!(text, good, "{reason}");
        let (_folder, path) = folder_with("strange.json", &text);
        let error = RunResult::read(&path).unwrap_err().to_string();
        assert!(error.contains("strange.json") && error.contains(reason), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let missing = RunResult::read(&folder.path().join("absent.json")).unwrap_err().to_string();
    assert!(missing.contains("absent.json"), "{missing}");
}

#[test]
fn a_result_is_named_after_its_file() {
    let folder = tempfile::tempdir().unwrap();
    run("one").write(&folder.path().join("other.json")).unwrap();
    let error = RunResult::read_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("other.json") && error.contains("one.json"), "{error}");
}

#[test]
fn names_are_dotted_and_flat() {
    for name in
        ["sst2.dev.accuracy.f32", "a.b", "gemm_1024.bf16.rate_to_pytorch", "sst2.dev.accuracy.w4.qat.g128.seed1"]
    {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", "accuracy", ".a", "a.", "a..b", "A.b", "a b.c", "a.b\n", "é.a", "a-b.c", "<script>.a"] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}

#[test]
fn metrics_hold_each_finite_number_once() {
    let mut metrics = Metrics::default();
    metrics.insert("a.b", 1.0).unwrap();
    assert!(metrics.insert("a.b", 2.0).unwrap_err().to_string().contains("twice"));
    assert!(metrics.insert("a.c", f64::NAN).unwrap_err().to_string().contains("finite"));
    assert!(metrics.insert("a c", 1.0).is_err());
    assert_eq!(metrics.iter().collect::<Vec<_>>(), [("a.b", 1.0)]);
}

#[test]
fn an_unwritable_result_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut result = run("a");
    assert!(result.write(&folder.path().join("no/such/folder/a.json")).is_err());
    result.seconds = f64::INFINITY;
    assert!(result.write(&folder.path().join("a.json")).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
