//! Every operator on three small networks against PyTorch and curvlinops in f64: `oracles/curvature.py`.
//!
//! A BERT, a residual network, and one that uses its weights more than once.

use std::path::Path;

use approx::assert_relative_eq;
use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use lapidary_curvature::eigen::{LanczosOptions, lanczos};
use lapidary_curvature::operator::{estimate_diagonal, exact_diagonal};
use lapidary_curvature::problem::{ClassifiedExamples, ClassifiedPictures};
use lapidary_curvature::trace::{TraceOptions, trace};
use lapidary_curvature::{
    GradientCovariance, Hessian, LinearOperator, Middle, Problem, RowCurvature, Selection, Surface, norm,
    symmetric_error,
};
use lapidary_data::Batch;
use lapidary_kernels::precision::Precision;
use lapidary_models::bert::Bert;
use lapidary_models::checkpoint::SafetensorsFile;
use lapidary_models::layer::{Embedding, Initializer, Linear, Norm, Pictures};
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};
use lapidary_models::{Checkpointed, ModelError, Pass, parameters};
use lapidary_ops as ops;

use super::hessian::{Oracle as BertOracle, model as bert};

/// The oracle's numbers for one network.
pub struct Oracle {
    file: SafetensorsFile,
    network: &'static str,
    /// What it calls the parameter at a path.
    name: fn(&str) -> String,
}

impl Oracle {
    fn open(network: &'static str, name: fn(&str) -> String) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/curvature.safetensors");
        Self { file: SafetensorsFile::open(&path).unwrap(), network, name }
    }

    pub fn numbers(&self, name: &str) -> Vec<f32> {
        self.file.tensor(&format!("{}.{name}", self.network)).unwrap().data
    }

    /// What it calls the parameter at a path.
    pub fn name_of(&self, path: &str) -> String {
        (self.name)(path)
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let bytes = self.file.bytes(&format!("{}.{name}", self.network)).unwrap();
        bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    /// A vector over a selection.
    fn vector(&self, kind: &str, selection: &Selection) -> Vec<f32> {
        let mut vector = Vec::with_capacity(selection.dim());
        for piece in selection.pieces() {
            let all = self.numbers(&format!("{kind}.{}", (self.name)(&piece.path)));
            vector.extend_from_slice(&all[piece.elements.clone()]);
        }
        vector
    }

    /// The network's own parameters and statistics.
    fn fill<M: Module>(&self, model: M) -> M {
        parameters::map(model, &mut |parameter| {
            let values = self.numbers(&format!("param.{}", (self.name)(parameter.path)));
            let shape = [values.len()];
            Tensor::from_data(TensorData::new(values, shape), &parameter.value.device())
        })
    }
}

/// A network with its examples.
pub struct Network<M, P> {
    pub oracle: Oracle,
    pub model: M,
    pub problem: P,
}

pub fn small_bert() -> Network<Bert, ClassifiedExamples> {
    let examples = BertOracle::open().examples();
    let batches = examples.chunks(3).map(|rows| Batch::collate(&rows.iter().collect::<Vec<_>>(), 0)).collect();
    Network {
        oracle: Oracle::open("bert", Bert::checkpoint_name),
        model: bert(),
        problem: ClassifiedExamples::new(batches),
    }
}

pub fn small_resnet() -> Network<ResNet, ClassifiedPictures> {
    let oracle = Oracle::open("resnet", str::to_owned);
    let config = ResNetConfig { blocks_per_stage: 1, channels: [4, 6, 8], classes: 5, shortcut: Shortcut::Projected };
    let device = Device::flex();
    let model = oracle.fill(ResNet::new(&config, 0, &device.clone().autodiff()));
    let (pictures, labels) = (oracle.numbers("images"), oracle.integers("labels"));
    let elements = pictures.len() / labels.len();
    let part = |rows: std::ops::Range<usize>| {
        let values = pictures[rows.start * elements..rows.end * elements].to_vec();
        let x = Tensor::from_data(TensorData::new(values, [rows.len() * elements / 3, 3]), &device);
        (Pictures { x, batch: rows.len(), height: 8, width: 8 }, labels[rows].to_vec())
    };
    let problem = ClassifiedPictures { parts: vec![part(0..4), part(4..labels.len())] };
    Network { oracle, model, problem }
}

/// A table that is also the output matrix, and a layer that is used twice.
#[derive(Module, Debug)]
pub struct Tied {
    embedding: Embedding,
    norm: Norm,
    shared: Linear,
}

pub struct TiedProblem {
    ids: Vec<u32>,
    targets: Vec<i64>,
}

impl Problem<Tied> for TiedProblem {
    fn parts(&self) -> usize {
        1
    }

    fn logits(&self, model: &Tied, _: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let mut x = model.norm.forward(model.embedding.forward(&self.ids, pass));
        for _ in 0..2 {
            x = x.clone() + ops::gelu(model.shared.forward(x, pass));
        }
        Ok(ops::linear(x, model.embedding.weight.val(), None, None, Precision::F32))
    }

    fn targets(&self, _: usize) -> Vec<i64> {
        self.targets.clone()
    }

    fn examples(&self, _: usize) -> usize {
        3
    }
}

pub fn tied() -> Network<Tied, TiedProblem> {
    let name = |path: &str| if path == "embedding.weight" { "embedding".to_owned() } else { path.to_owned() };
    let oracle = Oracle::open("tied", name);
    let init = &mut Initializer::new(0, 0.02, &Device::flex().autodiff());
    let model = Tied {
        embedding: Embedding::new(11, 6, init),
        norm: Norm::layer(6, 1e-5, init),
        shared: Linear::new(6, 6, true, init),
    };
    let ids = oracle.integers("ids").into_iter().map(|id| id as u32).collect();
    let problem = TiedProblem { ids, targets: oracle.integers("targets") };
    Network { model: oracle.fill(model), problem, oracle }
}

/// `‖actual - expected‖ / ‖expected‖`
pub fn distance(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    norm(&actual.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(expected)
}

impl<M: Module, P: Problem<M>> Network<M, P> {
    pub fn model_in(&self, dtype: FloatDType) -> M {
        parameters::cast(self.model.clone(), dtype)
    }

    fn surface(&self, dtype: FloatDType, wanted: impl Fn(&str) -> bool) -> Surface<'_, M, P> {
        let model = self.model_in(dtype);
        let selection = Selection::of(&model, wanted).unwrap();
        Surface::new(model, &self.problem, selection).unwrap()
    }

    fn operator<'a>(
        &'a self,
        kind: &str,
        dtype: FloatDType,
        wanted: impl Fn(&str) -> bool,
    ) -> Box<dyn LinearOperator + 'a> {
        let surface = self.surface(dtype, wanted);
        match kind {
            "hessian" => Box::new(Hessian::new(surface, None)),
            "ggn" => Box::new(RowCurvature::new(surface, Middle::GaussNewton, None).unwrap()),
            "fisher" => Box::new(RowCurvature::new(surface, Middle::Empirical, None).unwrap()),
            _ => Box::new(GradientCovariance::new(surface).unwrap()),
        }
    }

    /// Loss, gradient and products, in both precisions.
    fn check_products(&self) {
        for (dtype, tolerance) in [(FloatDType::F32, 1e-3), (FloatDType::F64, 1e-6)] {
            let mut surface = self.surface(dtype, |_| true);
            let (zeros, mut gradient) = (vec![0.0; surface.dim()], vec![0.0; surface.dim()]);
            let loss = surface.loss_at(&zeros, 0.0).unwrap();
            assert_relative_eq!(loss, f64::from(self.oracle.numbers("loss")[0]), max_relative = 1e-6);
            surface.gradient_at(&zeros, 0.0, &mut gradient).unwrap();
            let gradient: Vec<f32> = gradient.into_iter().map(|g| g as f32).collect();
            let selection = surface.selection().clone();
            let error = distance(&gradient, &self.oracle.vector("gradient", &selection));
            assert!(error < 0.01 * tolerance, "gradient in {dtype:?}: {error:e}");
            for kind in ["hessian", "ggn", "fisher", "covariance"] {
                let mut operator = self.operator(kind, dtype, |_| true);
                // The first product settles a step that the second takes.
                for number in 0..2 {
                    let v = self.oracle.vector(&format!("v{number}"), &selection);
                    let mut product = vec![0.0; v.len()];
                    operator.apply(&v, &mut product).unwrap();
                    let expected = self.oracle.vector(&format!("{kind}.v{number}"), &selection);
                    // A covariance is a difference of two that may be far larger than itself.
                    let scale = if kind == "covariance" { "fisher" } else { kind };
                    let scale = norm(&self.oracle.vector(&format!("{scale}.v{number}"), &selection));
                    let error = distance(&product, &expected) * norm(&expected) / scale;
                    assert!(error < tolerance, "{kind} of v{number} in {dtype:?}: {error:e}");
                }
                assert!(symmetric_error(&mut *operator, 1, 0).unwrap() < tolerance, "{kind} in {dtype:?}");
            }
        }
    }

    /// Both ends of the spectra, traces, and the diagonal along one matrix.
    fn check_questions(&self, matrix: &str) {
        for kind in ["hessian", "ggn"] {
            let spectrum = self.oracle.numbers(&format!("{kind}.eigenvalues"));
            let mut operator = self.operator(kind, FloatDType::F32, |_| true);
            let options = LanczosOptions { largest: 2, smallest: 1, tolerance: 2e-3, ..Default::default() };
            let found = lanczos(&mut *operator, &options, &mut |_| ()).unwrap();
            assert!(found.converged(), "{kind}: {found:?}");
            let top = f64::from(spectrum[spectrum.len() - 1]);
            assert_relative_eq!(found.largest[0].value, top, max_relative = 0.01);
            let second = f64::from(spectrum[spectrum.len() - 2]);
            assert_relative_eq!(found.largest[1].value, second, max_relative = 0.01);
            assert_relative_eq!(found.smallest[0].value, f64::from(spectrum[0]), epsilon = 0.01 * top);
        }
        for kind in ["hessian", "ggn", "fisher"] {
            let expected = f64::from(self.oracle.numbers(&format!("{kind}.trace"))[0]);
            let mut operator = self.operator(kind, FloatDType::F32, |_| true);
            let options = TraceOptions { tolerance: 0.05, sketch: 10, products: 100, seed: 1 };
            let found = trace(&mut *operator, &options, &mut |_| ()).unwrap();
            assert!((found.value - expected).abs() < 4.0 * found.standard_error.max(1e-3 * expected.abs()), "{kind}");

            let mut operator = self.operator(kind, FloatDType::F64, |path| path == matrix);
            let expected = self.oracle.numbers(&format!("{kind}.diagonal.{}", (self.oracle.name)(matrix)));
            let exact = exact_diagonal(&mut *operator).unwrap().entries;
            let error = distance(&exact, &expected);
            assert!(error < 1e-6, "diagonal of {kind}: {error:e}");
            let estimate = estimate_diagonal(&mut *operator, 60, 0).unwrap();
            let error = distance(&estimate.entries, &expected);
            assert!(error < 2.0 * estimate.relative_error(), "diagonal of {kind}: {error:e}");
        }
    }
}

#[test]
fn products_of_a_bert() {
    small_bert().check_products();
}

#[test]
fn products_of_a_residual_network() {
    small_resnet().check_products();
}

#[test]
fn products_where_weights_are_shared() {
    tied().check_products();
}

#[test]
fn spectrum_trace_and_diagonal_of_a_bert() {
    let network = small_bert();
    network.check_questions("trunk.blocks.1.attention.value.weight");
    for (block, top) in network.oracle.numbers("block.ggn.top").into_iter().enumerate() {
        let prefix = format!("trunk.blocks.{block}.");
        let mut operator = network.operator("ggn", FloatDType::F32, |path| path.starts_with(&prefix));
        let options = LanczosOptions { smallest: 0, ..Default::default() };
        let found = lanczos(&mut *operator, &options, &mut |_| ()).unwrap();
        assert_relative_eq!(found.largest[0].value, f64::from(top), max_relative = 0.01);
    }
}

#[test]
fn spectrum_trace_and_diagonal_of_a_residual_network() {
    small_resnet().check_questions("blocks.1.first.conv.weight");
}

#[test]
fn spectrum_trace_and_diagonal_where_weights_are_shared() {
    tied().check_questions("shared.weight");
}

#[test]
fn batch_statistics_are_only_looked_at() {
    let network = small_resnet();
    let statistics = |model: &ResNet| {
        let mut all = Vec::new();
        parameters::visit(model, &mut |parameter| {
            if parameter.path.contains("running") {
                all.extend(parameters::elements(parameter.value));
            }
        });
        all
    };
    let before = statistics(&network.model);
    let selection = Selection::of(&network.model, |_| true).unwrap();
    let surface = Surface::with_batch_statistics(network.model.clone(), &network.problem, selection.clone()).unwrap();
    let mut hessian = Hessian::new(surface, None);
    let v = network.oracle.vector("v0", &selection);
    let mut product = vec![0.0; v.len()];
    hessian.apply(&v, &mut product).unwrap();
    assert!(symmetric_error(&mut hessian, 1, 0).unwrap() < 2e-3);
    assert!(hessian.worst_error() < 2e-3, "{}", hessian.worst_error());
    assert!(distance(&product, &network.oracle.vector("hessian.v0", &selection)) > 0.1, "it is another loss");
    assert_eq!(statistics(&network.model), before, "the model's own statistics are as they were");
}

#[test]
fn what_was_tested_says_its_error() {
    let network = tied();
    let surface = network.surface(FloatDType::F64, |_| true);
    let mut operator = RowCurvature::new(surface, Middle::GaussNewton, None).unwrap();
    let v = network.oracle.vector("v0", operator.surface().selection());
    let mut product = vec![0.0; v.len()];
    // The first settles the step, the seventeenth is tested.
    for _ in 0..18 {
        operator.apply(&v, &mut product).unwrap();
    }
    assert!(operator.worst_error() < 1e-6 && operator.difference().is_some());
    // About five thirds of a gradient each.
    let gradients = operator.surface().gradients();
    assert!((25.0..35.0).contains(&gradients), "{gradients}");
}
