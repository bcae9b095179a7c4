use burn::tensor::Device;
use lapidary_models::Task;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::{Checkpoint, Dtype, TensorSource};
use lapidary_models::load::{export, load, load_for_task};

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

/// The head of two classes is of no use to one of three; the pooler is.
#[test]
fn a_head_of_other_classes_begins_fresh_for_another_task() {
    let golden = Golden::open("bert-a");
    let checkpoint = Checkpoint::open(&golden.path).expect("a checkpoint");
    let names = ["a", "b", "c"].map(String::from).to_vec();
    let model = |task: Task| Bert::new(&BertConfig { task, ..golden.config() }, 1, &Device::flex());
    let error = load(model(Task::Classes(names.clone())), &checkpoint).expect_err("another shape").to_string();
    assert!(error.contains("classifier.weight") && error.contains("the model needs [3, 16]"), "{error}");
    let head = ["classifier.weight", "classifier.bias"].map(String::from);
    for (task, fresh, extra) in [
        (Task::Classes(names.clone()), head.to_vec(), head.to_vec()),
        (Task::Classes(names[1..].to_vec()), Vec::new(), Vec::new()),
        (
            Task::Spans,
            ["qa_outputs.weight", "qa_outputs.bias"].map(String::from).to_vec(),
            [&["bert.pooler.dense.bias", "bert.pooler.dense.weight"].map(String::from)[..], &head].concat(),
        ),
    ] {
        let (_, mut unshared) = load_for_task(model(task), &checkpoint).expect("the encoder fits");
        unshared.extra.sort_unstable();
        let mut extra = extra;
        extra.sort_unstable();
        assert_eq!((unshared.fresh, unshared.extra), (fresh, extra));
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
