//! Kronecker factors against curvlinops in f64 (`oracles/curvature.py`), and what they are as operators.

use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};
use lapidary_curvature::kronecker::{InputFactor, LayerFactors, Sharing, kronecker_factors};
use lapidary_curvature::problem::ClassifiedExamples;
use lapidary_curvature::{CurvatureError, Dense, LinearOperator, Middle, Problem, Selection, Surface};
use lapidary_data::Batch;
use lapidary_models::bert::Bert;
use lapidary_models::{ModelError, Pass};

use super::golden::{Network, distance, small_bert, small_resnet, tied};

const KINDS: [(&str, Middle); 2] = [("type2", Middle::GaussNewton), ("empirical", Middle::Empirical)];
const SHARINGS: [(&str, Sharing); 2] = [("expand", Sharing::Expand), ("reduce", Sharing::Reduce)];

/// Examples whose padding counts, as curvlinops has it.
struct Padded(ClassifiedExamples);

impl Problem<Bert> for Padded {
    fn parts(&self) -> usize {
        Problem::<Bert>::parts(&self.0)
    }

    fn logits(&self, model: &Bert, part: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        self.0.logits(model, part, pass)
    }

    fn targets(&self, part: usize) -> Vec<i64> {
        Problem::<Bert>::targets(&self.0, part)
    }
}

fn factors<M: Module, P: Problem<M>>(
    network: &Network<M, P>,
    dtype: FloatDType,
    middle: Middle,
    sharing: Sharing,
) -> Vec<LayerFactors> {
    let model = network.model_in(dtype);
    let selection = Selection::of(&model, |_| true).unwrap();
    kronecker_factors(&mut Surface::new(model, &network.problem, selection).unwrap(), middle, sharing).unwrap()
}

fn full(factors: &LayerFactors) -> Vec<f32> {
    match &factors.input {
        InputFactor::Full(input) => flat(input),
        InputFactor::Diagonal(input) => input.iter().map(|&x| x as f32).collect(),
    }
}

fn flat(matrix: &faer::Mat<f64>) -> Vec<f32> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)] as f32)).collect()
}

fn check<M: Module, P: Problem<M>>(network: &Network<M, P>, layers: usize) {
    for (dtype, tolerance) in [(FloatDType::F32, 1e-4), (FloatDType::F64, 1e-6)] {
        for (kind, middle) in KINDS {
            for (approximation, sharing) in SHARINGS {
                let mut compared = 0;
                for factors in factors(network, dtype, middle, sharing) {
                    if matches!(factors.input, InputFactor::Diagonal(_)) {
                        continue;
                    }
                    let name = network.oracle.name_of(&factors.weight);
                    let layer = name.strip_suffix(".weight").unwrap();
                    let expected = network.oracle.numbers(&format!("kfac.{approximation}.{layer}.input"));
                    let error = distance(&full(&factors), &expected);
                    assert!(error < tolerance, "{kind} {approximation} {layer} in {dtype:?}: input off by {error:e}");
                    let expected = network.oracle.numbers(&format!("kfac.{kind}.{approximation}.{layer}.gradient"));
                    let found = flat(&factors.gradient);
                    // That of attention's keys adds up to nothing: a shift of all keys changes no probability.
                    let scale = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let error = if scale < 1e-12 { 0.0 } else { distance(&found, &expected) };
                    assert!(
                        error < tolerance,
                        "{kind} {approximation} {layer} in {dtype:?}: gradient off by {error:e}"
                    );
                    compared += 1;
                }
                assert_eq!(compared, layers);
            }
        }
    }
}

#[test]
fn factors_of_a_residual_network() {
    check(&small_resnet(), 10);
}

#[test]
fn factors_of_a_bert() {
    let Network { oracle, model, .. } = small_bert();
    let examples = super::hessian::Oracle::open().examples();
    let batch = Batch::collate(&examples.iter().collect::<Vec<_>>(), 0);
    check(&Network { oracle, model, problem: Padded(ClassifiedExamples::new(vec![batch])) }, 14);
}

#[test]
fn factors_where_a_weight_is_used_twice() {
    check(&tied(), 1);
}

#[test]
fn a_table_has_the_shares_of_its_rows() {
    let network = tied();
    let all = factors(&network, FloatDType::F64, Middle::Empirical, Sharing::Expand);
    let table = all.iter().find(|factors| factors.weight == "embedding.weight").unwrap();
    let InputFactor::Diagonal(shares) = &table.input else { panic!("a diagonal") };
    assert_eq!((shares.len(), table.gradient.nrows(), table.dim()), (11, 6, 66));
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(shares.iter().all(|share| (share * 15.0).fract().min(1.0 - (share * 15.0).fract()) < 1e-9));
}

#[test]
fn factors_do_not_depend_on_the_batches() {
    let by = |rows: usize, sharing: Sharing| {
        let Network { oracle, model, .. } = small_bert();
        let examples = super::hessian::Oracle::open().examples();
        let batches = examples.chunks(rows).map(|rows| Batch::collate(&rows.iter().collect::<Vec<_>>(), 0)).collect();
        let network = Network { oracle, model, problem: ClassifiedExamples::new(batches) };
        factors(&network, FloatDType::F64, Middle::GaussNewton, sharing)
    };
    for (_, sharing) in SHARINGS {
        for (whole, parts) in by(8, sharing).iter().zip(&by(3, sharing)) {
            assert_eq!(whole.weight, parts.weight);
            let error = distance(&full(parts), &full(whole));
            assert!(error < 1e-6, "{}: input off by {error:e}", whole.weight);
            let (found, expected) = (flat(&parts.gradient), flat(&whole.gradient));
            if expected.iter().any(|x| x.abs() > 1e-12) {
                let error = distance(&found, &expected);
                assert!(error < 1e-6, "{}: gradient off by {error:e}", whole.weight);
            }
        }
    }
}

#[test]
fn sampled_targets_come_to_the_exact_factors() {
    let network = small_resnet();
    let exact = factors(&network, FloatDType::F32, Middle::GaussNewton, Sharing::Expand);
    let draws = Middle::Sampled { draws: 400, seed: 1 };
    for (sampled, exact) in factors(&network, FloatDType::F32, draws, Sharing::Expand).iter().zip(&exact) {
        let error = distance(&flat(&sampled.gradient), &flat(&exact.gradient));
        assert!(error < 0.15, "{}: {error}", exact.weight);
        assert_eq!(full(sampled), full(exact));
    }
}

#[test]
fn a_block_is_the_product_of_its_factors_and_has_an_inverse() {
    for network in [factors(&tied(), FloatDType::F64, Middle::Empirical, Sharing::Expand)] {
        for mut layer in network {
            let dense = Dense::of(&mut layer).unwrap();
            let (a, b, dim) = (full(&layer), flat(&layer.gradient), layer.dim());
            let (outputs, table) = (layer.gradient.nrows(), matches!(layer.input, InputFactor::Diagonal(_)));
            let inputs = dim / outputs;
            // Where an element of the vector lies in the matrix.
            let place = |i: usize| {
                let weights = outputs * (inputs - usize::from(layer.bias.is_some()));
                match (table, i < weights) {
                    (true, _) => (i % outputs, i / outputs),
                    (false, true) => (i / (weights / outputs), i % (weights / outputs)),
                    (false, false) => (i - weights, inputs - 1),
                }
            };
            let expected: Vec<f32> = (0..dim * dim)
                .map(|at| {
                    let ((o, i), (p, j)) = (place(at / dim), place(at % dim));
                    let of_input = match (table, i == j) {
                        (false, _) => a[i * inputs + j],
                        (true, true) => a[i],
                        (true, false) => 0.0,
                    };
                    b[o * outputs + p] * of_input
                })
                .collect();
            assert!(distance(dense.entries(), &expected) < 1e-6, "{}", layer.weight);

            let v: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.7).sin()).collect();
            let (mut product, mut back) = (vec![0.0; dim], vec![0.0; dim]);
            layer.apply(&v, &mut product).unwrap();
            product.iter_mut().zip(&v).for_each(|(product, v)| *product += 0.1 * v);
            layer.inverse(0.1).unwrap().apply(&product, &mut back).unwrap();
            assert!(distance(&back, &v) < 1e-5, "{}", layer.weight);
            assert!(matches!(layer.inverse(0.0), Err(CurvatureError::Damping(_))));
        }
    }
}

#[test]
fn a_selection_without_layers_is_an_error() {
    let network = small_resnet();
    let selection = Selection::of(&network.model, |path| path.contains("norm")).unwrap();
    let mut surface = Surface::new(network.model.clone(), &network.problem, selection).unwrap();
    let run = |surface: &mut _, middle| kronecker_factors(surface, middle, Sharing::Expand).map(|_| ()).unwrap_err();
    assert!(matches!(run(&mut surface, Middle::Empirical), CurvatureError::NoLayer));
    assert!(matches!(run(&mut surface, Middle::Sampled { draws: 0, seed: 0 }), CurvatureError::Count(_)));
}
