//! What a model says of examples.

use std::num::NonZeroUsize;

use anyhow::Context;
use lapidary_data::{Accuracy, Batch, Encoded, SortedPlan};
use lapidary_models::{Classifier, Pass};
use lapidary_train::TrainError;
use serde::{Deserialize, Serialize};

use super::{ModelSource, Run};

/// Examples evaluated at once.
const BATCH: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The class with the largest logit of each example, in the order of the examples. `model` has no gradients.
pub fn predictions<M: Classifier>(model: &M, examples: &[Encoded], pad_id: u32) -> Vec<u32> {
    let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    let plan = SortedPlan::new(&lengths, BATCH);
    let mut predicted = Vec::with_capacity(examples.len());
    for rows in &plan.batches {
        let rows: Vec<&Encoded> = rows.iter().map(|&row| &examples[row]).collect();
        let logits = model.logits(&Batch::collate(&rows, pad_id), &Pass::evaluation());
        let [_, classes] = logits.dims();
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        predicted.extend(logits.chunks(classes).map(largest));
    }
    plan.restore(predicted)
}

/// Accuracy with Wilson's 95 % interval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// Share of the examples that are right, 0-100.
    pub percent: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of examples.
    pub examples: u64,
}

/// Accuracy of a model without gradients on examples.
pub fn accuracy<S: ModelSource>(
    model: &S::Model,
    examples: &[Encoded],
    run: &Run,
    source: &S,
) -> anyhow::Result<Scored> {
    let labels: Option<Vec<u32>> = examples.iter().map(|example| example.target.class()).collect();
    let labels = labels.context("an example has another target than a class")?;
    let predicted = predictions(model, examples, run.examples.tokenizer.pad_id());
    let accuracy = Accuracy::new(&predicted, &labels, source.labels().len() as u32)?;
    let interval = accuracy.interval();
    Ok(Scored { percent: accuracy.percent(), low: interval.low, high: interval.high, examples: accuracy.examples() })
}

/// What training asks after every so many steps: the accuracy on the validation part.
pub fn validator<'a, S: ModelSource>(
    run: &'a Run,
    source: &'a S,
) -> impl FnMut(&S::Model) -> Result<f64, TrainError> + 'a {
    move |model| match accuracy(model, &run.examples.validation, run, source) {
        Ok(scored) => Ok(scored.percent),
        Err(error) => Err(TrainError::Validation(error.into())),
    }
}

fn largest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best as u32
}
