//! What a model says of examples.

use std::num::NonZeroUsize;

use lapidary_data::{Accuracy, Batch, Encoded, SortedPlan};
use lapidary_models::{Classifier, Pass};

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

/// Accuracy of a model on examples, with its interval and confusions.
pub fn accuracy<M: Classifier>(
    model: &M,
    examples: &[Encoded],
    pad_id: u32,
    classes: usize,
) -> anyhow::Result<Accuracy> {
    let labels: Vec<u32> = examples.iter().map(|example| example.label).collect();
    Ok(Accuracy::new(&predictions(model, examples, pad_id), &labels, classes as u32)?)
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
