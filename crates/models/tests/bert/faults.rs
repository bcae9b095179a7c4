//! Checkpoints that are not what they should be: each is an error that names the folder or file, and the tensor.

use burn::tensor::Device;
use lapidary_models::checkpoint::TensorSource;
use lapidary_models::load::{NamedTensor, export};

use super::{Golden, object, read, sources, write};

const QUERY: &str = "bert.encoder.layer.1.attention.self.query.weight";

/// The error of bert-a's checkpoint with some tensors changed, and others beside them.
fn error(change: impl FnOnce(&mut Vec<NamedTensor>), others: Vec<TensorSource<'static>>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let golden = Golden::open("bert-a");
    let mut tensors = export(&golden.model(&Device::flex()));
    change(&mut tensors);
    write(&path, &object(&golden.config()), sources(tensors).into_iter().chain(others).collect());
    let error = read(&path, &Device::flex()).expect_err("not a BERT").to_string();
    error.strip_prefix(&path.display().to_string()).unwrap_or_else(|| panic!("{error} names no folder")).to_owned()
}

fn query(tensors: &mut [NamedTensor]) -> &mut NamedTensor {
    tensors.iter_mut().find(|tensor| tensor.name == QUERY).expect("a BERT has it")
}

#[test]
fn a_missing_tensor() {
    let error = error(|tensors| tensors.retain(|tensor| tensor.name != QUERY), Vec::new());
    assert_eq!(error, format!(": no tensor `{QUERY}`"));
}

#[test]
fn a_tensor_of_another_shape() {
    let reshape = |tensors: &mut Vec<NamedTensor>| query(tensors).shape = vec![8, 32];
    assert_eq!(
        error(reshape, Vec::new()),
        format!("/model.safetensors: tensor `{QUERY}`: has shape [8, 32], the model needs [16, 16]")
    );
}

#[test]
fn a_tensor_that_is_not_of_floats() {
    let codes = TensorSource::u8(QUERY, [16, 16], vec![1; 256]);
    let error = error(|tensors| tensors.retain(|tensor| tensor.name != QUERY), vec![codes]);
    assert!(error.starts_with(&format!("/model.safetensors: tensor `{QUERY}`: is stored as U8")), "{error}");
}

#[test]
fn an_element_that_is_not_finite() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let error = error(|tensors| query(tensors).data[37] = value, Vec::new());
        let reason = format!("element 37 is {shown}, weights must be finite");
        assert_eq!(error, format!("/model.safetensors: tensor `{QUERY}`: {reason}"));
    }
}

#[test]
fn a_tensor_that_no_parameter_takes() {
    let unknown = |name: &str| error(|_| {}, vec![TensorSource::f32(name, [1], vec![0.0])]);
    assert_eq!(
        unknown("bert.encoder.layer.2.output.dense.bias"),
        ": tensor bert.encoder.layer.2.output.dense.bias belongs to no parameter of this model"
    );
    // Parts of a packed tensor that no configuration speaks of.
    assert!(unknown(&format!("{QUERY}.scales")).contains(&format!("tensor {QUERY}.scales belongs to no parameter")));
    // What a terminal would obey.
    assert!(unknown("\u{1b}[2J").contains(r"tensor \u{1b}[2J belongs"));
}
