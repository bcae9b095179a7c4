use lapidary_models::checkpoint::packed::{CONFIG_KEY, PackedTensor, QuantizationConfig, QuantizedTensor};
use lapidary_models::checkpoint::{
    Checkpoint, Component, Dtype, FolderContents, SafetensorsFile, Summary, TensorSource, write_folder,
};

use super::{config, write_plain};

fn plain() -> Vec<TensorSource<'static>> {
    vec![
        TensorSource::f32("bert.embeddings.word_embeddings.weight", [10, 4], vec![0.0; 40]),
        TensorSource::new("bert.embeddings.position_ids", Dtype::I64, [3], |writer| writer.write_all(&[0; 24])),
        TensorSource::f32("bert.encoder.layer.10.bias", [4], vec![0.0; 4]),
        TensorSource::f32("bert.encoder.layer.2.bias", [4], vec![0.0; 4]),
        TensorSource::f32("classifier.weight", [2, 4], vec![0.0; 8]),
    ]
}

#[test]
fn totals_by_component() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write_plain(&path, plain()).expect("written");
    let summary = Summary::of(&Checkpoint::open(&path).expect("valid")).expect("valid");
    let totals: Vec<_> = summary.components.iter().map(|t| (t.component, t.tensors, t.parameters, t.bytes)).collect();
    assert_eq!(
        totals,
        [(Component::Embeddings, 2, 40, 184), (Component::Encoder, 2, 8, 32), (Component::Head, 1, 8, 32)]
    );
    assert_eq!((summary.parameters, summary.bytes), (56, 248));
    assert_eq!(summary.bytes_without(Component::Embeddings), 64);
    assert_eq!(summary.tensors[2].name, "bert.encoder.layer.2.bias");
    assert!(summary.packing.is_none());
    assert!(summary.to_string().contains("total           5 tensors             56 parameters       248 B"));

    let file = SafetensorsFile::open(&path.join("model.safetensors")).expect("valid");
    assert_eq!(Summary::of_file(&file).bytes, summary.bytes);
}

#[test]
fn what_packing_saves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let layout = QuantizedTensor { bits: 4, groups: 2, shape: [8, 16] };
    let packed = PackedTensor::from_codes(layout, &[5; 128], vec![1.0; 2], vec![0; 2]).expect("consistent");
    let name = "bert.encoder.layer.0.output.dense.weight";
    let mut quantization = QuantizationConfig::new(8);
    quantization.tensors.insert(name.to_owned(), layout);
    let mut config = config();
    config.insert(CONFIG_KEY.to_owned(), serde_json::to_value(quantization).expect("JSON"));
    let tensors = plain().into_iter().chain(packed.sources(name)).collect();
    write_folder(&path, FolderContents { config: &config, tensors, tokenizer: None, model_card: "" }).expect("written");

    let summary = Summary::of(&Checkpoint::open(&path).expect("valid")).expect("valid");
    let packing = summary.packing.as_ref().expect("is packed");
    assert_eq!(summary.tensors.len(), 6, "the parts of a packed tensor are one row");
    assert_eq!((packing.tensors, packing.parameters, packing.bytes, packing.f32_bytes), (1, 128, 64 + 8 + 2, 512));
    assert_eq!(packing.bits_per_weight, 8.0 * 74.0 / 128.0);
    assert_eq!(summary.bytes, 248 + 74);
    assert_eq!(packing.checkpoint_f32_bytes, 248 + 512);
    assert_eq!(packing.saved_bytes, 512 - 74);
    let text = summary.to_string();
    assert!(text.contains("4b/2g") && text.contains("4.62 bits a weight"), "{text}");
    let json = serde_json::to_value(&summary).expect("JSON");
    assert_eq!(json["packing"]["saved_bytes"], 438);
}
