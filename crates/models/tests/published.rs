//! Decoders as other people publish them, against `transformers` (see `oracles/published.py`).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use lapidary_kernels::mask::Mask;
use lapidary_models::checkpoint::{Checkpoint, SafetensorsFile};
use lapidary_models::decoder::Decoder;
use lapidary_models::{Pass, parameters, published};
use serde_json::{Value, json};

const GOLDEN: [&str; 4] = ["llama-a", "llama-b", "gemma3-a", "gemma3-b"];

/// Rows of an input of the golden files.
const ROWS: usize = 3;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn open(folder: &Path, device: &Device) -> Result<Decoder, String> {
    let checkpoint = Checkpoint::open(folder).map_err(|error| error.to_string())?;
    published::open(&checkpoint, device).map_err(|error| error.to_string())
}

fn values(x: Tensor<2>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn logits_are_those_of_transformers() {
    for name in GOLDEN {
        let model = open(&folder(name), &Device::flex()).unwrap();
        let expected = SafetensorsFile::open(&folder(name).join("expected.safetensors")).unwrap();
        let ids = expected.bytes("input_ids").unwrap();
        let ids: Vec<u32> = ids.as_chunks().0.iter().map(|id| i64::from_le_bytes(*id) as u32).collect();
        let found = values(model.logits(&ids, ROWS, &Mask::causal(), &Pass::evaluation()).unwrap());
        let expected = expected.tensor("logits").unwrap().data;
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name}: {found} for {expected}");
        }
    }
}

/// By differences of the loss, of a parameter of each kind; the table of tokens is read twice.
#[test]
fn gradients_reach_every_parameter() {
    let device = Device::flex().autodiff();
    for name in ["llama-a", "gemma3-a"] {
        let model = open(&folder(name), &device).unwrap();
        let ids: Vec<u32> = (0..18).map(|i| 3 + i * i % 50).collect();
        let targets: Vec<i64> = (0..18).map(|i| 3 + i * 7 % 50).collect();
        let loss = |model: &Decoder| model.loss(&ids, &targets, 2, &Mask::causal(), 18.0, &Pass::evaluation()).unwrap();
        let gradients = parameters::gradients(&model, loss(&model).backward());
        let mut seen = Vec::new();
        parameters::visit(&model, &mut |parameter| {
            let elements = parameters::elements(parameter.value.clone()).len();
            let gradient = gradients.get(&parameter.id).unwrap_or_else(|| panic!("{} has none", parameter.path));
            seen.push((parameter.path.to_owned(), elements / 2, parameters::elements(gradient.clone())[elements / 2]));
        });
        for (path, place, gradient) in seen {
            let moved = |by: f32| {
                let moved = parameters::map(model.clone(), &mut |parameter| {
                    if parameter.path != path {
                        return parameter.value;
                    }
                    let mut data = parameters::elements(parameter.value.clone());
                    data[place] += by;
                    Tensor::from_data(data.as_slice(), &parameter.value.device())
                });
                f64::from(loss(&moved).into_scalar::<f32>())
            };
            let difference = (moved(0.01) - moved(-0.01)) / 0.02;
            let error = (f64::from(gradient) - difference).abs();
            assert!(error < 2e-3 + 0.02 * difference.abs(), "{name} {path}: {gradient} for {difference}");
        }
    }
}

/// A folder with the tensors of `name` and its settings changed.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(folder(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(copy.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(folder(name).join("model.safetensors"), copy.path().join("model.safetensors")).unwrap();
    copy
}

#[test]
fn settings_that_make_no_sense_are_told_by_name() {
    let huge = json!(1_u64 << 60);
    let cases = [
        ("llama-a", "model_type", json!("mamba"), "no such decoder"),
        ("llama-a", "num_key_value_heads", json!(3), "whole groups of 4 heads"),
        ("llama-a", "head_dim", json!(7), "only an even width"),
        ("llama-a", "head_dim", huge.clone(), "parameters"),
        ("llama-a", "num_hidden_layers", huge.clone(), "parameters"),
        ("llama-a", "vocab_size", huge, "parameters"),
        ("llama-a", "hidden_size", json!(0), "is 0"),
        ("llama-a", "hidden_act", json!("tanh"), "should be silu"),
        ("llama-a", "rope_parameters", json!({ "rope_type": "yarn", "rope_theta": 1e4 }), "default, linear or llama3"),
        ("llama-a", "rope_parameters", json!({ "rope_type": "linear", "rope_theta": 1e4 }), "has no factor"),
        ("llama-a", "rope_parameters", json!({ "rope_theta": -1.0 }), "should be positive"),
        ("llama-b", "tie_word_embeddings", json!("yes"), "tie_word_embeddings"),
        ("gemma3-a", "layer_types", json!(["full_attention"]), "1 blocks of 4"),
        ("gemma3-a", "layer_types", json!(["linear_attention", "a", "b", "c"]), "linear_attention"),
        ("gemma3-a", "final_logit_softcapping", json!(30.0), "not implemented"),
        ("gemma3-b", "rope_local_base_freq", json!("fast"), "rope_local_base_freq"),
        ("gemma3-b", "query_pre_attn_scalar", json!(0), "should be positive"),
    ];
    for (name, key, value, expected) in cases {
        let folder = changed(name, |config| config[key] = value.clone());
        let error = open(folder.path(), &Device::flex()).unwrap_err();
        assert!(error.contains(expected), "{key} = {value}: {error}");
    }
}

#[test]
fn a_tensor_that_is_missing_or_left_over_is_told_by_name() {
    let untied = changed("llama-a", |config| config["tie_word_embeddings"] = json!(false));
    let error = open(untied.path(), &Device::flex()).unwrap_err();
    assert!(error.contains("lm_head.weight"), "{error}");
    let shorter = changed("llama-b", |config| config["num_hidden_layers"] = json!(1));
    let error = open(shorter.path(), &Device::flex()).unwrap_err();
    assert!(error.contains("model.layers.1."), "{error}");
}
