//! AdamW, clipping and the schedule against PyTorch's: `oracles/optimizer.py`.

use approx::{assert_abs_diff_eq, assert_relative_eq};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_kernels::adamw::{AdamW, adamw_update};
use lapidary_models::objective::Objective;
use lapidary_models::parameters::GradientMap;
use lapidary_models::taps::Positions;
use lapidary_models::{ModelError, Pass};
use lapidary_train::{
    AdamWOptimizer, AdamWOptions, BatchSource, Decay, Interrupt, Schedule, TrainError, TrainOptions, Trained, train,
};
use serde::Deserialize;

use crate::task;

#[derive(Deserialize)]
struct Golden {
    adamw: Vec<Case>,
    clipping: Vec<Clipping>,
    schedule: Vec<Rates>,
    training: Training,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    lr: f64,
    #[serde(flatten)]
    options: AdamWOptions,
    initial: Vec<f32>,
    steps: Vec<Step>,
    first_moment: Vec<f32>,
    second_moment: Vec<f32>,
}

#[derive(Deserialize)]
struct Step {
    gradient: Vec<f32>,
    value: Vec<f32>,
}

#[derive(Deserialize)]
struct Clipping {
    max_norm: f64,
    gradients: Vec<Vec<f32>>,
    norm: f64,
    clipped: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Rates {
    lr: f64,
    warmup: u64,
    total: u64,
    values: Vec<f64>,
}

#[derive(Deserialize)]
struct Training {
    lr: f64,
    #[serde(flatten)]
    options: AdamWOptions,
    max_norm: f64,
    warmup: u64,
    total: u64,
    initial: Vec<Vec<f32>>,
    steps: Vec<TrainingStep>,
}

#[derive(Deserialize)]
struct TrainingStep {
    gradients: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/adamw.json")).unwrap()
}

/// Some parameters; matrices of one row, so that all of them decay.
#[derive(Module, Debug)]
struct Parameters {
    rows: Vec<Param<Tensor<2>>>,
}

impl Parameters {
    fn new(values: &[Vec<f32>]) -> Self {
        Self { rows: values.iter().map(|values| Param::from_tensor(row(values))).collect() }
    }
}

fn row(values: &[f32]) -> Tensor<2> {
    let shape = [1, values.len()];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex().autodiff())
}

/// Gradients by step and by parameter, and the loss that has them: `Σ gradient · parameter`.
struct Given(Vec<Vec<Vec<f32>>>);

impl BatchSource for Given {
    type Batch = Vec<Vec<f32>>;

    fn micro_batch(&self, i: u64) -> Result<Self::Batch, TrainError> {
        Ok(self.0[i as usize].clone())
    }

    fn per_epoch(&self) -> u64 {
        self.0.len() as u64
    }
}

impl Objective<Parameters> for Given {
    type Batch = Vec<Vec<f32>>;

    fn loss(&self, model: &Parameters, batch: &Vec<Vec<f32>>, _: &Pass, _: f32) -> Result<Tensor<1>, ModelError> {
        let products =
            model.rows.iter().zip(batch).map(|(parameter, gradient)| (parameter.val() * row(gradient)).sum());
        Ok(products.reduce(|a, b| a + b).unwrap())
    }

    fn targets(&self, _: &Vec<Vec<f32>>) -> usize {
        1
    }

    fn positions(&self, _: &Parameters, _: &Self::Batch) -> Positions {
        Positions { examples: 1, lengths: None }
    }
}

/// Trains on given gradients; `seen` gets the parameters after each step.
fn train_on(
    gradients: Vec<Vec<Vec<f32>>>,
    initial: &[Vec<f32>],
    options: &TrainOptions,
    seen: &mut dyn FnMut(&Parameters),
) -> Trained<Parameters> {
    let folder = tempfile::tempdir().unwrap();
    let given = Given(gradients);
    let mut validate = |model: &Parameters| -> Result<f64, TrainError> {
        seen(model);
        Ok(0.0)
    };
    let interrupt = Interrupt::default();
    train(Parameters::new(initial), &given, &given, &mut validate, options, folder.path(), &interrupt).unwrap()
}

#[test]
fn the_kernel_is_pytorchs_adamw() {
    for case in golden().adamw {
        let n = case.initial.len();
        let (mut value, mut first, mut second) = (case.initial, vec![0.0; n], vec![0.0; n]);
        let AdamWOptions { beta1, beta2, eps, weight_decay } = case.options;
        for (step, expected) in (1..).zip(&case.steps) {
            let settings = AdamW { lr: case.lr, beta1, beta2, eps, weight_decay, step, grad_scale: 1.0 };
            adamw_update(&settings, &mut value, &expected.gradient, &mut first, &mut second);
            assert_relative_eq!(value[..], expected.value[..], epsilon = 1e-7, max_relative = 1e-6);
        }
        assert_relative_eq!(second[..], case.second_moment[..], epsilon = 0.0, max_relative = 1e-6);
        for (i, (first, expected)) in first.iter().zip(&case.first_moment).enumerate() {
            // A mean of gradients of both signs is as accurate as they are large.
            let largest = case.steps.iter().map(|step| step.gradient[i].abs()).fold(0.0, f32::max);
            assert_abs_diff_eq!(first, expected, epsilon = 1e-6 * largest);
        }
    }
}

#[test]
fn the_optimizer_is_pytorchs_adamw() {
    for case in golden().adamw {
        let mut model = Parameters::new(&[case.initial]);
        let mut optimizer = AdamWOptimizer::new(case.options);
        for expected in &case.steps {
            let n = expected.gradient.len();
            let gradient = Tensor::from_data(TensorData::new(expected.gradient.clone(), [n]), &Device::flex());
            let gradients = GradientMap::from([(model.rows[0].id, gradient)]);
            model = optimizer.step(model, gradients, case.lr, 1.0);
            let value = task::values(&model);
            assert_relative_eq!(value[..], expected.value[..], epsilon = 1e-7, max_relative = 1e-6);
        }
        assert!(model.rows[0].val().is_require_grad(), "{}: a parameter is trained on after a step", case.name);
    }
}

#[test]
fn vectors_do_not_decay_and_parameters_without_gradient_stay() {
    #[derive(Module, Debug)]
    struct Two {
        matrix: Param<Tensor<2>>,
        vector: Param<Tensor<1>>,
        unused: Param<Tensor<2>>,
    }
    let ones = || Tensor::<2>::ones([1, 2], &Device::flex().autodiff());
    let model = Two {
        matrix: Param::from_tensor(ones()),
        vector: Param::from_tensor(ones().reshape([2])),
        unused: Param::from_tensor(ones()),
    };
    let zero = || Tensor::<1>::zeros([2], &Device::flex());
    let gradients = GradientMap::from([(model.matrix.id, zero()), (model.vector.id, zero())]);
    let options = AdamWOptions { weight_decay: 0.5, ..AdamWOptions::default() };
    let model = AdamWOptimizer::new(options).step(model, gradients, 0.5, 1.0);
    assert_eq!(task::values(&model), [0.75, 0.75, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn rates_are_those_of_transformers() {
    for Rates { lr, warmup, total, values } in golden().schedule {
        let schedule = Schedule { peak: lr, warmup, total, decay: Decay::Linear };
        let rates: Vec<f64> = (0..=total).map(|step| schedule.rate(step)).collect();
        assert_relative_eq!(rates[..], values[..], epsilon = 0.0, max_relative = 1e-12);
    }
}

/// With betas of 0 and an eps that drowns the gradient, AdamW takes steps of `rate / eps · gradient`: here minus the
/// clipped gradient itself.
#[test]
fn the_trainer_clips_as_pytorch_does() {
    const EPS: f64 = 1e8;
    for case in golden().clipping {
        let initial: Vec<Vec<f32>> = case.gradients.iter().map(|gradient| vec![0.0; gradient.len()]).collect();
        let mut options = TrainOptions {
            schedule: Schedule { peak: EPS, warmup: 0, total: 1, decay: Decay::Linear },
            optimizer: AdamWOptions { beta1: 0.0, beta2: 0.0, eps: EPS, weight_decay: 0.0 }.into(),
            clip: case.max_norm,
            ..task::options(1)
        };
        let trained = train_on(vec![case.gradients.clone()], &initial, &options, &mut |_| ());
        assert_relative_eq!(trained.rows[0].gradient_norm.unwrap(), case.norm, max_relative = 1e-6);
        let clipped: Vec<f32> = task::values(&trained.model).iter().map(|value| -value).collect();
        assert_relative_eq!(clipped[..], case.clipped.concat()[..], epsilon = 0.0, max_relative = 1e-6);

        options.clip = 0.0;
        if case.norm < 1e3 {
            let trained = train_on(vec![case.gradients.clone()], &initial, &options, &mut |_| ());
            let whole: Vec<f32> = task::values(&trained.model).iter().map(|value| -value).collect();
            assert_relative_eq!(whole[..], case.gradients.concat()[..], epsilon = 0.0, max_relative = 1e-6);
        }
    }
}

#[test]
fn the_trainer_takes_pytorchs_steps() {
    let Training { lr, options, max_norm, warmup, total, initial, steps } = golden().training;
    let options = TrainOptions {
        schedule: Schedule { peak: lr, warmup, total, decay: Decay::Linear },
        optimizer: options.into(),
        clip: max_norm,
        evaluate_every: 1,
        ..task::options(total)
    };
    let gradients = steps.iter().map(|step| step.gradients.clone()).collect();
    let mut expected = steps.iter();
    train_on(gradients, &initial, &options, &mut |model| {
        let (values, expected) = (task::values(model), expected.next().unwrap().values.concat());
        assert_relative_eq!(values[..], expected[..], epsilon = 1e-7, max_relative = 1e-6);
    });
    assert!(expected.next().is_none());
}
