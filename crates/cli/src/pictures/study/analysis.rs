//! What the trials say.

use lapidary_train::study::{CriticalBatch, StudyTrial, TrialOutcome, critical_batch};

use super::plan::{NOISE, best, damping, held, searched};

/// An optimizer over all sizes of batch.
pub struct OfOptimizer {
    pub name: String,
    /// Ascending.
    pub sizes: Vec<OfSize>,
    /// Through the sizes at which the target was reached; `None` where no bend is in sight.
    pub critical: Option<CriticalBatch>,
}

/// An optimizer at one size of batch.
pub struct OfSize {
    pub batch: usize,
    /// Of the search.
    pub trials: usize,
    /// Of these, those that have an outcome, came to the target, diverged.
    pub done: usize,
    pub reached: usize,
    pub diverged: usize,
    /// The best setting, if one has an outcome.
    pub best: Option<Best>,
}

/// The best setting of a size.
pub struct Best {
    pub rate: f64,
    pub damping: Option<f64>,
    /// The median over its trainings, of which one that did not come to the target took longer than all that did; the
    /// fewest, and the most of those that did. `None`: the median did not.
    pub steps: Option<[f64; 3]>,
    /// Trainings of it, and those of them that came to the target.
    pub trainings: usize,
    pub reached: usize,
    /// Median seconds of training to the target.
    pub seconds: Option<f64>,
    /// Median of the best accuracies on the kept pictures.
    pub accuracy: Option<f64>,
    /// Median steps to the target accuracy.
    pub steps_to_accuracy: Option<f64>,
    /// Noise scale of the gradient, in pictures.
    pub noise_scale: Option<f64>,
    /// The lowest loss at its end.
    pub loss: Option<f64>,
}

/// Gathers what is known, in the order of the recipe's optimizers.
pub fn analyse(names: &[String], batches: &[usize], trials: &[StudyTrial]) -> Vec<OfOptimizer> {
    let of_optimizer = |name: &String| {
        let sizes: Vec<OfSize> = batches.iter().map(|batch| of_size(name, *batch, trials)).collect();
        let points: Vec<(f64, f64)> =
            sizes.iter().filter_map(|size| Some((size.batch as f64, size.best.as_ref()?.steps?[0]))).collect();
        OfOptimizer { name: name.clone(), critical: critical_batch(&points), sizes }
    };
    names.iter().map(of_optimizer).collect()
}

fn of_size(name: &str, batch: usize, trials: &[StudyTrial]) -> OfSize {
    let of_search: Vec<&StudyTrial> = searched(trials, name, batch).collect();
    let outcomes = || of_search.iter().filter_map(|trial| trial.outcome.as_ref());
    let chosen = best(&of_search).map(|chosen| {
        let same = |it: &&StudyTrial| it.optimizer == name && it.batch == batch && it.setting == chosen.setting;
        let of_setting: Vec<&TrialOutcome> = trials
            .iter()
            .filter(same)
            .filter(|trial| trial.repetition != NOISE)
            .filter_map(|trial| trial.outcome.as_ref())
            .collect();
        let measured = trials.iter().filter(same).find(|trial| trial.repetition == NOISE);
        let of = |get: &dyn Fn(&TrialOutcome) -> Option<f64>| {
            let mut values: Vec<f64> = of_setting.iter().filter_map(|outcome| get(outcome)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        // What was never reached would have taken longer.
        let median_of_all = |reached: &[f64]| {
            let never = of_setting.len().saturating_sub(reached.len());
            let all: Vec<f64> = reached.iter().copied().chain(std::iter::repeat_n(f64::INFINITY, never)).collect();
            median(&all).filter(|median| median.is_finite())
        };
        let steps = of(&|outcome| outcome.steps_to_loss);
        Best {
            rate: chosen.options.schedule.peak,
            damping: damping(&chosen.options),
            steps: median_of_all(&steps).map(|median| [median, steps[0], steps[steps.len() - 1]]),
            trainings: of_setting.len(),
            reached: steps.len(),
            seconds: median_of_all(&of(&|outcome| Some(outcome.seconds_at(outcome.steps_to_loss?)))),
            accuracy: median(&of(&TrialOutcome::best_accuracy)),
            steps_to_accuracy: median_of_all(&of(&|outcome| outcome.steps_to_accuracy)),
            noise_scale: measured.and_then(|trial| trial.outcome.as_ref()?.noise_scale),
            loss: of(&TrialOutcome::last_loss).first().copied(),
        }
    });
    OfSize {
        batch,
        trials: of_search.len(),
        done: outcomes().count(),
        reached: outcomes().filter(|outcome| outcome.steps_to_loss.is_some()).count(),
        diverged: outcomes().filter(|outcome| !held(outcome)).count(),
        best: chosen,
    }
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

impl OfOptimizer {
    /// How many times fewer steps than at the smallest size that came to the target, by size.
    pub fn speed_ups(&self) -> Vec<(usize, f64)> {
        let steps = |size: &OfSize| size.best.as_ref().and_then(|best| Some(best.steps?[0]));
        let Some(first) = self.sizes.iter().find_map(steps) else { return Vec::new() };
        self.sizes.iter().filter_map(|size| Some((size.batch, first / steps(size)?))).collect()
    }

    /// Up to which size each doubling takes 1.5 times fewer steps or more.
    pub fn pays_up_to(&self) -> Option<usize> {
        let speed_ups = self.speed_ups();
        let mut last = speed_ups.first()?;
        for next in &speed_ups[1..] {
            let doublings = (next.0 as f64 / last.0 as f64).log2();
            if next.1 / last.1 < 1.5f64.powf(doublings) {
                break;
            }
            last = next;
        }
        Some(last.0)
    }
}

/// The answer in words, a sentence each.
pub fn words(found: &[OfOptimizer]) -> Vec<String> {
    let mut words = Vec::new();
    for of in found {
        if of.sizes.iter().all(|size| size.done == 0) {
            continue;
        }
        let reached = of.sizes.iter().filter(|size| size.reached > 0).count();
        if of.sizes.iter().any(|size| size.best.as_ref().is_some_and(|best| best.steps.is_some_and(|it| it[0] == 0.0)))
        {
            words.push(format!("{} is at the target before its first step: lower it.", of.name));
            continue;
        }
        if reached == 0 {
            words.push(format!("{} never came to the target.", of.name));
            continue;
        }
        let speed_ups = of.speed_ups();
        if let (Some(first), Some(last), Some(pays)) = (speed_ups.first(), speed_ups.last(), of.pays_up_to()) {
            words.push(format!(
                "{}: from {} to {} pictures a step the steps to the target fall {:.1} times, where {:.0} times would be \
                 ideal; a doubling saves a third of the steps or more up to {pays}.",
                of.name,
                first.0,
                last.0,
                last.1,
                last.0 as f64 / first.0 as f64
            ));
        }
        match &of.critical {
            Some(critical) => words.push(format!(
                "{}: its curve bends at a batch of about {:.0} (steps = {:.0} (1 + {:.0} / batch), no point further from \
                 it than {:.0} %).",
                of.name,
                critical.batch,
                critical.fewest_steps,
                critical.batch,
                100.0 * critical.worst
            )),
            None if reached >= 3 => words.push(format!("{}: no bend is in sight over these sizes.", of.name)),
            None => words.push(format!(
                "{}: it came to the target at {reached} sizes, too few to tell where its curve bends.",
                of.name
            )),
        }
        let noise: Vec<f64> =
            of.sizes.iter().filter_map(|size| size.best.as_ref().and_then(|best| best.noise_scale)).collect();
        if let (Some(critical), false) = (&of.critical, noise.is_empty()) {
            let mut noise = noise;
            noise.sort_by(f64::total_cmp);
            if let Some(noise) = median(&noise) {
                words.push(format!(
                    "{}: the noise of its gradient foretold {noise:.0} pictures, {:.1} times what the steps say.",
                    of.name,
                    noise / critical.batch
                ));
            }
        }
    }
    if words.is_empty() {
        words.push("No trial is done yet.".to_owned());
    }
    if let [first, second, ..] = found {
        let both = first.sizes.iter().zip(&second.sizes).filter_map(|(a, b)| {
            let (a_best, b_best) = (a.best.as_ref()?, b.best.as_ref()?);
            Some((a.batch, a_best.steps?[0] / b_best.steps?[0], a_best.seconds? / b_best.seconds?))
        });
        for (batch, steps, seconds) in both {
            words.push(format!(
                "At {batch} pictures {} takes {steps:.2} times the steps of {} and {seconds:.2} times the time.",
                first.name, second.name
            ));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use lapidary_train::study::{Look, Status, TrialOptions};
    use lapidary_train::{OptimizerOptions, Schedule};

    use super::*;

    fn trial(batch: usize, setting: usize, repetition: usize, steps: Option<f64>) -> StudyTrial {
        let options = TrialOptions {
            optimizer: OptimizerOptions::default(),
            schedule: Schedule::new(0.1 * (1 + setting) as f64, 0.0, 1000),
            accumulate: 1,
            look_every: 5,
            seed: 1,
            target_loss: 1.0,
            target_accuracy: None,
            stop_at_targets: true,
        };
        let look = Look { step: 1000, loss: 2.0 - setting as f64 * 0.1, accuracy: 50.0, seconds: 10.0 };
        let outcome = TrialOutcome {
            curve: vec![look],
            steps_to_loss: steps,
            seconds: 10.0,
            steps: 1000,
            diverged_at: (setting == 2).then_some(3),
            ..TrialOutcome::default()
        };
        let (optimizer, status) = ("sgd".to_owned(), Status::Done);
        StudyTrial { id: 0, optimizer, batch, setting, repetition, options, status, outcome: Some(outcome) }
    }

    #[test]
    fn the_best_setting_is_repeated_and_its_median_counts() {
        let mut trials = Vec::new();
        for (batch, steps) in [(64, 1000.0), (128, 520.0), (256, 300.0), (512, 200.0)] {
            trials.extend([
                trial(batch, 0, 0, Some(2.0 * steps)),
                trial(batch, 1, 0, Some(steps - 1.0)),
                trial(batch, 2, 0, None),
            ]);
            trials.extend([trial(batch, 1, 1, Some(steps + 5.0)), trial(batch, 1, 2, Some(steps))]);
        }
        let found = analyse(&["sgd".to_owned()], &[64, 128, 256, 512], &trials);
        let size = &found[0].sizes[0];
        assert_eq!((size.trials, size.done, size.reached, size.diverged), (3, 3, 2, 1));
        let best = size.best.as_ref().unwrap();
        assert_eq!((best.steps, best.trainings, best.reached), (Some([1000.0, 999.0, 1005.0]), 3, 3));
        assert_eq!(best.seconds, Some(10.0));
        assert_eq!(found[0].pays_up_to(), Some(512));
        assert!((found[0].speed_ups()[3].1 - 5.0).abs() < 1e-9);
        let critical = found[0].critical.unwrap();
        assert!((200.0..900.0).contains(&critical.batch), "{critical:?}");
        assert!(words(&found).iter().any(|line| line.contains("bends at a batch of about")));
    }

    #[test]
    fn a_training_that_missed_the_target_took_longer_than_those_that_did_not() {
        let steps = |of_repetitions: [Option<f64>; 3]| {
            let trials: Vec<StudyTrial> =
                of_repetitions.iter().enumerate().map(|(repetition, steps)| trial(64, 1, repetition, *steps)).collect();
            let found = analyse(&["sgd".to_owned()], &[64], &trials);
            let best = found[0].sizes[0].best.as_ref().unwrap();
            (best.steps, best.reached, best.seconds.is_some())
        };
        assert_eq!(steps([Some(30.0), Some(20.0), None]), (Some([30.0, 20.0, 30.0]), 2, true));
        assert_eq!(steps([None, None, Some(20.0)]), (None, 1, false));
    }

    #[test]
    fn where_no_setting_comes_to_the_target_the_lowest_loss_is_best() {
        let trials = [trial(64, 0, 0, None), trial(64, 1, 0, None), trial(64, 2, 0, None)];
        let found = analyse(&["sgd".to_owned()], &[64], &trials);
        let best = found[0].sizes[0].best.as_ref().unwrap();
        assert_eq!((best.steps, best.rate, best.seconds), (None, 0.2, None));
        assert_eq!(words(&found), ["sgd never came to the target."]);
    }
}
