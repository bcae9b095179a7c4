//! One training of a study: to its targets or to its end, and no error where it fails.

use std::time::Instant;

use burn::module::Module;
use lapidary_collective::Ranks;
use lapidary_curvature::CurvatureError;
use lapidary_kernels::precision::Precision;
use lapidary_models::objective::Objective;
use serde::{Deserialize, Serialize};

use crate::optimizer::Optimizer;
use crate::{BatchSource, Interrupt, NoiseScale, OptimizerOptions, Schedule, TrainError, TrainOptions, Training, step};

/// What a trial is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialOptions {
    /// The optimizer with its settings.
    pub optimizer: OptimizerOptions,
    /// Learning rate by step, and how many steps there are at most.
    pub schedule: Schedule,
    /// Micro-batches a step; with two or more the noise scale is measured.
    pub accumulate: u64,
    /// Steps between two looks.
    pub look_every: u64,
    /// Of all draws.
    pub seed: u64,
    /// Of the training loss, in nats.
    pub target_loss: f64,
    /// Of what the looks call accuracy.
    pub target_accuracy: Option<f64>,
    /// Whether it ends where it has reached all targets.
    pub stop_at_targets: bool,
}

/// What a look at a model sees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// On a fixed sample of what is trained on, in nats.
    pub loss: f64,
    /// On what is kept, in per cent.
    pub accuracy: f64,
}

/// What has been seen of a model during a trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Steps done.
    pub step: u64,
    /// On a fixed sample of what is trained on, in nats.
    pub loss: f64,
    /// On what is kept, in per cent.
    pub accuracy: f64,
    /// Seconds of training, looks not counted.
    pub seconds: f64,
}

/// What became of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialOutcome {
    /// At the looks.
    pub curve: Vec<Look>,
    /// Steps until the loss was at its target, between two looks in a straight line of its logarithm.
    pub steps_to_loss: Option<f64>,
    /// The same of the accuracy, in a straight line.
    pub steps_to_accuracy: Option<f64>,
    /// The step, counted from 1, whose loss or gradient was no number or far too large; `None`: the training held.
    pub diverged_at: Option<u64>,
    /// Seconds of training, looks not counted.
    pub seconds: f64,
    /// Steps done.
    pub steps: u64,
    /// Of the gradient, if it was measured.
    pub noise_scale: Option<f64>,
}

/// Runs a trial on a fresh model; Loss or gradients that are no numbers end it and are an
/// outcome; so is a loss far above what it began with.
///
/// # Errors
/// What has nothing to do with the settings: a batch that cannot be read, targets that do not fit the model;
/// [`TrainError::Interrupted`].
pub fn run_trial<M, O, S>(
    mut model: M,
    objective: &O,
    source: &S,
    look: &mut dyn FnMut(&M) -> Result<Seen, TrainError>,
    options: &TrialOptions,
    interrupt: &Interrupt,
) -> Result<TrialOutcome, TrainError>
where
    M: Module,
    O: Objective<M>,
    S: BatchSource<Batch = O::Batch>,
{
    /// A loss of so many times the one at the beginning has diverged.
    const FAR: f64 = 10.0;
    let of_steps = TrainOptions {
        name: String::new(),
        schedule: options.schedule,
        optimizer: options.optimizer,
        accumulate: options.accumulate,
        clip: 0.0,
        precision: Precision::F32,
        dropout: 0.0,
        seed: options.seed,
        evaluate_every: 0,
        save_every: 0,
        keep: 1,
        noise_scale: options.accumulate > 1,
        sync_batch_norm: false,
    };
    let training = Training { objective, source, options: &of_steps, ranks: &Ranks::alone() };
    let mut optimizer = Optimizer::new(&options.optimizer);
    let mut outcome = TrialOutcome::default();
    let mut noise = NoiseScale::default();
    let total = options.schedule.total;
    let Seen { loss, accuracy } = look(&model)?;
    outcome.curve.push(Look { step: 0, loss, accuracy, seconds: 0.0 });
    let far = FAR * loss;
    for at in 0..total {
        if interrupt.raised() {
            return Err(TrainError::Interrupted { step: at, total });
        }
        let begun = Instant::now();
        let done = match step(model, &training, &mut optimizer, at, options.schedule.rate(at)) {
            Ok((stepped, done)) => {
                model = stepped;
                done
            }
            Err(
                TrainError::NotFinite { .. }
                | TrainError::Curvature(CurvatureError::NonFiniteFactor(_) | CurvatureError::Diagonalize(_)),
            ) => {
                outcome.diverged_at = Some(at + 1);
                break;
            }
            Err(error) => return Err(error),
        };
        outcome.seconds += begun.elapsed().as_secs_f64();
        outcome.steps = at + 1;
        if let Some(sample) = done.noise {
            noise = noise.with(sample);
        }
        if !(at + 1).is_multiple_of(options.look_every.max(1)) && at + 1 < total {
            continue;
        }
        let Seen { loss, accuracy } = look(&model)?;
        if !loss.is_finite() || loss > far {
            outcome.diverged_at = Some(at + 1);
            break;
        }
        let seconds = outcome.seconds;
        outcome.curve.push(Look { step: at + 1, loss, accuracy, seconds });
        if options.stop_at_targets {
            let reached = outcome.reached(options);
            if reached.0.is_some() && (options.target_accuracy.is_none() || reached.1.is_some()) {
                break;
            }
        }
    }
    (outcome.steps_to_loss, outcome.steps_to_accuracy) = outcome.reached(options);
    outcome.noise_scale = noise.scale();
    Ok(outcome)
}

impl TrialOutcome {
    /// Steps to both targets, as far as they have been reached.
    fn reached(&self, options: &TrialOptions) -> (Option<f64>, Option<f64>) {
        let to_loss = crossing(&self.curve, |look| (options.target_loss / look.loss).ln());
        let to_accuracy = options.target_accuracy.and_then(|target| crossing(&self.curve, |it| it.accuracy - target));
        (to_loss, to_accuracy)
    }

    /// Seconds of training until a step.
    pub fn seconds_at(&self, step: f64) -> f64 {
        self.seconds * step / (self.steps.max(1) as f64)
    }

    /// The last loss that was seen.
    pub fn last_loss(&self) -> Option<f64> {
        self.curve.last().map(|look| look.loss)
    }

    /// The best accuracy that was seen.
    pub fn best_accuracy(&self) -> Option<f64> {
        self.curve.iter().map(|look| look.accuracy).reduce(f64::max)
    }
}

/// Where `above`, negative at first, comes to zero: between the looks around it.
fn crossing(curve: &[Look], above: impl Fn(&Look) -> f64) -> Option<f64> {
    let after = curve.iter().position(|look| above(look) >= 0.0)?;
    let Some(before) = after.checked_sub(1) else { return Some(curve[0].step as f64) };
    let (low, high) = (above(&curve[before]), above(&curve[after]));
    let share = if high > low && low.is_finite() && high.is_finite() { -low / (high - low) } else { 1.0 };
    let (from, to) = (curve[before].step as f64, curve[after].step as f64);
    Some(from + share.clamp(0.0, 1.0) * (to - from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_between_two_looks() {
        let look = |(step, loss): (u64, f64)| Look { step, loss, accuracy: 100.0 - loss, seconds: step as f64 };
        let curve: Vec<Look> = [(0, 4.0), (10, 2.0), (20, 1.0), (30, 2.0)].map(look).to_vec();
        let to = |target: f64| crossing(&curve, |look| (target / look.loss).ln());
        assert_eq!((to(5.0), to(0.5)), (Some(0.0), None));
        assert!((to(2f64.sqrt()).unwrap() - 15.0).abs() < 1e-9);
        assert!((crossing(&curve, |look| look.accuracy - 97.0).unwrap() - 5.0).abs() < 1e-9);
    }
}
