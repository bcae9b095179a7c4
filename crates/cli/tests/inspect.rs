//! `lapidary inspect`.

use std::fs;
use std::path::Path;

use lapidary_models::checkpoint::packed::{CONFIG_KEY, PackedTensor, QuantizationConfig, QuantizedTensor};
use lapidary_models::checkpoint::{FolderContents, TensorSource, write_folder};
use serde_json::{Value, json};

use super::{Called, call, lapidary};

const MATRIX: &str = "bert.encoder.layer.0.output.dense.weight";

/// A packed checkpoint of one matrix and one plain tensor.
fn write_packed(path: &Path) {
    let layout = QuantizedTensor { bits: 2, groups: 4, shape: [8, 16] };
    let packed = PackedTensor::from_codes(layout, &[1; 128], vec![1.0; 4], vec![0; 4]).expect("consistent");
    let mut quantization = QuantizationConfig::new(8);
    quantization.tensors.insert(MATRIX.to_owned(), layout);
    let config = json!({"model_type": "bert", CONFIG_KEY: quantization});
    let mut tensors = vec![TensorSource::f32("bert.embeddings.word_embeddings.weight", [10, 4], vec![0.0; 40])];
    tensors.extend(packed.sources(MATRIX));
    let config = config.as_object().expect("an object");
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: "" }).expect("written");
}

#[test]
fn a_folder_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write_packed(&path);
    let path = path.to_str().expect("UTF-8");

    let text = call(&["inspect", path]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    for part in ["model_type", MATRIX, "2b/4g", "8x16", "packed", "saved", "embeddings", "total"] {
        assert!(text.stdout.contains(part), "{part} is not in\n{}", text.stdout);
    }

    let json = call(&["inspect", path, "--json"]);
    assert_eq!(json.stdout.lines().count(), 1);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["config"]["model_type"], "bert");
    assert_eq!(json["parameters"], 168);
    assert_eq!(json["packing"]["f32_bytes"], 512);
    assert_eq!(json["tensors"][1]["packed"]["bits"], 2);

    let file = call(&["inspect", &format!("{path}/model.safetensors"), "--json"]);
    let file: Value = serde_json::from_str(&file.stdout).expect("JSON");
    assert_eq!(file["metadata"]["format"], "pt");
    assert_eq!(file["tensors"].as_array().map(Vec::len), Some(4), "codes, scales and zeros as they are stored");
}

#[test]
fn bad_checkpoints_are_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let name = path.to_str().expect("UTF-8");
    assert!(call(&["inspect", name]).error(1).starts_with(&format!("cannot read {name}: ")));

    write_packed(&path);
    let file = path.join("model.safetensors");
    let whole = fs::read(&file).expect("readable");
    let file_name = file.to_str().expect("UTF-8");
    fs::write(&file, &whole[..whole.len() - 1]).expect("cut");
    assert!(call(&["inspect", name]).error(1).contains("goes beyond the file's"));
    fs::write(&file, &whole[..100]).expect("cut");
    assert!(call(&["inspect", file_name]).error(1).contains("bad safetensors header: its length of"));
    fs::write(&file, u64::MAX.to_le_bytes()).expect("written");
    assert!(call(&["inspect", name]).error(1).starts_with(&format!("{file_name}: bad safetensors header")));
    fs::write(&file, [&10u64.to_le_bytes()[..], b"{\"\x1b[2J\":1}"].concat()).expect("written");
    assert!(!call(&["inspect", name]).error(1).contains('\u{1b}'));

    write_packed(&path);
    let config = path.join("config.json");
    let text = fs::read_to_string(&config).expect("readable").replace("\"bits\": 2", "\"bits\": 1");
    fs::write(&config, text).expect("written");
    let called = call(&["inspect", name]);
    assert!(called.error(2).contains("key `quantization_config`: tensor"), "{}", called.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_the_output_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write_packed(&path);
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let called = Called::of(lapidary().arg("inspect").arg(&path).stdout(full).output().expect("it starts"));
    assert!(called.error(1).starts_with("cannot write to standard output: "));
}
