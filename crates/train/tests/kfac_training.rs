//! K-FAC in the training loop: saved and taken up again, told by the table of blocks, refused where it cannot be.

use std::path::Path;

use lapidary_models::bert::Bert;
use lapidary_models::objective::{Classification, Objective};
use lapidary_models::taps::Positions;
use lapidary_models::{ModelError, Pass};
use lapidary_train::optimizer::{Block, DampingRule, FactorEstimate, Interval, KfacForm, VectorBlock};
use lapidary_train::{
    AdamWOptions, BatchSource, Interrupt, KfacOptions, OptimizerOptions, SgdOptions, TrainError, TrainOptions, Trained,
    train,
};

use crate::task::{self, batches, examples, fit, model, timeless, values};

/// Looks off the inversions, so that averages have gone on since the last one when the state is saved.
fn kfac() -> KfacOptions {
    KfacOptions {
        factors: Interval { burn_in: 2, every: 2 },
        inverses: Interval { burn_in: 1, every: 5 },
        damping: 1e-2,
        ..KfacOptions::default()
    }
}

fn options(optimizer: OptimizerOptions) -> TrainOptions {
    TrainOptions { optimizer, accumulate: 2, evaluate_every: 7, save_every: 4, ..task::options(12) }
}

fn run(folder: &Path, options: &TrainOptions, stop_at: Option<u64>) -> Result<Trained<Bert>, TrainError> {
    let examples = examples(24);
    let batches = batches(&examples, 4);
    let interrupt = Interrupt::default();
    let mut looks = 0;
    let mut validate = |model: &Bert| {
        looks += 1;
        if stop_at == Some(looks) {
            interrupt.raise();
        }
        Ok(fit(model))
    };
    train(model(1), &Classification, &batches, &mut validate, options, folder, &interrupt)
}

#[test]
fn a_stopped_training_goes_on_with_any_optimizer() {
    let adaptive = DampingRule::Adaptive { every: 3, factor: 0.9, least: 1e-6, most: 10.0 };
    let decaying = DampingRule::Decaying { half_life: 6.0, least: 1e-4 };
    for optimizer in [
        OptimizerOptions::AdamW(AdamWOptions::default()),
        OptimizerOptions::Sgd(SgdOptions { nesterov: true, ..SgdOptions::default() }),
        OptimizerOptions::Kfac(KfacOptions { damping_rule: adaptive, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions { form: KfacForm::Eigen, damping_rule: decaying, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions { estimate: FactorEstimate::Sampled, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions {
            estimate: FactorEstimate::TwoBatch,
            vectors: VectorBlock::Diagonal,
            ..kfac()
        }),
    ] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let options = TrainOptions { noise_scale: true, ..options(optimizer) };
        let whole = run(folders[0].path(), &options, None).unwrap();
        let stopped = run(folders[1].path(), &options, Some(1)).err().unwrap();
        assert!(matches!(stopped, TrainError::Interrupted { step: 7, total: 12 }), "{stopped}");
        let parts = run(folders[1].path(), &options, None).unwrap();
        assert_eq!(timeless(&parts.rows), timeless(&whole.rows), "{optimizer:?}");
        assert_eq!(values(&parts.model), values(&whole.model), "{optimizer:?}");
        assert_eq!(parts.blocks, whole.blocks);
        let is_kfac = matches!(optimizer, OptimizerOptions::Kfac(_));
        assert!(whole.rows.iter().all(|row| row.damping.is_some() == is_kfac), "{optimizer:?}");
        assert_eq!(whole.blocks.is_empty(), !is_kfac);
        // A state of another optimizer is refused.
        let other = TrainOptions { optimizer: OptimizerOptions::Sgd(SgdOptions::default()), ..options };
        let error = run(folders[1].path(), &other, None).err().unwrap().to_string();
        assert!(error.contains("with other settings"), "{error}");
    }
}

#[test]
fn the_damping_is_what_its_rule_makes_of_it() {
    let dampings = |damping_rule| {
        let folder = tempfile::tempdir().unwrap();
        let optimizer = OptimizerOptions::Kfac(KfacOptions { damping_rule, ..kfac() });
        let rows = run(folder.path(), &options(optimizer), None).unwrap().rows;
        rows.iter().map(|row| row.damping.unwrap()).collect::<Vec<f64>>()
    };
    assert_eq!(dampings(DampingRule::Constant), vec![1e-2; 12]);
    let decaying = dampings(DampingRule::Decaying { half_life: 2.0, least: 2e-3 });
    assert!((decaying[2] - 5e-3).abs() < 1e-12 && decaying[11] == 2e-3, "{decaying:?}");
    let adaptive = dampings(DampingRule::Adaptive { every: 3, factor: 0.9, least: 1e-6, most: 10.0 });
    // Asked after steps 3, 6, 9 and 12, of which only those before an inversion count: none but for burn-in's.
    assert!(adaptive.iter().all(|damping| *damping == 1e-2), "{adaptive:?}");
    let folder = tempfile::tempdir().unwrap();
    let rule = DampingRule::Adaptive { every: 3, factor: 0.9, least: 1e-6, most: 10.0 };
    let optimizer = OptimizerOptions::Kfac(KfacOptions { damping_rule: rule, form: KfacForm::Eigen, ..kfac() });
    let rows = run(folder.path(), &options(optimizer), None).unwrap().rows;
    let adaptive: Vec<f64> = rows.iter().map(|row| row.damping.unwrap()).collect();
    assert!(adaptive[..2].iter().all(|damping| *damping == 1e-2) && adaptive[11] != 1e-2, "{adaptive:?}");
    let change = 0.9f64.powi(3);
    assert!(
        adaptive
            .windows(2)
            .all(|pair| { [1.0, change, 1.0 / change].iter().any(|by| (pair[1] / pair[0] / by - 1.0).abs() < 1e-9) })
    );
}

#[test]
fn the_table_tells_each_parameters_block() {
    let blocks = |vectors| {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &options(OptimizerOptions::Kfac(KfacOptions { vectors, ..kfac() })), None).unwrap().blocks
    };
    let (plain, diagonal) = (blocks(VectorBlock::Gradient), blocks(VectorBlock::Diagonal));
    assert_eq!(plain.len(), diagonal.len());
    for ((path, plain), (_, diagonal)) in plain.iter().zip(&diagonal) {
        let expected = if path.contains("norm") {
            (Block::Gradient, Block::Diagonal)
        } else {
            let weight = path.strip_suffix("bias").map_or(path.clone(), |layer| format!("{layer}weight"));
            (Block::Kronecker { weight: weight.clone() }, Block::Kronecker { weight })
        };
        assert_eq!((plain, diagonal), (&expected.0, &expected.1), "{path}");
    }
}

/// An objective whose layers write nothing down.
struct Silent;

impl Objective<Bert> for Silent {
    type Batch = lapidary_data::Batch;

    fn loss(
        &self,
        model: &Bert,
        batch: &Self::Batch,
        pass: &Pass,
        normalizer: f32,
    ) -> Result<burn::tensor::Tensor<1>, ModelError> {
        // The head is all that is left of the taps.
        let _ = pass;
        Classification.loss(model, batch, &Pass::evaluation(), normalizer)
    }

    fn targets(&self, batch: &Self::Batch) -> usize {
        Objective::<Bert>::targets(&Classification, batch)
    }

    fn positions(&self, model: &Bert, batch: &Self::Batch) -> Positions {
        Classification.positions(model, batch)
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(OptimizerOptions::Kfac(kfac()));
    let one = TrainOptions { accumulate: 1, noise_scale: true, ..options.clone() };
    assert!(matches!(run(folder.path(), &one, None).err().unwrap(), TrainError::NoiseScale));
    let examples = examples(24);
    let batches = batches(&examples, 4);
    let with = |options: &TrainOptions| {
        let folder = tempfile::tempdir().unwrap();
        let mut validate = |model: &Bert| Ok(fit(model));
        let trained = train(model(1), &Silent, &batches, &mut validate, options, folder.path(), &Interrupt::default());
        trained.err().unwrap().to_string()
    };
    assert!(with(&options).contains("there is nothing to take Kronecker factors of"), "{}", with(&options));
    let sampled = KfacOptions { estimate: FactorEstimate::Sampled, ..kfac() };
    let sampled = with(&TrainOptions { optimizer: OptimizerOptions::Kfac(sampled), ..options });
    assert!(sampled.contains("take the estimate empirical or two_batch"), "{sampled}");
}

/// Many draws of targets have the mean that the model's probabilities say.
#[test]
fn drawn_targets_follow_the_model() {
    let examples = examples(24);
    let batch = batches(&examples, 24).micro_batch(0).unwrap();
    let model = model(1);
    let pass = Pass::evaluation();
    let mut counts = vec![0.0f64; batch.rows];
    const DRAWS: u64 = 400;
    for number in 0..DRAWS {
        let sampled = Classification.sampled(&model, &batch, &pass, (3, number)).unwrap().unwrap();
        counts.iter_mut().zip(&*sampled.targets).for_each(|(count, target)| *count += *target as f64);
    }
    use lapidary_models::Classifier;
    let p = burn::tensor::activation::softmax(model.logits(&batch, &pass), 1);
    let p: Vec<f32> = p.into_data().iter::<f32>().collect();
    for (row, count) in counts.iter().enumerate() {
        let p = f64::from(p[2 * row + 1]);
        let deviation = (p * (1.0 - p) / DRAWS as f64).sqrt();
        assert!((count / DRAWS as f64 - p).abs() < 5.0 * deviation + 1e-3, "row {row}: {count} of {DRAWS} for {p}");
    }
}

/// The factors of a batch's first examples, from gradients of the mean over all of it, are those of these alone.
#[test]
fn factors_of_some_examples_are_those_of_a_smaller_batch() {
    use lapidary_curvature::Selection;
    use lapidary_curvature::kronecker::{FactorSums, InputFactor, LayerFactors, Sharing};
    use lapidary_models::taps::Taps;

    let examples = examples(24);
    let all: Vec<&lapidary_data::Encoded> = examples.iter().collect();
    let model = model(1);
    let factors = |rows: &[&lapidary_data::Encoded], most: usize| -> Vec<LayerFactors> {
        // As long as the longest of all, so that both have the same padding.
        let batch = lapidary_data::Batch::collate(rows, 0);
        let positions = Classification.positions(&model, &batch);
        let counted = positions.of_first(most);
        let taps = Taps::of_first(counted.examples, positions.examples);
        let pass = Pass::evaluation().with_taps(taps.clone());
        Classification.loss(&model, &batch, &pass, batch.rows as f32).unwrap().backward();
        let selection = Selection::of(&model, |_| true).unwrap();
        let mut sums = FactorSums::new(&model, &selection, Sharing::Expand);
        sums.add(taps.take(), &counted, true);
        assert_eq!(counted.examples, most.min(batch.rows));
        sums.finish(counted.examples as f64 / (batch.rows * batch.rows) as f64).unwrap()
    };
    // Of 3 to 6 tokens in turn: the first eight have the longest among them.
    let (some, alone) = (factors(&all, 8), factors(&all[..8], usize::MAX));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * b.abs().max(1e-3), "{a} for {b}");
    for (some, alone) in some.iter().zip(&alone) {
        let n = alone.gradient.nrows();
        (0..n).for_each(|i| (0..n).for_each(|j| close(some.gradient[(i, j)], alone.gradient[(i, j)])));
        match (&some.input, &alone.input) {
            (InputFactor::Full(some), InputFactor::Full(alone)) => {
                (0..alone.nrows()).for_each(|i| close(some[(i, i)], alone[(i, i)]));
            }
            (InputFactor::Diagonal(some), InputFactor::Diagonal(alone)) => {
                some.iter().zip(alone).for_each(|(some, alone)| close(*some, *alone));
            }
            _ => panic!("factors of one kind"),
        }
    }
}
