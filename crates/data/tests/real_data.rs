//! SST-2 as GLUE has it, and MiniLM's tokenizer on it. `$LAPIDARY_DATA` (default `data/`) has `sst2/`, and
//! `$LAPIDARY_MODELS` (default the cache folder) has `minilm-l6/`; docs/data.md says where they come from.

use std::env::var_os;
use std::path::PathBuf;

use lapidary_data::{Columns, Example, Labels, Tokenizer, source};
use sha2::{Digest, Sha256};

/// Made by oracles/tokenizer_ids.py with `tokenizers` 0.23.3 and `transformers` 5.23.0.
const DEV_IDS_SHA256: &str = "9e83f9f874fb204558e14ab698452a266fba319f2ec2458f654ee8048db2a6d5";

/// A folder that an environment variable names; a relative one is meant from the workspace's root, since Cargo runs
/// tests in the crate's folder.
fn folder(variable: &str) -> Option<PathBuf> {
    var_os(variable).map(|folder| workspace().join(folder))
}

fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sst2(file: &str) -> Vec<Example> {
    let data = folder("LAPIDARY_DATA").unwrap_or_else(|| workspace().join("data"));
    let columns = Columns { text: "sentence".into(), pair: None, label: "label".into(), labels: Labels::Count(2) };
    source::read(&data.join("sst2").join(file), &columns).unwrap()
}

fn minilm() -> Tokenizer {
    let cache = || folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let models = folder("LAPIDARY_MODELS").or_else(|| cache().map(|cache| cache.join("lapidary")));
    Tokenizer::load(&models.expect("LAPIDARY_MODELS or HOME is set").join("minilm-l6")).unwrap()
}

#[test]
fn sst2_is_complete() {
    let (train, dev) = (sst2("train.tsv.zst"), sst2("dev.tsv.zst"));
    assert_eq!((train.len(), dev.len()), (67_349, 872));
    let positive = |examples: &[Example]| examples.iter().filter(|example| example.label == Some(1)).count();
    assert_eq!((positive(&train), positive(&dev)), (37_569, 444));
}

#[test]
fn ids_are_those_of_hugging_face() {
    let set = minilm().encode_all(&sst2("dev.tsv.zst"), 512).unwrap();
    assert_eq!((set.truncated, set.rows.len()), (0, 872));
    let mut hash = Sha256::new();
    for row in &set.rows {
        let ids: Vec<String> = row.ids.iter().map(u32::to_string).collect();
        hash.update(ids.join(" ") + "\n");
        assert!(row.types.iter().all(|&segment| segment == 0));
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, DEV_IDS_SHA256);
}
