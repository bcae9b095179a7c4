//! A training by several ranks is the training by one: here ranks are threads of this process.

use std::path::Path;

use burn::tensor::Device;
use lapidary_collective::{CollectiveError, Ranks, threads};
use lapidary_curvature::Selection;
use lapidary_curvature::kronecker::{FactorSums, Sharing};
use lapidary_data::PictureBatch;
use lapidary_kernels::rng::Stream;
use lapidary_models::Pass;
use lapidary_models::bert::Bert;
use lapidary_models::objective::{Classification, Objective, PictureClassification};
use lapidary_models::resnet::{ResNet, ResNetConfig, Shortcut};
use lapidary_models::taps::Taps;
use lapidary_train::optimizer::{DampingRule, FactorEstimate, Interval, KfacForm, VectorBlock};
use lapidary_train::{
    AdamWOptions, BatchSource, Interrupt, KfacOptions, MetricsRow, OptimizerOptions, SgdOptions, TrainError,
    TrainOptions, Trained, Training, train_among,
};

use crate::task::{self, batches, examples, fit, model, timeless, values};

/// What each of some ranks makes of a piece of work.
fn among<T: Send>(count: usize, work: impl Fn(&Ranks) -> T + Sync) -> Vec<T> {
    if count == 1 {
        return vec![work(&Ranks::alone())];
    }
    let work = &work;
    std::thread::scope(|scope| {
        let start = |rank| scope.spawn(move || work(&Ranks::new(move || Ok(rank)).unwrap()));
        let started: Vec<_> = threads(count).into_iter().map(start).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn options(optimizer: OptimizerOptions) -> TrainOptions {
    TrainOptions { optimizer, accumulate: 4, evaluate_every: 5, save_every: 4, noise_scale: true, ..task::options(10) }
}

fn run(
    ranks: &Ranks,
    folder: &Path,
    options: &TrainOptions,
    interrupt: &Interrupt,
) -> Result<Trained<Bert>, TrainError> {
    let examples = examples(24);
    let batches = batches(&examples, 2);
    let training = Training { objective: &Classification, source: &batches, options, ranks };
    train_among(model(1), &training, &mut |model| Ok(fit(model)), folder, interrupt)
}

/// Within 1e-5, as a share of the larger numbers.
#[track_caller]
fn assert_alike(found: &[MetricsRow], expected: &[MetricsRow], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let pairs = [
            (found.loss, expected.loss),
            (found.gradient_norm, expected.gradient_norm),
            (found.validation, expected.validation),
        ];
        for (found, expected) in pairs {
            assert_eq!(found.is_some(), expected.is_some(), "{what}");
            let (found, expected) = (found.unwrap_or(1.0), expected.unwrap_or(1.0));
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{what}: {found} for {expected}");
        }
    }
}

fn kfac() -> KfacOptions {
    KfacOptions {
        factors: Interval { burn_in: 2, every: 2 },
        inverses: Interval { burn_in: 1, every: 3 },
        damping: 1e-1,
        ..KfacOptions::default()
    }
}

#[test]
fn several_ranks_have_the_losses_of_one() {
    let adaptive = DampingRule::Adaptive { every: 3, factor: 0.9, least: 1e-6, most: 10.0 };
    for optimizer in [
        OptimizerOptions::AdamW(AdamWOptions::default()),
        OptimizerOptions::Sgd(SgdOptions::default()),
        OptimizerOptions::Kfac(KfacOptions { damping_rule: adaptive, examples: 4, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions { form: KfacForm::Eigen, gradient_workers: 0.5, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions { estimate: FactorEstimate::Sampled, gradient_workers: 0.0, ..kfac() }),
        OptimizerOptions::Kfac(KfacOptions {
            estimate: FactorEstimate::TwoBatch,
            vectors: VectorBlock::Diagonal,
            ..kfac()
        }),
    ] {
        let options = options(optimizer);
        let trained = |count: usize| {
            let folder = tempfile::tempdir().unwrap();
            let trained = among(count, |ranks| {
                let trained = run(ranks, folder.path(), &options, &Interrupt::default()).unwrap();
                (trained.rows, values(&trained.model))
            });
            // All of them come out with the same bits.
            assert!(trained.iter().all(|other| *other == trained[0]), "{count} ranks, {optimizer:?}");
            trained.into_iter().next().unwrap()
        };
        let (alone, of_alone) = trained(1);
        for count in [2, 4] {
            let (rows, of_ranks) = trained(count);
            assert_alike(&rows, &alone, &format!("{count} ranks, {optimizer:?}"));
            // AdamW makes steps of one size of gradients that are nothing but rounding.
            if matches!(optimizer, OptimizerOptions::AdamW(_)) {
                continue;
            }
            let far = of_ranks.iter().zip(&of_alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-3, "{count} ranks, {optimizer:?}: a parameter is off by {far}");
        }
    }
}

#[test]
fn what_was_stopped_on_one_rank_goes_on_on_all() {
    let spread = KfacOptions { gradient_workers: 0.0, ..kfac() };
    for optimizer in [OptimizerOptions::default(), OptimizerOptions::Kfac(spread)] {
        let options = options(optimizer);
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let whole = among(2, |ranks| run(ranks, folders[0].path(), &options, &Interrupt::default()).unwrap().rows);
        let stopped = among(2, |ranks| {
            let interrupt = Interrupt::default();
            // Only the second one is asked.
            if !ranks.is_first() {
                interrupt.raise();
            }
            run(ranks, folders[1].path(), &options, &interrupt).err().map(|error| error.to_string())
        });
        let expected = "stopped at step 1 of 10, state saved; run the same command again to go on";
        assert_eq!(stopped, [Some(expected.to_owned()), Some(expected.to_owned())]);
        let parts = among(2, |ranks| run(ranks, folders[1].path(), &options, &Interrupt::default()).unwrap().rows);
        assert_eq!(timeless(&parts[0]), timeless(&whole[0]), "{optimizer:?}");
    }
}

#[test]
fn a_state_goes_on_under_another_number_of_ranks() {
    let optimizer = OptimizerOptions::Kfac(KfacOptions { gradient_workers: 0.0, ..kfac() });
    let options = options(optimizer);
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let whole = run(&Ranks::alone(), folders[0].path(), &options, &Interrupt::default()).unwrap();
    let interrupted = Interrupt::default();
    interrupted.raise();
    let stopped = among(4, |ranks| run(ranks, folders[1].path(), &options, &interrupted).is_err());
    assert_eq!(stopped, [true; 4]);
    let parts = among(2, |ranks| run(ranks, folders[1].path(), &options, &Interrupt::default()).unwrap().rows);
    assert_alike(&parts[0], &whole.rows, "4 ranks, then 2");
}

#[test]
fn what_cannot_be_shared_is_an_error() {
    let options = TrainOptions { accumulate: 3, noise_scale: false, ..options(OptimizerOptions::default()) };
    let folder = tempfile::tempdir().unwrap();
    let errors =
        among(2, |ranks| run(ranks, folder.path(), &options, &Interrupt::default()).err().unwrap().to_string());
    assert!(
        errors.iter().all(|error| error.starts_with("a step has 3 parts, and 2 ranks to share them")),
        "{errors:?}"
    );
    // One folder each, where only the first has a state.
    let options = TrainOptions { accumulate: 2, ..options };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    run(&Ranks::alone(), folders[0].path(), &options, &Interrupt::default()).unwrap();
    let errors = among(2, |ranks| {
        run(ranks, folders[ranks.rank()].path(), &options, &Interrupt::default()).err().unwrap().to_string()
    });
    assert!(errors.iter().all(|error| error.contains("it has to be one folder")), "{errors:?}");
}

/// Two ranks, the second of which has not used some layers, sum up what one does that has seen both batches.
#[test]
fn factors_of_ranks_that_use_other_layers_are_joined() {
    let batches = [0, 1].map(|i| batches(&examples(24), 4).micro_batch(i).unwrap());
    let model = model(1);
    let selection = Selection::of(&model, |_| true).unwrap();
    let add = |sums: &mut FactorSums, i: usize| {
        let taps = Taps::default();
        let pass = Pass::evaluation().with_taps(taps.clone());
        Classification.loss(&model, &batches[i], &pass, 8.0).unwrap().backward();
        let mut uses = taps.take();
        uses.truncate(if i == 0 { usize::MAX } else { uses.len() / 2 });
        sums.add(uses, &Classification.positions(&model, &batches[i]), true);
    };
    let fresh = || FactorSums::new(&model, &selection, Sharing::Expand);
    let numbers = |sums: FactorSums| -> Vec<f64> {
        let factors = sums.finish(1.0 / 8.0).unwrap();
        factors.iter().flat_map(|it| (0..it.gradient.nrows()).map(|i| it.gradient[(i, i)])).collect()
    };
    let mut both = fresh();
    (0..2).for_each(|i| add(&mut both, i));
    let expected = numbers(both);
    let joined = among(2, |ranks| {
        let mut sums = fresh();
        add(&mut sums, ranks.rank());
        sums.join(&mut |numbers| ranks.sum_f64(numbers)).unwrap();
        numbers(sums)
    });
    assert_eq!(joined[0], joined[1]);
    assert_eq!(joined[0].len(), expected.len());
    joined[0].iter().zip(&expected).for_each(|(a, b)| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} for {b}"));
}

/// With one rank a part; else what is trained would depend on how many there are.
#[test]
fn batch_norm_over_ranks_wants_one_for_each_part() {
    let options = TrainOptions { sync_batch_norm: true, ..options(OptimizerOptions::default()) };
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2] {
        let errors =
            among(count, |ranks| run(ranks, folder.path(), &options, &Interrupt::default()).err().unwrap().to_string());
        assert!(errors.iter().all(|error| error.contains("wants as many ranks as parts")), "{errors:?}");
    }
}

#[test]
fn a_rank_that_is_gone_ends_the_training_of_the_others() {
    let options = TrainOptions { accumulate: 2, ..options(OptimizerOptions::default()) };
    let folder = tempfile::tempdir().unwrap();
    let errors = among(2, |ranks| match ranks.rank() {
        0 => run(ranks, folder.path(), &options, &Interrupt::default()).err(),
        // It begins, and goes.
        _ => ranks.sum_f64(&mut [0.0]).err().map(TrainError::from),
    });
    assert!(matches!(errors[0], Some(TrainError::Ranks(CollectiveError::Gone))), "{errors:?}");
    assert!(errors[1].is_none());
}

/// Pictures of noise, so many a micro-batch, each a function of its number.
struct Noise(usize);

impl BatchSource for Noise {
    type Batch = PictureBatch;

    fn micro_batch(&self, i: u64) -> Result<PictureBatch, TrainError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for row in 0..self.0 as u64 {
            let mut stream = Stream::new(9, (i * self.0 as u64 + row) % 48);
            labels.push(stream.below(10) as u32);
            // Bright ones and dark ones, so that parts of a batch have other statistics than all of it.
            let light = 2.0 * stream.normal();
            pixels.extend((0..8 * 8 * 3).map(|_| light + stream.normal()));
        }
        Ok(PictureBatch { pixels, labels, height: 8, width: 8 })
    }

    fn per_epoch(&self) -> u64 {
        (48 / self.0) as u64
    }
}

#[test]
fn batch_norm_over_all_ranks_is_that_of_the_whole_batch() {
    let config = ResNetConfig::cifar10(8, Shortcut::Padded).unwrap();
    let trained = |count: usize, sync_batch_norm: bool, optimizer: OptimizerOptions| {
        let folder = tempfile::tempdir().unwrap();
        let options = TrainOptions {
            accumulate: count as u64,
            sync_batch_norm,
            dropout: 0.0,
            noise_scale: false,
            ..options(optimizer)
        };
        let rows = among(count, |ranks| {
            let source = Noise(12 / count);
            let training = Training { objective: &PictureClassification, source: &source, options: &options, ranks };
            let fresh = ResNet::new(&config, 1, &Device::flex().autodiff());
            let validate = &mut |model: &ResNet| Ok(f64::from(values(model).iter().sum::<f32>()));
            train_among(fresh, &training, validate, folder.path(), &Interrupt::default()).unwrap().rows
        });
        rows.into_iter().next().unwrap()
    };
    let small = KfacOptions { damping: 1.0, ..kfac() };
    for optimizer in [OptimizerOptions::Sgd(SgdOptions::default()), OptimizerOptions::Kfac(small)] {
        let whole = trained(1, false, optimizer);
        for count in [2, 3] {
            assert_alike(&trained(count, true, optimizer), &whole, &format!("{count} ranks, {optimizer:?}"));
        }
        let apart = trained(2, false, optimizer);
        let off = apart.iter().zip(&whole).map(|(a, b)| (a.loss.unwrap() - b.loss.unwrap()).abs()).fold(0.0, f64::max);
        assert!(off > 1e-3, "each part by its own statistics is another training, here off by {off}");
    }
}
