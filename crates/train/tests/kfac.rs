//! K-FAC against its definition with dense matrices, and against kfac-jax's: `oracles/kfac.py`.

use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor, TensorData};
use faer::Mat;
use faer::linalg::solvers::Solve;
use lapidary_collective::Ranks;
use lapidary_curvature::kronecker::{FactorSums, InputFactor, LayerFactors, Positions, Sharing};
use lapidary_curvature::{CurvatureError, Selection};
use lapidary_data::Batch;
use lapidary_kernels::rng::Stream;
use lapidary_models::layer::{Initializer, Linear};
use lapidary_models::objective::{Classification, Objective};
use lapidary_models::parameters::{self, GradientMap};
use lapidary_models::taps::Taps;
use lapidary_models::{Pass, bert::Bert};
use lapidary_train::optimizer::{Block, Interval, KfacForm, Raised, StepSize};
use lapidary_train::{BatchSource, KfacOptimizer, KfacOptions, SgdOptions, TrainError};
use serde::Deserialize;

use crate::task;

const PLAIN: SgdOptions = SgdOptions { momentum: 0.0, nesterov: false, weight_decay: 0.0 };

const ALWAYS: Interval = Interval { burn_in: 0, every: 1 };

fn options(damping: f64) -> KfacOptions {
    KfacOptions { damping, norm_constraint: 0.0, inverses: ALWAYS, sgd: PLAIN, ..KfacOptions::default() }
}

fn random(n: usize, seed: u64) -> Vec<f64> {
    let mut stream = Stream::new(seed, 0);
    (0..n).map(|_| f64::from(stream.uniform()) - 0.5).collect()
}

/// Positive definite.
fn definite(n: usize, seed: u64) -> Mat<f64> {
    let numbers = random(n * 2 * n, seed);
    let root = Mat::from_fn(n, 2 * n, |i, j| numbers[i * 2 * n + j]);
    &root * root.transpose()
}

fn layer(outputs: usize, inputs: usize, bias: bool) -> Linear {
    Linear::new(inputs, outputs, bias, &mut Initializer::new(3, 0.5, &Device::flex()))
}

fn factors(outputs: usize, inputs: usize, bias: bool, seed: u64) -> LayerFactors {
    LayerFactors {
        weight: "weight".into(),
        bias: bias.then(|| "bias".into()),
        input: InputFactor::Full(definite(inputs + usize::from(bias), seed)),
        gradient: definite(outputs, seed + 1),
    }
}

/// Weight and bias side by side, `[O, I + 1]`.
fn joined(layer: &Linear, outputs: usize) -> Mat<f64> {
    let (weight, bias) = parts(layer);
    let inputs = weight.len() / outputs;
    Mat::from_fn(outputs, inputs + usize::from(bias.is_some()), |i, j| match &bias {
        Some(bias) if j == inputs => f64::from(bias[i]),
        _ => f64::from(weight[i * inputs + j]),
    })
}

fn parts(layer: &Linear) -> (Vec<f32>, Option<Vec<f32>>) {
    let weight: Vec<f32> = layer.weight.val().into_data().iter::<f32>().collect();
    (weight, layer.bias.as_ref().map(|bias| bias.val().into_data().iter::<f32>().collect()))
}

/// The gradients of a layer's parameters, out of one matrix.
fn gradients(layer: &Linear, matrix: &Mat<f64>) -> GradientMap {
    let inputs = layer.weight.dims()[1];
    let mut map = GradientMap::new();
    parameters::visit(layer, &mut |parameter| {
        let rows = 0..matrix.nrows();
        let numbers: Vec<f32> = match parameter.path {
            "weight" => rows.flat_map(|i| (0..inputs).map(move |j| matrix[(i, j)] as f32)).collect(),
            _ => rows.map(|i| matrix[(i, inputs)] as f32).collect(),
        };
        let length = numbers.len();
        map.insert(parameter.id, Tensor::from_data(TensorData::new(numbers, [length]), &Device::flex()));
    });
    map
}

/// `(A + λ_A) ⊗ (B + λ_B)` as one matrix, and the gradient solved with it.
fn dense(factors: &LayerFactors, gradient: &Mat<f64>, damping: f64) -> Mat<f64> {
    let InputFactor::Full(a) = &factors.input else { panic!("a full factor") };
    let b = &factors.gradient;
    let (inputs, outputs) = (a.nrows(), b.nrows());
    let mean = |m: &Mat<f64>| (0..m.nrows()).map(|i| m[(i, i)]).sum::<f64>() / m.nrows() as f64;
    let split = (mean(a) / mean(b)).sqrt();
    let damped =
        |m: &Mat<f64>, by: f64| Mat::from_fn(m.nrows(), m.nrows(), |i, j| m[(i, j)] + if i == j { by } else { 0.0 });
    let (a, b) = (damped(a, split * damping.sqrt()), damped(b, damping.sqrt() / split));
    let all = inputs * outputs;
    let product =
        Mat::from_fn(all, all, |row, column| b[(row / inputs, column / inputs)] * a[(row % inputs, column % inputs)]);
    let vector = Mat::from_fn(all, 1, |row, _| gradient[(row / inputs, row % inputs)]);
    let solved = product.partial_piv_lu().solve(&vector);
    Mat::from_fn(outputs, inputs, |i, j| solved[(i * inputs + j, 0)])
}

#[test]
fn a_step_is_that_of_the_dense_matrix() {
    for (outputs, inputs, bias, damping) in [(3, 4, true, 1e-2), (5, 2, false, 0.3), (1, 6, true, 1e-4)] {
        let layer = layer(outputs, inputs, bias);
        let factors = factors(outputs, inputs, bias, 7);
        let before = joined(&layer, outputs);
        let numbers = random(before.nrows() * before.ncols(), 9);
        let gradient = Mat::from_fn(outputs, before.ncols(), |i, j| numbers[i * before.ncols() + j]);
        let expected = &before - dense(&factors, &gradient, damping) * faer::Scale(0.1);

        let mut optimizer = KfacOptimizer::new(options(damping));
        optimizer.observe(vec![factors]).unwrap();
        let gradients = gradients(&layer, &gradient);
        let (layer, raised) = optimizer
            .step(layer, gradients, StepSize { targets: 1.0, rate: 0.1, scale: 1.0 }, &Ranks::alone())
            .unwrap();
        assert_eq!(raised, []);
        let found = joined(&layer, outputs);
        for i in 0..outputs {
            for j in 0..found.ncols() {
                let (found, expected) = (found[(i, j)], expected[(i, j)]);
                assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} for {expected}");
            }
        }
    }
}

/// `½ tr (W - W*) A (W - W*)ᵀ`, whose curvature is `A ⊗ I`.
#[test]
fn a_quadratic_is_solved_in_one_step() {
    let (outputs, inputs) = (3, 5);
    let layer = layer(outputs, inputs, false);
    let factors = LayerFactors { gradient: Mat::identity(outputs, outputs), ..factors(outputs, inputs, false, 11) };
    let InputFactor::Full(a) = factors.input.clone() else { panic!("a full factor") };
    let numbers = random(outputs * inputs, 13);
    let best = Mat::from_fn(outputs, inputs, |i, j| numbers[i * inputs + j]);
    let gradient = (joined(&layer, outputs) - &best) * a;
    let mut optimizer = KfacOptimizer::new(options(1e-12));
    optimizer.observe(vec![factors]).unwrap();
    let gradients = gradients(&layer, &gradient);
    let found = joined(
        &optimizer.step(layer, gradients, StepSize { targets: 1.0, rate: 1.0, scale: 1.0 }, &Ranks::alone()).unwrap().0,
        outputs,
    );
    (0..outputs).for_each(|i| (0..inputs).for_each(|j| assert!((found[(i, j)] - best[(i, j)]).abs() < 1e-4)));
}

/// After looks at `F1`, `F2`, `F3` the average is `(d² F1 + d F2 + F3) / (d² + d + 1)`.
#[test]
fn averages_have_no_bias_at_the_start() {
    let decay = 0.5;
    let three: Vec<LayerFactors> = (0..3).map(|it| factors(2, 3, true, 20 + 2 * it)).collect();
    let weights = [0.25, 0.5, 1.0].map(|weight| weight / 1.75);
    let sum = |of: &dyn Fn(&LayerFactors) -> Mat<f64>| {
        three.iter().zip(weights).fold(of(&three[0]) * faer::Scale(0.0), |sum, (it, w)| sum + of(it) * faer::Scale(w))
    };
    let input = |it: &LayerFactors| match &it.input {
        InputFactor::Full(input) => input.clone(),
        InputFactor::Diagonal(_) => panic!("a full factor"),
    };
    let mean = LayerFactors {
        input: InputFactor::Full(sum(&input)),
        gradient: sum(&|it| it.gradient.clone()),
        ..three[0].clone()
    };
    let step = |looks: Vec<LayerFactors>| {
        let layer = layer(2, 3, true);
        let mut optimizer = KfacOptimizer::new(KfacOptions { decay, ..options(1e-2) });
        looks.into_iter().for_each(|factors| optimizer.observe(vec![factors]).unwrap());
        let gradients = gradients(&layer, &definite(4, 1).subrows(0, 2).to_owned());
        joined(
            &optimizer
                .step(layer, gradients, StepSize { targets: 1.0, rate: 0.1, scale: 1.0 }, &Ranks::alone())
                .unwrap()
                .0,
            2,
        )
    };
    let (found, expected) = (step(three), step(vec![mean]));
    (0..2).for_each(|i| (0..4).for_each(|j| assert!((found[(i, j)] - expected[(i, j)]).abs() < 1e-5)));
}

#[test]
fn a_table_has_one_number_a_row() {
    let table = layer(4, 2, false);
    let shares = vec![0.5, 0.25, 0.25, 0.0];
    let of_table = LayerFactors {
        input: InputFactor::Diagonal(shares.clone()),
        gradient: definite(2, 5),
        ..factors(4, 2, false, 1)
    };
    // The same as a layer whose input is one of four, its weight transposed.
    let turned = LayerFactors {
        input: InputFactor::Full(Mat::from_fn(4, 4, |i, j| if i == j { shares[i] } else { 0.0 })),
        ..of_table.clone()
    };
    let numbers = random(8, 3);
    let gradient = Mat::from_fn(4, 2, |i, j| numbers[i * 2 + j]);
    let expected = dense(&turned, &gradient.transpose().to_owned(), 0.1);
    let before = joined(&table, 4);
    let mut optimizer = KfacOptimizer::new(options(0.1));
    optimizer.observe(vec![of_table]).unwrap();
    let gradients = gradients(&table, &gradient);
    let found = joined(
        &optimizer.step(table, gradients, StepSize { targets: 1.0, rate: 1.0, scale: 1.0 }, &Ranks::alone()).unwrap().0,
        4,
    );
    for (i, j) in (0..4).flat_map(|i| (0..2).map(move |j| (i, j))) {
        let expected = before[(i, j)] - expected[(j, i)];
        assert!((found[(i, j)] - expected).abs() < 1e-4, "{} for {expected}", found[(i, j)]);
    }
}

#[test]
fn a_step_is_no_longer_than_is_allowed() {
    let step = |norm_constraint, rate, scale| {
        let layer = layer(2, 3, true);
        let before = joined(&layer, 2);
        let mut optimizer = KfacOptimizer::new(KfacOptions { norm_constraint, ..options(1e-2) });
        optimizer.observe(vec![factors(2, 3, true, 7)]).unwrap();
        let gradient = definite(4, 1).subrows(0, 2).to_owned();
        let gradients = gradients(&layer, &gradient);
        let change = before
            - joined(
                &optimizer.step(layer, gradients, StepSize { targets: 1.0, rate, scale }, &Ranks::alone()).unwrap().0,
                2,
            );
        (0..2).flat_map(|i| (0..4).map(move |j| (i, j))).map(|at| change[at] * gradient[at]).sum::<f64>()
    };
    // The change is `rate U`, so that `change · G` is `Σ U·G` times the rate.
    let free = step(0.0, 0.5, 1.0);
    let most = 0.25 * 0.5 * free;
    let held = step(most, 0.5, 1.0);
    assert!((held - 0.5 * free).abs() < 1e-4 * free, "a quarter of the length is half of the step: {held}, {free}");
    assert_eq!(step(1e9, 0.5, 1.0), free);
    assert!((step(most, 0.5, 0.5) - held).abs() < 1e-4 * free, "what clipping takes away is not taken twice");
}

#[test]
fn what_cannot_be_inverted_gets_more_damping() {
    let layer = layer(2, 2, false);
    // Not positive definite until the root of the damping is beyond 2.
    let mut bad = factors(2, 2, false, 3);
    bad.gradient = Mat::from_fn(2, 2, |i, j| if i == j { 1.0 } else { 3.0 });
    bad.input = InputFactor::Full(Mat::identity(2, 2));
    let mut optimizer = KfacOptimizer::new(options(1e-2));
    optimizer.observe(vec![bad.clone()]).unwrap();
    let gradient = Mat::identity(2, 2);
    let of_layer = gradients(&layer, &gradient);
    let (layer, raised) =
        optimizer.step(layer, of_layer, StepSize { targets: 1.0, rate: 0.1, scale: 1.0 }, &Ranks::alone()).unwrap();
    assert_eq!(raised, [Raised { weight: "weight".into(), damping: 10.0 }]);

    bad.gradient[(0, 0)] = f64::NAN;
    let mut optimizer = KfacOptimizer::new(options(1e-2));
    optimizer.observe(vec![bad.clone()]).unwrap();
    let of_layer = gradients(&layer, &gradient);
    let error =
        optimizer.step(layer, of_layer, StepSize { targets: 1.0, rate: 0.1, scale: 1.0 }, &Ranks::alone()).unwrap_err();
    assert!(matches!(error, TrainError::Curvature(CurvatureError::NonFiniteFactor(weight)) if weight == "weight"));
    bad.gradient = definite(3, 1);
    assert!(matches!(optimizer.observe(vec![bad]), Err(CurvatureError::Dimension { expected: 2, found: 3, .. })));
    let layer = self::layer(2, 2, false);
    let of_layer = gradients(&layer, &gradient);
    let mut optimizer = KfacOptimizer::new(options(0.0));
    optimizer.observe(vec![factors(2, 2, false, 3)]).unwrap();
    assert!(matches!(
        optimizer.step(layer, of_layer, StepSize { targets: 1.0, rate: 0.1, scale: 1.0 }, &Ranks::alone()),
        Err(TrainError::Curvature(CurvatureError::Damping(0.0)))
    ));
}

/// Trains the small BERT; its last mean loss.
fn trained(kfac: bool, rate: f64) -> f64 {
    let examples = task::examples(24);
    let batches = task::batches(&examples, 24);
    let mut model = task::model(1);
    let sgd = SgdOptions { momentum: 0.9, ..PLAIN };
    let mut optimizer = KfacOptimizer::new(KfacOptions {
        factors: ALWAYS,
        inverses: ALWAYS,
        damping: 1e-3,
        norm_constraint: 0.0,
        sgd,
        ..KfacOptions::default()
    });
    for step in 0..25 {
        let batch: Batch = batches.micro_batch(step).unwrap();
        let taps = Taps::default();
        let pass = Pass::evaluation().with_taps(taps.clone());
        let loss = Classification.loss(&model, &batch, &pass, batch.rows as f32).unwrap();
        let backward = loss.backward();
        let uses = taps.take();
        if kfac && optimizer.wants_factors() {
            let selection = Selection::of(&model, |_| true).unwrap();
            let mut sums = FactorSums::new(&model, &selection, Sharing::Expand);
            sums.add(uses, &Positions { examples: batch.rows, lengths: Some(batch.lengths.to_vec()) }, true);
            optimizer.observe(sums.finish(1.0 / batch.rows as f64).unwrap()).unwrap();
        }
        let gradients = parameters::gradients(&model, backward);
        model = optimizer
            .step(model, gradients, StepSize { targets: batch.rows as f64, rate, scale: 1.0 }, &Ranks::alone())
            .unwrap()
            .0;
    }
    if kfac {
        let blocks: Vec<(String, Block)> = optimizer.blocks::<Bert>(&model);
        let is_norm = |path: &str| path.contains("norm");
        assert!(blocks.iter().all(|(path, block)| (*block == Block::Gradient) == is_norm(path)), "{blocks:?}");
    }
    -task::fit(&model)
}

#[test]
fn a_network_is_learned_in_fewer_steps() {
    let by_gradient = [0.03, 0.1, 0.3].map(|rate| trained(false, rate));
    let by_factors = trained(true, 0.03);
    let best = by_gradient.into_iter().fold(f64::INFINITY, f64::min);
    assert!(by_factors < best, "{by_factors} for {by_gradient:?}");
}

#[derive(Deserialize)]
struct Golden {
    sizes: [usize; 3],
    options: GoldenOptions,
    initial: Vec<GoldenLayer>,
    batches: Vec<GoldenBatch>,
    split: Vec<GoldenStep>,
    eigen: Vec<GoldenStep>,
}

#[derive(Deserialize)]
struct GoldenOptions {
    rate: f64,
    momentum: f64,
    damping: f64,
    decay: f64,
    norm_constraint: f64,
}

#[derive(Deserialize)]
struct GoldenLayer {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Deserialize)]
struct GoldenBatch {
    x: Vec<f32>,
    labels: Vec<usize>,
}

#[derive(Deserialize)]
struct GoldenStep {
    loss: f64,
    layers: Vec<GoldenLayer>,
}

/// Two layers with a tanh between.
#[derive(Module, Debug)]
struct Network {
    first: Linear,
    second: Linear,
}

impl Network {
    /// Every parameter with its path, as the file has them.
    fn golden<'a>(layers: &'a [GoldenLayer], path: &str) -> &'a [f32] {
        let layer = &layers[usize::from(path.starts_with("second"))];
        if path.ends_with("weight") { &layer.weight } else { &layer.bias }
    }
}

#[test]
fn steps_are_those_of_kfac_jax() {
    let golden: Golden = serde_json::from_str(include_str!("golden/kfac.json")).unwrap();
    run(&golden, KfacForm::Split, &golden.split);
    run(&golden, KfacForm::Eigen, &golden.eigen);
}

fn run(golden: &Golden, form: KfacForm, steps: &[GoldenStep]) {
    let ([inputs, hidden, classes], device) = (golden.sizes, Device::flex().autodiff());
    let init = &mut Initializer::new(1, 0.5, &device);
    let network =
        Network { first: Linear::new(inputs, hidden, true, init), second: Linear::new(hidden, classes, true, init) };
    let mut network = parameters::map(network, &mut |parameter| {
        let numbers = Network::golden(&golden.initial, parameter.path).to_vec();
        let length = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [length]), &parameter.value.device())
    });
    let GoldenOptions { rate, momentum, damping, decay, norm_constraint } = golden.options;
    let mut optimizer = KfacOptimizer::new(KfacOptions {
        damping,
        form,
        decay,
        factors: ALWAYS,
        inverses: ALWAYS,
        norm_constraint,
        sgd: SgdOptions { momentum, ..PLAIN },
        ..KfacOptions::default()
    });
    assert_eq!((steps.len(), golden.batches.len()), (4, 4));
    for (step, batch) in steps.iter().zip(&golden.batches) {
        let rows = batch.labels.len();
        let x = Tensor::<2>::from_data(TensorData::new(batch.x.clone(), [rows, inputs]), &device);
        let mut targets = vec![0.0f32; rows * classes];
        batch.labels.iter().enumerate().for_each(|(row, label)| targets[row * classes + label] = 1.0);
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [rows, classes]), &device);
        let logits = |pass: &Pass| network.second.forward(network.first.forward(x.clone(), pass).tanh(), pass);
        let selection = Selection::of(&network, |_| true).unwrap();
        let mut sums = FactorSums::new(&network, &selection, Sharing::Expand);
        // A column of the root of each row's `diag(p) - p pᵀ` a pass: together the Fisher matrix, nothing sampled.
        for class in 0..classes {
            let taps = Taps::default();
            let logits = logits(&Pass::evaluation().with_taps(taps.clone()));
            let p: Vec<f32> = softmax(logits.clone().inner(), 1).into_data().iter::<f32>().collect();
            let column = |(i, p_i): (usize, &f32)| {
                let root = p[i / classes * classes + class].sqrt();
                root * (f32::from(u8::from(i % classes == class)) - p_i)
            };
            let weights: Vec<f32> = p.iter().enumerate().map(column).collect();
            let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows, classes]), &device);
            (logits * weights).sum().backward();
            sums.add(taps.take(), &Positions { examples: rows, lengths: None }, class == 0);
        }
        optimizer.observe(sums.finish(rows as f64).unwrap()).unwrap();
        let logits = logits(&Pass::evaluation());
        let loss = (log_softmax(logits, 1) * targets).sum().neg() / rows as f32;
        let found = f64::from(loss.clone().into_scalar::<f32>());
        assert!((found - step.loss).abs() < 1e-4 * step.loss, "a loss of {found} for {}", step.loss);
        let gradients = parameters::gradients(&network, loss.backward());
        network = optimizer
            .step(network, gradients, StepSize { targets: rows as f64, rate, scale: 1.0 }, &Ranks::alone())
            .unwrap()
            .0;
        parameters::visit(&network, &mut |parameter| {
            let expected = Network::golden(&step.layers, parameter.path);
            for (found, expected) in parameters::elements(parameter.value).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{found} for {expected}");
            }
        });
    }
}
