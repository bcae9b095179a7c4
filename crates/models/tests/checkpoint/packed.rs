use std::path::Path;

use lapidary_models::checkpoint::packed::{
    CONFIG_KEY, PackedTensor, QuantizationConfig, QuantizedTensor, dequantize, pack_codes, read_packed, unpack_codes,
};
use lapidary_models::checkpoint::{Checkpoint, CheckpointError, FolderContents, TensorSource, write_folder};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{config, text};

const NAME: &str = "encoder.layer.0.attention.self.query.weight";

fn sample() -> PackedTensor {
    let layout = QuantizedTensor { bits: 3, groups: 2, shape: [4, 3] };
    let codes: Vec<u8> = (0..12).map(|i| i % 8).collect();
    PackedTensor::from_codes(layout, &codes, vec![0.5, 0.25], vec![3, 0]).expect("consistent")
}

/// The sample's `config.json`.
fn packed_config() -> Map<String, Value> {
    let mut quantization = QuantizationConfig::new(8);
    quantization.tensors.insert(NAME.to_owned(), *sample().layout());
    let mut config = config();
    config.insert(CONFIG_KEY.to_owned(), serde_json::to_value(quantization).expect("JSON"));
    config
}

fn write(path: &Path, config: &Map<String, Value>, tensors: Vec<TensorSource<'_>>) {
    write_folder(path, FolderContents { config, tensors, tokenizer: None, model_card: "" }).expect("written");
}

/// What the checkpoint of this config and these tensors gives for the sample's name.
fn read(config: &Map<String, Value>, tensors: Vec<TensorSource<'_>>) -> Result<PackedTensor, CheckpointError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    write(&path, config, tensors);
    let checkpoint = Checkpoint::open(&path)?;
    let quantization = checkpoint.quantization()?.expect("is packed");
    read_packed(&checkpoint, &quantization, NAME)
}

#[test]
fn a_packed_checkpoint_is_read_as_it_was_written() {
    let sample = sample();
    let config = packed_config();
    assert_eq!(
        config[CONFIG_KEY],
        json!({"quant_method": "lapidary", "version": 1, "activation_bits": 8,
               "tensors": {NAME: {"bits": 3, "groups": 2, "shape": [4, 3]}}})
    );
    let read = read(&config, sample.sources(NAME).into()).expect("valid");
    assert_eq!(read, sample);
    assert_eq!(dequantize(&read)[..6], [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0]);
    assert_eq!(dequantize(&read)[6..], [1.5, 1.75, 0.0, 0.25, 0.5, 0.75]);
}

#[test]
fn configurations_that_cannot_be() {
    let with = |pointer: &str, value: Value| {
        let mut config = Value::Object(packed_config());
        *config.pointer_mut(&format!("/{CONFIG_KEY}{pointer}")).expect("is there") = value;
        let config = config.as_object().expect("an object").clone();
        let error = read(&config, sample().sources(NAME).into()).expect_err(pointer);
        (error.is_config(), text(&error))
    };
    let tensor = format!("/tensors/{NAME}");
    for (pointer, value, expected) in [
        ("/quant_method", json!("gptq"), "method `gptq` is not one that can be read"),
        ("/quant_method", json!(null), "`quant_method` is missing"),
        ("/version", json!(2), "is of version 2, this program reads 1"),
        ("/activation_bits", json!(1), "activation_bits should be 2 to 8 or 32, is 1"),
        ("/activation_bits", json!(300), "invalid value"),
        (&format!("{tensor}/bits"), json!(9), "bits should be 2 to 8, are 9"),
        (&format!("{tensor}/groups"), json!(0), "groups should be 1 to 4"),
        (&format!("{tensor}/groups"), json!(5), "groups should be 1 to 4"),
        (&format!("{tensor}/shape"), json!([4]), "invalid length 1"),
        (&format!("{tensor}/shape"), json!([4, 0]), "has no elements"),
        (&format!("{tensor}/shape"), json!([u64::MAX, 3]), "more elements than can be counted"),
        (&tensor, json!({"bits": 3, "groups": 2, "shape": [4, 3], "zero": 1}), "unknown field `zero`"),
    ] {
        let (is_config, error) = with(pointer, value);
        assert!(is_config && error.contains(&format!("key `{CONFIG_KEY}`")), "{error}");
        assert!(error.contains(expected), "{error}\nshould have\n{expected}");
    }
    let (_, error) = with(&format!("{tensor}/shape"), json!([4, 12]));
    assert!(
        error.contains(&format!("tensor `{NAME}.codes`: is U8 [4, 2], {CONFIG_KEY} makes it U8 [4, 5]")),
        "{error}"
    );
}

#[test]
fn tensors_that_do_not_fit_their_configuration() {
    let sample = sample();
    let error = |change: &dyn Fn(&mut Vec<TensorSource<'static>>)| {
        let mut tensors = vec![
            TensorSource::u8(format!("{NAME}.codes"), [4, 2], sample.codes().to_vec()),
            TensorSource::f32(format!("{NAME}.scales"), [2], sample.scales().to_vec()),
            TensorSource::u8(format!("{NAME}.zeros"), [2], sample.zeros().to_vec()),
        ];
        change(&mut tensors);
        text(&read(&packed_config(), tensors).expect_err("inconsistent"))
    };
    let [codes, scales, zeros] = ["codes", "scales", "zeros"].map(|part| format!("{NAME}.{part}"));
    for (error, expected) in [
        (error(&|t| drop(t.remove(1))), format!("no tensor `{scales}`")),
        (error(&|t| t[1] = TensorSource::u8(&*scales, [2], vec![1, 1])), format!("`{scales}`: is U8 [2]")),
        (error(&|t| t[1] = TensorSource::f32(&*scales, [2], vec![1.0, 0.0])), "scale 0 of group 1".to_owned()),
        (
            error(&|t| t[1] = TensorSource::f32(&*scales, [2], vec![f32::INFINITY; 2])),
            "scale inf of group 0".to_owned(),
        ),
        (error(&|t| t[2] = TensorSource::u8(&*zeros, [2], vec![0, 8])), "zero code 8 of group 1 is over 7".to_owned()),
        (error(&|t| t[2] = TensorSource::u8(&*zeros, [1, 2], vec![0, 0])), format!("`{zeros}`: is U8 [1, 2]")),
        (error(&|t| t[0] = TensorSource::u8(&*codes, [8], vec![0; 8])), format!("`{codes}`: is U8 [8]")),
        (error(&|t| t[0] = TensorSource::u8(&*codes, [4, 2], vec![255; 8])), "bits after the end of a row".to_owned()),
        (error(&|t| t.push(TensorSource::f32(NAME, [1], vec![0.0]))), "stored both packed and unpacked".to_owned()),
    ] {
        assert!(error.contains(&expected), "{error}\nshould have\n{expected}");
    }
}

/// Bits, shape and one code for each element.
fn codes() -> impl Strategy<Value = (u8, usize, usize, Vec<u8>)> {
    (2u8..=8, 1usize..20, 1usize..50).prop_flat_map(|(bits, rows, cols)| {
        let code = 0..=u8::MAX >> (8 - bits);
        (Just(bits), Just(rows), Just(cols), prop::collection::vec(code, rows * cols))
    })
}

proptest! {
    #[test]
    fn codes_come_back((bits, rows, cols, codes) in codes()) {
        let packed = pack_codes(&codes, rows, cols, bits);
        prop_assert_eq!(packed.len(), rows * (cols * usize::from(bits)).div_ceil(8));
        prop_assert_eq!(&unpack_codes(&packed, rows, cols, bits), &codes);
        // The slow twin: bit `b` of code `c` is bit `c·bits + b` of its row.
        for (row, packed) in packed.chunks(packed.len() / rows).enumerate() {
            for (col, bit) in (0..cols).flat_map(|col| (0..usize::from(bits)).map(move |bit| (col, bit))) {
                let place = col * usize::from(bits) + bit;
                prop_assert_eq!(packed[place / 8] >> (place % 8) & 1, codes[row * cols + col] >> bit & 1);
            }
        }
    }

    #[test]
    fn weights_come_back_by_group((bits, rows, cols, codes) in codes(), groups in 1usize..20, seed: u8) {
        let groups = groups.min(rows);
        let layout = QuantizedTensor { bits, groups, shape: [rows, cols] };
        let scales: Vec<f32> = (0..groups).map(|g| 0.1 + g as f32).collect();
        let zeros: Vec<u8> = (0..groups).map(|g| (seed ^ g as u8) >> (8 - bits)).collect();
        let packed = PackedTensor::from_codes(layout, &codes, scales.clone(), zeros.clone()).expect("consistent");
        for (index, weight) in dequantize(&packed).into_iter().enumerate() {
            let group = (0..groups).find(|g| index / cols < (g + 1) * rows / groups).expect("every row has one");
            prop_assert_eq!(weight, scales[group] * (f32::from(codes[index]) - f32::from(zeros[group])));
        }
    }
}
