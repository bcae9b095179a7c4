//! A model cut by a plan, packed, written and read again.

use std::path::Path;

use burn::tensor::Device;
use lapidary_data::{Batch, Encoded, Target};
use lapidary_kernels::rng::Stream;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::packed::CONFIG_KEY;
use lapidary_models::checkpoint::{Checkpoint, FolderContents, QuantizationConfig, TensorSource, write_folder};
use lapidary_models::load::{export, load};
use lapidary_models::{Classifier, Pass, Task, parameters};
use lapidary_quant::{BitPlan, CutOptions, Method, Precision, QuantError, cut, matrices, pack, plan_by_block};

const BLOCKS: usize = 2;
const GROUPS: usize = 5;

fn config() -> BertConfig {
    BertConfig {
        vocabulary: 50,
        width: 24,
        blocks: BLOCKS,
        heads: 3,
        feed_forward: 40,
        positions: 12,
        token_types: 2,
        norm_eps: 1e-12,
        deviation: 0.2,
        pad_id: 0,
        task: Task::Classes(vec!["no".into(), "yes".into(), "perhaps".into()]),
    }
}

fn model() -> Bert {
    Bert::new(&config(), 1, &Device::flex())
}

/// Rows of 12 to 7 random tokens, padded.
fn batch() -> Batch {
    let mut stream = Stream::new(2, 0);
    let rows: Vec<Encoded> = (0..6)
        .map(|row| {
            let ids: Vec<u32> = (0..12 - row).map(|_| stream.below(50) as u32).collect();
            Encoded { types: ids.iter().map(|id| id % 2).collect(), ids, image: None, target: Target::Class(0) }
        })
        .collect();
    Batch::collate(&rows.iter().collect::<Vec<_>>(), 0)
}

fn logits(model: &Bert) -> Vec<f32> {
    let logits = model.logits(&batch(), &Pass::evaluation());
    let elements = logits.shape().num_elements();
    parameters::elements(logits.reshape([elements]))
}

fn options(activation_bits: Option<u32>) -> CutOptions {
    CutOptions { method: Method::LeastSquares, embedding_bits: 8, activation_bits }
}

/// Packs a cut model into a folder.
fn write(model: &mut Bert, activation_bits: Option<u32>, folder: &Path) {
    let packed = pack(model).unwrap();
    let mut quantization = QuantizationConfig::new(activation_bits.unwrap_or(32) as u8);
    let mut tensors = Vec::new();
    for (name, tensor) in &packed {
        quantization.tensors.insert(name.clone(), *tensor.layout());
        tensors.extend(tensor.sources(name));
    }
    let dense = export(model).into_iter().filter(|tensor| !quantization.tensors.contains_key(&tensor.name));
    tensors.extend(dense.map(|tensor| TensorSource::f32(tensor.name, tensor.shape, tensor.data)));
    let mut config = config().to_json().as_object().unwrap().clone();
    config.insert(CONFIG_KEY.into(), serde_json::to_value(&quantization).unwrap());
    write_folder(folder, FolderContents { config: &config, tensors, tokenizer: None, model_card: "# Cut\n" }).unwrap();
}

fn read(folder: &Path) -> Bert {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.quantization().unwrap().unwrap().check(&checkpoint).unwrap();
    let config = BertConfig::read(checkpoint.config(), None).unwrap();
    // Fresh weights of another seed: all that is compared comes from the file.
    let (model, unshared) = load(Bert::new(&config, 9, &Device::flex()), &checkpoint).unwrap();
    assert!(unshared.fresh.is_empty() && unshared.extra.is_empty(), "{unshared:?}");
    model
}

#[test]
fn what_is_packed_is_what_was_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let dense = logits(&model());
    for block_bits in [[4, 4], [2, 2], [2, 3]] {
        let mut seen = vec![dense.clone()];
        for activation_bits in [None, Some(8)] {
            let mut model = model();
            let plan = plan_by_block(&mut model, &block_bits, block_bits[1], GROUPS).unwrap();
            let mut model = cut(model, &plan, &options(activation_bits)).unwrap();
            let evaluated = logits(&model);
            assert!(evaluated.iter().all(|logit| logit.is_finite()));

            write(&mut model, activation_bits, folder.path());
            assert_eq!(logits(&read(folder.path())), evaluated, "{block_bits:?}, activations {activation_bits:?}");
            assert!(!seen.contains(&evaluated), "{block_bits:?}: {activation_bits:?} changes nothing");
            seen.push(evaluated);
        }
    }
}

#[test]
fn every_matrix_and_table_is_packed_as_planned() {
    let mut model = model();
    let plan = plan_by_block(&mut model, &[2, 3], 4, GROUPS).unwrap();
    let mut model = cut(model, &plan, &options(None)).unwrap();
    let packed = pack(&mut model).unwrap();
    let tables = packed.iter().filter(|(name, _)| name.contains("embeddings"));
    for (name, table) in tables.clone() {
        assert_eq!((table.bits(), table.groups()), (8, table.shape()[0]), "{name}");
    }
    assert_eq!((tables.count(), packed.len()), (3, 3 + plan.len()));
    for (name, tensor) in packed.iter().filter(|(name, _)| !name.contains("embeddings")) {
        let planned = plan.get(name).unwrap();
        assert_eq!((u32::from(tensor.bits()), tensor.groups()), (planned.bits, planned.groups), "{name}");
    }
}

#[test]
fn cutting_leaves_the_weights_alone() {
    let mut whole = model();
    let plan = plan_by_block(&mut whole, &[2, 2], 2, GROUPS).unwrap();
    let before: Vec<Vec<f32>> = export(&whole).into_iter().map(|tensor| tensor.data).collect();
    let cut = cut(whole, &plan, &options(None)).unwrap();
    let after: Vec<Vec<f32>> = export(&cut).into_iter().map(|tensor| tensor.data).collect();
    assert_eq!(after, before);
}

#[test]
fn a_plan_from_bits_by_block() {
    let mut model = model();
    let plan = plan_by_block(&mut model, &[2, 3], 8, 30).unwrap();
    let shapes = matrices(&mut model);
    assert_eq!((plan.len(), shapes.len()), (6 * BLOCKS + 1, 6 * BLOCKS + 1));
    for ((name, precision), (shape, block)) in plan.iter().zip(&shapes) {
        assert_eq!(name, shape.name);
        let bits = block.map_or(8, |block| [2, 3][block]);
        assert_eq!(precision, Precision { bits, groups: 30.min(shape.rows) }, "{name}");
    }
    assert_eq!(shapes[0].0.name, "bert.encoder.layer.0.attention.self.query.weight");
    assert_eq!(shapes[6 * BLOCKS], (matrices(&mut model).pop().unwrap().0, None), "the pooler");

    let error = plan_by_block(&mut model, &[4], 4, GROUPS).unwrap_err();
    assert!(matches!(&error, QuantError::NoSuchLayer { layer: 1, layers: 1, .. }), "{error}");
    for (bits, groups) in [(1, 1), (9, 1), (4, 0)] {
        assert!(matches!(plan_by_block(&mut model, &[bits; 2], 4, groups), Err(QuantError::Parameter { .. })));
    }
}

#[test]
fn a_plan_for_another_model_is_an_error() {
    let mut model = model();
    let mut plan = plan_by_block(&mut model, &[4, 4], 4, GROUPS).unwrap();
    let missing = plan.iter().skip(1).fold(BitPlan::new(), |mut plan, (name, precision)| {
        plan.insert(name, precision).unwrap();
        plan
    });
    plan.insert("bert.encoder.layer.7.output.dense.weight", Precision { bits: 4, groups: 1 }).unwrap();
    let error = cut(model.clone(), &plan, &options(None)).unwrap_err();
    assert!(matches!(&error, QuantError::Unknown(_)), "{error}");
    assert!(error.to_string().contains("bert.encoder.layer.7.output.dense.weight"), "{error}");
    let error = cut(model, &missing, &options(None)).unwrap_err();
    assert!(matches!(&error, QuantError::Missing(_)), "{error}");
    assert!(error.to_string().contains("bert.encoder.layer.0.attention.self.query.weight"), "{error}");
}

/// The model with one element of a parameter changed.
fn with(model: Bert, path: &str, element: usize, value: f32) -> Bert {
    let mut found = false;
    let model = parameters::map(model, &mut |parameter| {
        if parameter.path != path {
            return parameter.value;
        }
        found = true;
        let mut values = parameters::elements(parameter.value.clone());
        values[element] = value;
        burn::tensor::Tensor::from_floats(values.as_slice(), &parameter.value.device())
    });
    assert!(found, "there is no parameter {path}");
    model
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let mut whole = model();
    let plan = plan_by_block(&mut whole, &[4, 4], 4, GROUPS).unwrap();
    // Row 2, column 3 of the up-projection, 24 columns.
    let broken = with(whole.clone(), "trunk.blocks.1.feed_forward.up.weight", 2 * 24 + 3, f32::NAN);
    let error = cut(broken, &plan, &options(None)).unwrap_err();
    assert!(matches!(&error, QuantError::Parameter { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("bert.encoder.layer.1.intermediate.dense.weight"), "{text}");
    assert!(text.contains("NaN in row 2, column 3"), "{text}");

    let broken = with(whole, "embeddings.word.weight", 0, f32::INFINITY);
    let error = pack(&mut cut(broken, &plan, &options(None)).unwrap()).unwrap_err().to_string();
    assert!(error.contains("bert.embeddings.word_embeddings.weight") && error.contains("inf"), "{error}");
}

#[test]
fn a_scale_that_training_drove_to_zero_is_named() {
    let mut whole = model();
    let plan = plan_by_block(&mut whole, &[4, 4], 4, GROUPS).unwrap();
    let cut = cut(whole, &plan, &options(None)).unwrap();
    let mut broken = with(cut, "trunk.blocks.0.attention.key.range.ratios", 2, 0.0);
    let error = pack(&mut broken).unwrap_err().to_string();
    assert!(error.contains("bert.encoder.layer.0.attention.self.key.weight"), "{error}");
    assert!(error.contains("group 2 has scale 0"), "{error}");
}
