//! Checkpoints whose matrices are stored as codes.

use std::path::Path;

use burn::tensor::Device;
use lapidary_kernels::fake_quantize::fake_quantize_codes;
use lapidary_models::Checkpointed;
use lapidary_models::checkpoint::TensorSource;
use lapidary_models::checkpoint::packed::{CONFIG_KEY, PackedTensor, QuantizationConfig, QuantizedTensor, dequantize};
use lapidary_models::load::{NamedTensor, export};

use super::{Golden, logits, object, read, sources, write};

/// Matrices to pack: their bits and groups.
const PACKED: [(&str, u8, usize); 3] = [
    ("bert.encoder.layer.0.attention.self.key.weight", 2, 5),
    ("bert.encoder.layer.1.output.dense.weight", 3, 16),
    ("bert.embeddings.word_embeddings.weight", 8, 1),
];

/// Codes over the range from the least weight of a matrix to the greatest.
fn pack(tensor: &NamedTensor, bits: u8, groups: usize) -> PackedTensor {
    let [rows, columns] = tensor.shape[..] else { panic!("{} is no matrix", tensor.name) };
    let (least, greatest) = tensor.data.iter().fold((0f32, 0f32), |(a, b), &x| (a.min(x), b.max(x)));
    let scale = (greatest - least) / f32::from(u8::MAX >> (8 - bits));
    let (scales, zero) = (vec![scale; groups], (-least / scale).round());
    let mut codes = vec![0; rows * columns];
    fake_quantize_codes(&tensor.data, rows, columns, &scales, &vec![zero; groups], bits.into(), &mut codes);
    let layout = QuantizedTensor { bits, groups, shape: [rows, columns] };
    PackedTensor::from_codes(layout, &codes, scales, vec![zero as u8; groups]).expect("codes of so many bits")
}

/// bert-a's tensors, those of [`PACKED`] apart.
fn split(golden: &Golden) -> (Vec<NamedTensor>, Vec<(NamedTensor, PackedTensor)>) {
    let mut dense = export(&golden.model(&Device::flex()));
    let take = |&(name, bits, groups): &(&str, u8, usize)| {
        let place = dense.iter().position(|tensor| tensor.name == name).expect("a BERT has it");
        let tensor = dense.remove(place);
        let packed = pack(&tensor, bits, groups);
        (tensor, packed)
    };
    let packed = PACKED.iter().map(take).collect();
    (dense, packed)
}

/// bert-a with some matrices packed; `change` may spoil the configuration.
fn write_packed(path: &Path, activation_bits: u8, change: impl FnOnce(&mut QuantizationConfig)) {
    let golden = Golden::open("bert-a");
    let (dense, packed) = split(&golden);
    let mut quantization = QuantizationConfig::new(activation_bits);
    let mut tensors: Vec<TensorSource<'_>> = sources(dense);
    for (tensor, packed) in &packed {
        quantization.tensors.insert(tensor.name.clone(), *packed.layout());
        tensors.extend(packed.sources(&tensor.name));
    }
    change(&mut quantization);
    let mut config = object(&golden.config());
    config.insert(CONFIG_KEY.to_owned(), serde_json::to_value(quantization).expect("JSON"));
    write(path, &config, tensors);
}

#[test]
fn packed_matrices_load_as_what_their_codes_stand_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let (packed_path, dense_path) = (folder.path().join("packed"), folder.path().join("dense"));
    write_packed(&packed_path, 32, |_| {});

    let golden = Golden::open("bert-a");
    let (mut dense, packed) = split(&golden);
    for (tensor, packed) in packed {
        dense.push(NamedTensor { data: dequantize(&packed), ..tensor });
    }
    write(&dense_path, &object(&golden.config()), sources(dense));

    let (packed, unshared) = read(&packed_path, &Device::flex()).expect("a packed BERT");
    assert!(unshared.fresh.is_empty() && unshared.extra.is_empty());
    let (dense, _) = read(&dense_path, &Device::flex()).expect("a BERT");
    let batch = golden.batch();
    assert_eq!(logits(&packed, &batch), logits(&dense, &batch));
    assert_ne!(logits(&packed, &batch), logits(&golden.model(&Device::flex()), &batch));
}

#[test]
fn activations_are_rounded_before_packed_matrices_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write_packed(&path, 8, |_| {});
    let (mut model, _) = read(&path, &Device::flex()).expect("a packed BERT");
    for matrix in model.matrices_mut() {
        let packed = PACKED.iter().any(|(name, ..)| *name == matrix.name);
        assert_eq!(matrix.linear.activation_bits, packed.then_some(8), "{}", matrix.name);
    }
}

#[test]
fn configurations_that_do_not_fit_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let error = |change: &dyn Fn(&mut QuantizationConfig)| {
        write_packed(&path, 32, change);
        let error = read(&path, &Device::flex()).expect_err("does not fit").to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        error
    };
    let (name, ..) = PACKED[0];
    let unlisted = error(&|quantization| quantization.tensors.retain(|listed, _| listed != name));
    assert!(unlisted.ends_with(&format!(": no tensor `{name}`")), "{unlisted}");

    let absent = |quantization: &mut QuantizationConfig| {
        let layout = QuantizedTensor { bits: 2, groups: 1, shape: [1, 1] };
        quantization.tensors.insert("bert.encoder.layer.9.output.dense.weight".to_owned(), layout);
    };
    let absent = error(&absent);
    assert!(absent.ends_with("no tensor `bert.encoder.layer.9.output.dense.weight.codes`"), "{absent}");

    // As many bytes a row, another number of columns.
    let other = |quantization: &mut QuantizationConfig| {
        quantization.tensors.get_mut(name).expect("is listed").shape = [16, 15];
    };
    let other = error(&other);
    assert!(
        other.ends_with(&format!("tensor `{name}`: is packed with shape [16, 15], the model needs [16, 16]")),
        "{other}"
    );
}
