//! Tokenizers that were trained here, against Hugging Face's `tokenizers` for Python: oracles/tokenizer_train.py.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapidary_data::{Algorithm, Tokenizer, TokenizerConfig};
use serde_json::Value;

const VOCABULARY: usize = 500;

/// Where a process of its own is to save what it trains.
const FOLDER: &str = "LAPIDARY_TRAINED";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn text() -> String {
    std::fs::read_to_string(golden("text.txt")).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(golden(name)).unwrap()).unwrap()
}

fn train(algorithm: Algorithm) -> Tokenizer {
    Tokenizer::train([Ok::<_, Infallible>(text())], &TokenizerConfig::new(algorithm, VOCABULARY)).unwrap()
}

/// The file that a tokenizer is saved as.
fn file(tokenizer: &Tokenizer) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path()).unwrap();
    std::fs::read(folder.path().join("tokenizer.json")).unwrap()
}

fn load(name: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden(name), folder.path().join("tokenizer.json")).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

#[test]
#[ignore = "writes golden files"]
fn write_trained_tokenizers() {
    std::fs::write(golden("bpe.tokenizer.json"), file(&train(Algorithm::Bpe))).unwrap();
    std::fs::write(golden("unigram.tokenizer.json"), file(&train(Algorithm::Unigram))).unwrap();
}

#[test]
fn bpe_learns_the_merges_of_the_reference() {
    let trained = file(&train(Algorithm::Bpe));
    let found: Value = serde_json::from_slice(&trained).unwrap();
    assert_eq!(found["model"]["merges"], json("peer_bpe.json")["merges"]);
    assert_eq!(found["model"]["merges"].as_array().unwrap().len(), VOCABULARY - 260);
    assert!(trained == std::fs::read(golden("bpe.tokenizer.json")).unwrap(), "not the committed file");
}

#[test]
fn unigram_learns_what_it_learned() {
    let found: Value = serde_json::from_slice(&file(&train(Algorithm::Unigram))).unwrap();
    let expected = json("unigram.tokenizer.json");
    let vocabulary =
        |file: &Value| -> Vec<(String, f64)> { serde_json::from_value(file["model"]["vocab"].clone()).unwrap() };
    // Scores come through the machine's logarithm, and equal ones may change places with its last digit.
    let sorted = |file: &Value| {
        let mut pieces = vocabulary(file);
        pieces.sort_by(|a, b| a.0.cmp(&b.0));
        pieces
    };
    for (found, expected) in sorted(&found).iter().zip(sorted(&expected)) {
        assert_eq!(found.0, expected.0);
        assert!((found.1 - expected.1).abs() < 1e-9, "{found:?} {expected:?}");
    }
    let scores: Vec<f64> = vocabulary(&found).iter().skip(4).map(|piece| piece.1).collect();
    assert!(scores.len() == VOCABULARY - 4 && scores.is_sorted_by(|a, b| a >= b));
}

#[test]
fn ids_are_those_of_the_reference() {
    let golden = json("trained_ids.json");
    let ids = |list: &Value| serde_json::from_value::<Vec<Vec<u32>>>(list.clone()).unwrap();
    let probes: Vec<String> = serde_json::from_value(golden["probes"].clone()).unwrap();
    for name in ["bpe", "unigram"] {
        let tokenizer = load(&format!("{name}.tokenizer.json"));
        let (plain, special) = (ids(&golden[name]), ids(&golden["special"][name]));
        for ((probe, plain), special) in probes.iter().zip(plain).zip(special) {
            assert_eq!(tokenizer.encode_text(probe).unwrap(), plain, "{name} {probe:?}");
            assert_eq!(tokenizer.encode_with_special(probe).unwrap(), special, "{name} {probe:?}");
            assert_eq!(tokenizer.decode(&plain).unwrap(), *probe);
        }
    }
}

#[test]
#[ignore = "is run by every_process_trains_the_same"]
fn train_in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    for (algorithm, name) in [(Algorithm::Bpe, "bpe"), (Algorithm::Unigram, "unigram")] {
        std::fs::write(folder.join(name), file(&train(algorithm))).unwrap();
    }
}

/// Hash tables are seeded anew in each process, and its threads divide the work anew.
#[test]
fn every_process_trains_the_same() {
    let files = ["1", "2", "5"].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "trained::train_in_a_process_of_its_own"])
            .env(FOLDER, folder.path())
            .env("RAYON_NUM_THREADS", threads)
            .output()
            .unwrap();
        assert!(process.status.success(), "{}", String::from_utf8_lossy(&process.stdout));
        ["bpe", "unigram"].map(|name| std::fs::read(folder.path().join(name)).unwrap())
    });
    assert!(files[0] == files[1] && files[1] == files[2]);
}
