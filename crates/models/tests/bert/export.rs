use burn::tensor::Device;
use lapidary_models::checkpoint::{Dtype, TensorSource};
use lapidary_models::load::export;

use super::{GOLDEN, Golden, logits, object, read, sources, values, write};

#[test]
fn a_model_that_was_written_is_the_same_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    for golden in GOLDEN.map(Golden::open) {
        let model = golden.model(&Device::flex());
        write(&path, &object(&golden.config()), sources(export(&model)));
        let again = Golden { path: path.clone(), expected: golden.expected.clone() };
        assert_eq!(again.config(), golden.config());
        assert_eq!(logits(&again.model(&Device::flex()), &golden.batch()), logits(&model, &golden.batch()));
    }
}

/// As sentence encoders are saved: without the prefix and without a classifier.
#[test]
fn a_bare_encoder_gets_a_fresh_classifier() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let golden = Golden::open("bert-a");
    let (model, batch) = (golden.model(&Device::flex()), golden.batch());
    let mut tensors = export(&model);
    tensors.retain(|tensor| !tensor.name.starts_with("classifier."));
    for tensor in &mut tensors {
        tensor.name = tensor.name.strip_prefix("bert.").expect("all others have it").to_owned();
    }
    write(&path, &object(&golden.config()), sources(tensors));
    let (bare, unshared) = read(&path, &Device::flex()).expect("an encoder");
    assert_eq!(unshared.fresh, ["classifier.weight", "classifier.bias"]);
    assert!(unshared.extra.is_empty());
    for (bare, whole) in bare.hidden_states(&batch).into_iter().zip(model.hidden_states(&batch)) {
        assert_eq!(values(bare), values(whole));
    }
}

#[test]
fn what_pretraining_leaves_behind_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let golden = Golden::open("bert-a");
    let model = golden.model(&Device::flex());
    let mut tensors = sources(export(&model));
    let ids: Vec<u8> = (0..24i64).flat_map(i64::to_le_bytes).collect();
    tensors.push(TensorSource::new("bert.embeddings.position_ids", Dtype::I64, [1, 24], move |to| to.write_all(&ids)));
    tensors.push(TensorSource::f32("cls.predictions.bias", [61], vec![0.0; 61]));
    write(&path, &object(&golden.config()), tensors);
    let (again, unshared) = read(&path, &Device::flex()).expect("a BERT");
    assert!(unshared.fresh.is_empty());
    assert_eq!(unshared.extra, ["bert.embeddings.position_ids", "cls.predictions.bias"]);
    assert_eq!(logits(&again, &golden.batch()), logits(&model, &golden.batch()));
}
