use std::fs;

use half::{bf16, f16};
use lapidary_models::checkpoint::{Checkpoint, CheckpointError, Dtype, TensorF32, TensorSource};
use safetensors::tensor::TensorView;
use serde_json::json;

use super::{config, raw_file, text, write_plain};

#[test]
fn every_float_type_becomes_f32() {
    let folder = tempfile::tempdir().expect("a folder");
    let values = [1.5f32, -0.25, 65504.0];
    let tensor =
        |name: &str, dtype, bytes: Vec<u8>| TensorSource::new(name, dtype, [3], move |writer| writer.write_all(&bytes));
    let path = folder.path().join("model");
    write_plain(
        &path,
        vec![
            TensorSource::f32("f32", [3], &values[..]),
            tensor("f16", Dtype::F16, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
            tensor("bf16", Dtype::BF16, values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect()),
            tensor("f64", Dtype::F64, values.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect()),
            TensorSource::u8("u8", [2, 1], &[7, 9][..]),
            TensorSource::f32("scalar", [], &[3.0][..]),
            TensorSource::f32("none", [0, 5], &[][..]),
        ],
    )
    .expect("written");
    let checkpoint = Checkpoint::open(&path).expect("valid");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["bf16", "f16", "f32", "f64", "none", "scalar", "u8"]);
    for name in ["f32", "f16", "f64"] {
        let tensor = checkpoint.tensor(name).expect("a float");
        assert_eq!(tensor, TensorF32 { shape: vec![3], data: values.to_vec() }, "{name}");
    }
    assert_eq!(checkpoint.tensor("bf16").expect("a float").data, [1.5, -0.25, 65536.0]);
    assert_eq!(checkpoint.tensor("scalar").expect("a float"), TensorF32 { shape: vec![], data: vec![3.0] });
    assert_eq!(checkpoint.tensor("none").expect("a float"), TensorF32 { shape: vec![0, 5], data: vec![] });
    assert_eq!(checkpoint.bytes("u8").expect("bytes"), [7, 9]);
    let error = text(&checkpoint.tensor("u8").expect_err("no float"));
    assert!(error.contains("model.safetensors: tensor `u8`: is stored as U8"), "{error}");
}

#[test]
fn the_reference_implementation_agrees() {
    let folder = tempfile::tempdir().expect("a folder");
    let values: Vec<f32> = (0..300_000).map(|i| i as f32 * 0.1).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();

    // Theirs, read by ours: long enough to take several chunks.
    let views = [
        ("b.weight", TensorView::new(safetensors::Dtype::F32, vec![3, 100_000], &bytes).expect("a view")),
        ("a", TensorView::new(safetensors::Dtype::U8, vec![3], &[1, 2, 3]).expect("a view")),
    ];
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).expect("made");
    fs::write(theirs.join("config.json"), "{}").expect("written");
    safetensors::serialize_to_file(views, None, &theirs.join("model.safetensors")).expect("written");
    let checkpoint = Checkpoint::open(&theirs).expect("valid");
    assert_eq!(checkpoint.tensor("b.weight").expect("a float").data, values);
    assert_eq!(checkpoint.bytes("a").expect("bytes"), [1, 2, 3]);

    // Ours, read by theirs.
    let ours = folder.path().join("ours");
    let tensors = vec![TensorSource::u8("a", [3], &[1, 2, 3][..]), TensorSource::f32("b.weight", [3, 100_000], values)];
    write_plain(&ours, tensors).expect("written");
    let file = fs::read(ours.join("model.safetensors")).expect("readable");
    let read = safetensors::SafeTensors::deserialize(&file).expect("valid");
    assert_eq!(read.tensor("b.weight").expect("there").data(), bytes);
    assert_eq!(read.tensor("b.weight").expect("there").shape(), [3, 100_000]);
    assert_eq!(read.tensor("a").expect("there").data(), [1, 2, 3]);
}

#[test]
fn wrong_names_and_shapes_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write_plain(&path, vec![TensorSource::f32("pooler.dense.weight", [2, 3], vec![0.0; 6])]).expect("written");
    let checkpoint = Checkpoint::open(&path).expect("valid");
    let shape = text(&checkpoint.tensor_of_shape("pooler.dense.weight", &[3, 2]).expect_err("other shape"));
    assert!(shape.ends_with("tensor `pooler.dense.weight`: has shape [2, 3], the model needs [3, 2]"), "{shape}");
    let prefix = text(&checkpoint.tensor("bert.pooler.dense.weight").expect_err("other name"));
    assert!(prefix.ends_with("no tensor `bert.pooler.dense.weight`; did you mean `pooler.dense.weight`?"), "{prefix}");
    assert!(matches!(checkpoint.bytes("x"), Err(CheckpointError::MissingTensor { nearest: None, .. })));
}

#[test]
fn folders_that_are_no_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let error = || text(&Checkpoint::open(path).expect_err("no checkpoint"));
    assert!(error().starts_with(&format!("cannot read {}", path.join("config.json").display())), "{}", error());
    fs::write(path.join("config.json"), "{").expect("written");
    assert!(error().contains("config.json is not valid JSON"), "{}", error());
    fs::write(path.join("config.json"), "[1]").expect("written");
    assert!(error().contains("config.json: should be an object"), "{}", error());
    fs::write(path.join("config.json"), "{}").expect("written");
    assert!(error().contains("has neither model.safetensors nor model.safetensors.index.json"), "{}", error());
    let file = Checkpoint::open(&path.join("config.json")).expect_err("a file");
    assert!(text(&file).contains("is not a folder"));
    let none = Checkpoint::open(&path.join("none")).expect_err("nothing");
    assert!(text(&none).starts_with("cannot read "));
    fs::create_dir(path.join("model.safetensors")).expect("made");
    assert!(!error().is_empty());
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    fs::write(path.join("config.json"), serde_json::to_vec(&config()).expect("JSON")).expect("written");
    let one = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let two = r#"{"c":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
    raw_file(&path.join("1.safetensors"), one, 12);
    raw_file(&path.join("2.safetensors"), two, 3);
    raw_file(&folder.path().join("outside.safetensors"), two, 3);
    let index = |map: serde_json::Value| {
        let index = json!({"metadata": {}, "weight_map": map});
        fs::write(path.join("model.safetensors.index.json"), index.to_string()).expect("written");
        Checkpoint::open(path)
    };

    let right = json!({"a": "1.safetensors", "c": "2.safetensors", "b": "1.safetensors"});
    let checkpoint = index(right).expect("valid");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.tensor("b").expect("a float").data, [0.0, 0.0]);
    assert_eq!(checkpoint.bytes("c").expect("bytes"), [0, 0, 0]);

    let absolute = path.join("2.safetensors").display().to_string();
    for (map, expected) in [
        (json!({"a": "1.safetensors", "b": "1.safetensors", "c": "../outside.safetensors"}), "outside the folder"),
        (json!({"a": "1.safetensors", "b": "1.safetensors", "c": absolute}), "outside the folder"),
        (json!({"c": ""}), "outside the folder"),
        (json!({"c": "3.safetensors"}), "tensor `c` should be in `3.safetensors`, and there is no such file"),
        (json!({"a": "1.safetensors"}), "does not list tensor `b`"),
        (json!({"c": "2.safetensors", "d": "2.safetensors"}), "`2.safetensors` should have tensor `d` and has not"),
        (json!({"c": 2}), "the file of `c` is not a string"),
        (json!(["c"]), "has no object `weight_map`"),
        (json!({"c": "config.json"}), "config.json: bad safetensors header"),
    ] {
        let error = text(&index(map).expect_err(expected));
        assert!(error.contains(expected), "{error}\nshould have\n{expected}");
    }
}
