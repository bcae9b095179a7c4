//! The Hessian of a small BERT, block by block, against PyTorch's double backward in f64: `oracles/hessian.py`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use approx::assert_relative_eq;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_curvature::problem::{ClassifiedExamples, Problem};
use lapidary_curvature::{
    CurvatureError, Difference, Hessian, LinearOperator, PowerOptions, Selection, Surface, dot, norm, symmetric_error,
    top_eigenvalue,
};
use lapidary_data::{Batch, Encoded, Target};
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::{Checkpoint, SafetensorsFile};
use lapidary_models::load::load;
use lapidary_models::{Checkpointed, Classifier, ModelError, Pass, parameters};

const BLOCKS: usize = 2;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn model() -> Bert {
    let checkpoint = Checkpoint::open(&golden("bert-a")).unwrap();
    let config = BertConfig::read(checkpoint.config(), None).unwrap();
    let model = Bert::new(&config, 0, &Device::flex().autodiff());
    load(model, &checkpoint).unwrap().0
}

/// The oracle's numbers.
pub struct Oracle(SafetensorsFile);

impl Oracle {
    pub fn open() -> Self {
        Self(SafetensorsFile::open(&golden("bert-hessian.safetensors")).unwrap())
    }

    fn integers(&self, name: &str) -> Vec<u32> {
        let bytes = self.0.bytes(name).unwrap();
        bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as u32).collect()
    }

    /// The examples without their padding.
    pub fn examples(&self) -> Vec<Encoded> {
        let [ids, types, visible] = ["input_ids", "token_type_ids", "attention_mask"].map(|name| self.integers(name));
        let labels = self.integers("labels");
        let length = ids.len() / labels.len();
        let row = |(row, &label): (usize, &u32)| {
            let start = row * length;
            let end = start + visible[start..start + length].iter().sum::<u32>() as usize;
            let target = Target::Class(label);
            Encoded { ids: ids[start..end].into(), types: types[start..end].into(), image: None, target }
        };
        labels.iter().enumerate().map(row).collect()
    }

    /// A vector over a block's parameters, from the order of their names to that of the model's fields.
    fn vector(&self, block: usize, name: &str) -> Vec<f32> {
        let sorted = self.0.tensor(&format!("layer.{block}.{name}")).unwrap().data;
        let order = std::fs::read(golden("bert-hessian.json")).unwrap();
        let order: serde_json::Value = serde_json::from_slice(&order).unwrap();
        let offset = |entry: &serde_json::Value| {
            Some((entry["name"].as_str()?.to_owned(), usize::try_from(entry["offset"].as_u64()?).ok()?))
        };
        let entries = order["layers"][block].as_array().unwrap();
        let offsets: HashMap<String, usize> = entries.iter().map(|entry| offset(entry).unwrap()).collect();

        let mut vector = Vec::with_capacity(sorted.len());
        for (path, shape) in parameters::shapes(&model()) {
            if path.starts_with(&Bert::block_path(block)) {
                let start = offsets[&Bert::checkpoint_name(&path)];
                vector.extend_from_slice(&sorted[start..start + shape.iter().product::<usize>()]);
            }
        }
        assert_eq!(vector.len(), sorted.len());
        vector
    }

    fn top(&self, block: usize) -> f64 {
        f64::from(self.0.tensor(&format!("layer.{block}.top")).unwrap().data[0])
    }
}

/// The examples as `block` reads them, in batches of `rows`.
fn sample(examples: &[Encoded], rows: usize, block: usize) -> ClassifiedExamples {
    let batches = examples.chunks(rows).map(|rows| Batch::collate(&rows.iter().collect::<Vec<_>>(), 0)).collect();
    let mut sample = ClassifiedExamples::new(batches);
    sample.advance(&model().valid(), block);
    sample
}

type BertHessian<'a> = Hessian<'a, Bert, ClassifiedExamples>;

fn hessian(sample: &ClassifiedExamples, block: usize, difference: Option<Difference>) -> BertHessian<'_> {
    let model = model();
    let selection = Selection::of(&model, |path| path.starts_with(&Bert::block_path(block))).unwrap();
    Hessian::new(Surface::new(model, sample, selection).unwrap(), difference)
}

/// `||actual - expected|| / ||expected||`
fn distance(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    norm(&actual.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(expected)
}

fn gradient(hessian: &mut BertHessian) -> Vec<f32> {
    let (v, mut out) = (vec![0.0; hessian.dim()], vec![0.0; hessian.dim()]);
    hessian.surface().gradient_at(&v, 0.0, &mut out).unwrap();
    out.into_iter().map(|g| g as f32).collect()
}

fn product(hessian: &mut BertHessian, v: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; hessian.dim()];
    hessian.apply(v, &mut out).unwrap();
    out
}

#[test]
fn gradients_and_products_agree_with_double_backward() {
    let oracle = Oracle::open();
    for block in 0..BLOCKS {
        let sample = sample(&oracle.examples(), 8, block);
        let mut operator = hessian(&sample, block, None);
        let error = distance(&gradient(&mut operator), &oracle.vector(block, "gradient"));
        assert!(error < 1e-4, "block {block}: the gradient is off by {error:e}");

        let (v, expected) = (oracle.vector(block, "v"), oracle.vector(block, "hv"));
        assert!(operator.difference().is_none());
        let error = distance(&product(&mut operator, &v), &expected);
        assert!(error < 1e-3, "block {block}: the product is off by {error:e}");
        let settled = operator.difference().unwrap();
        assert!(settled.step > 0.0 && (0.0..1e-2).contains(&settled.error), "block {block}: {settled:?}");

        // The step has been settled along the most curved directions; here it is short, but not useless.
        let longer: Vec<f32> = v.iter().map(|v| -3.0 * v).collect();
        let expected: Vec<f32> = expected.iter().map(|hv| -3.0 * hv).collect();
        let error = distance(&product(&mut operator, &longer), &expected);
        assert!(error < 1e-2, "block {block}: the product with a longer vector is off by {error:e}");
        assert_eq!(operator.difference(), Some(settled));
        assert!(product(&mut operator, &vec![0.0; v.len()]).iter().all(|&x| x == 0.0));
        assert!(symmetric_error(&mut operator, 2, 0).unwrap() < 1e-2);
    }
}

/// Nine parts of which only the first says anything: the others are what a model has learnt by heart.
struct OneOfNine(ClassifiedExamples);

impl Problem<Bert> for OneOfNine {
    fn parts(&self) -> usize {
        9
    }

    fn logits(&self, model: &Bert, _: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        self.0.logits(model, 0, pass)
    }

    fn targets(&self, part: usize) -> Vec<i64> {
        let targets = Problem::<Bert>::targets(&self.0, 0);
        if part == 0 { targets } else { vec![IGNORED; targets.len()] }
    }
}

#[test]
fn a_step_does_not_hang_on_the_parts_that_it_is_looked_for_on() {
    let (oracle, block) = (Oracle::open(), 0);
    let problem = OneOfNine(sample(&oracle.examples(), 8, block));
    let selection = Selection::of(&model(), |path| path.starts_with(&Bert::block_path(block))).unwrap();
    let mut operator = Hessian::new(Surface::new(model(), &problem, selection).unwrap(), None);
    let (mut out, expected) = (vec![0.0; operator.dim()], oracle.vector(block, "hv"));
    operator.apply(&oracle.vector(block, "v"), &mut out).unwrap();
    let error = distance(&out, &expected);
    assert!(error < 1e-3, "the product is off by {error:e}");
    let settled = operator.difference().unwrap();
    assert!(settled.error > 0.0 && settled.error < 1e-3, "{settled:?}");
}

#[test]
fn power_iteration_finds_the_top_of_the_dense_spectrum() {
    let oracle = Oracle::open();
    for block in 0..BLOCKS {
        let sample = sample(&oracle.examples(), 8, block);
        let mut operator = hessian(&sample, block, None);
        let eigen = top_eigenvalue(&mut operator, &PowerOptions::default(), &mut |_| ()).unwrap();
        assert!(eigen.converged, "block {block}: residual {} after {}", eigen.residual, eigen.iterations);
        assert_relative_eq!(eigen.value, oracle.top(block), max_relative = 0.01);
        let along = dot(&eigen.vector, &oracle.vector(block, "eigenvector")).abs();
        assert!(along > 0.99, "block {block}: {along}");
    }
}

#[test]
fn batches_of_a_sample_add_up() {
    let oracle = Oracle::open();
    // One step for both; it suits the eigenvector.
    let difference = Some(Difference { step: 3e-3, error: 0.0 });
    for block in 0..BLOCKS {
        let v = oracle.vector(block, "eigenvector");
        let [whole, parts] = [8, 3].map(|rows| {
            let sample = sample(&oracle.examples(), rows, block);
            let mut operator = hessian(&sample, block, difference);
            [gradient(&mut operator), product(&mut operator, &v)]
        });
        for ((whole, parts), what) in whole.iter().zip(&parts).zip(["gradient", "product"]) {
            let error = distance(parts, whole);
            assert!(error < 1e-4, "block {block}: the {what} is off by {error:e}");
        }
    }
}

#[test]
fn a_label_without_a_class_is_an_error() {
    let mut examples = Oracle::open().examples();
    examples[2].target = Target::Class(9);
    let sample = sample(&examples, 8, 0);
    let mut operator = hessian(&sample, 0, None);
    let (v, mut out) = (vec![1.0; operator.dim()], vec![0.0; operator.dim()]);
    let error = operator.apply(&v, &mut out).unwrap_err();
    assert!(matches!(error, CurvatureError::Operator(_)), "{error}");
    assert!(error.to_string().contains("target 9 of row 2"), "{error}");
}
