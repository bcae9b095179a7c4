//! What a model says of examples, and how right it is.

use std::num::NonZeroUsize;

use lapidary_data::metric::accuracy::Interval;
use lapidary_data::metric::entities::entities;
use lapidary_data::metric::spans::spans;
use lapidary_data::metric::text::Row;
use lapidary_data::{
    Accuracy, Batch, Encoded, SortedPlan, SpanLogits, SpanQuestion, SpanSearch, SpanSet, TagSet, TaggedSentence,
    TaggedSet, best_span,
};
use lapidary_models::{Classifier, Pass};
use lapidary_train::TrainError;
use serde::{Deserialize, Serialize};

use super::Run;
use crate::examples::Part;

/// Examples evaluated at once.
const BATCH: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// The seed of bootstrap intervals: the same for all models, so that their intervals can be compared.
const RESAMPLING: u64 = 0;

/// The logits of each row, in the order of the rows, as `take` keeps them. It is given those of a row, of which there
/// are as many for each place as for the others, and the places that the row was padded to. `model` has no gradients.
fn logits<M: Classifier, T>(model: &M, rows: &[&Encoded], pad_id: u32, take: impl Fn(&[f32], usize) -> T) -> Vec<T> {
    let lengths: Vec<usize> = rows.iter().map(|row| row.ids.len()).collect();
    let plan = SortedPlan::new(&lengths, BATCH);
    let mut taken = Vec::with_capacity(rows.len());
    for batch in &plan.batches {
        let batch: Vec<&Encoded> = batch.iter().map(|&row| rows[row]).collect();
        let batch = Batch::collate(&batch, pad_id);
        let all: Vec<f32> = model.logits(&batch, &Pass::evaluation()).into_data().iter::<f32>().collect();
        taken.extend(all.chunks(all.len() / batch.rows).map(|row| take(row, batch.length)));
    }
    plan.restore(taken)
}

/// The class with the largest logit of each row, in the order of the rows. `model` has no gradients.
pub fn predictions<M: Classifier>(model: &M, rows: &[&Encoded], pad_id: u32) -> Vec<u32> {
    logits(model, rows, pad_id, |row, _| largest(row))
}

/// One score with its 95 % interval, 0-100.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Score {
    /// As results call it: `accuracy`, `f1`.
    pub name: String,
    /// The score.
    pub percent: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Score {
    fn new(name: &str, percent: f64, interval: Interval) -> Self {
        Self { name: name.to_owned(), percent, low: interval.low, high: interval.high }
    }
}

/// How right a model is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// What settings are chosen by.
    pub main: Score,
    /// The others of the task.
    pub others: Vec<Score>,
    /// Number of examples.
    pub examples: u64,
}

impl Scored {
    /// All scores, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Score> {
        std::iter::once(&self.main).chain(&self.others)
    }
}

/// Scores a model without gradients on a part of the examples: accuracy of classes; F1 and exact match of answers; F1,
/// precision and recall of entities.
///
/// # Errors
/// Logits that are not finite, a part without examples.
pub fn score<M: Classifier>(model: &M, part: &Part, run: &Run) -> anyhow::Result<Scored> {
    let (rows, pad_id) = (part.rows(), run.examples.tokenizer.pad_id()?);
    match part {
        Part::Classes { rows: examples, .. } => {
            let labels: Vec<u32> = examples.iter().filter_map(|example| example.target.class()).collect();
            let accuracy =
                Accuracy::new(&predictions(model, &rows, pad_id), &labels, run.examples.task.labels().len() as u32)?;
            let main = Score::new("accuracy", accuracy.percent(), accuracy.interval());
            Ok(Scored { main, others: Vec::new(), examples: accuracy.examples() })
        }
        Part::Spans { questions, windows } => {
            let halves = logits(model, &rows, pad_id, |row, length| {
                let (start, end) = row.split_at(length);
                [start.to_vec(), end.to_vec()]
            });
            answers(questions, windows, &halves)
        }
        Part::Tags { sentences, rows: set, tags } => {
            let tagged = logits(model, &rows, pad_id, |row, _| row.chunks(tags.names().len()).map(largest).collect());
            tagged_words(sentences, set, tags, tagged)
        }
    }
}

/// Logits of starts and ends for each window, padding included.
fn answers(questions: &[SpanQuestion], windows: &SpanSet, logits: &[[Vec<f32>; 2]]) -> anyhow::Result<Scored> {
    let mut given = Vec::with_capacity(questions.len());
    let mut first = 0;
    for (number, question) in questions.iter().enumerate() {
        let of_question = windows.of(number);
        let here = first..first + of_question.len();
        first = here.end;
        let real: Vec<SpanLogits<'_>> = (of_question.iter().zip(&logits[here]))
            .map(|(window, [start, end])| {
                let length = window.row.ids.len();
                SpanLogits { start: &start[..length], end: &end[..length] }
            })
            .collect();
        let best = best_span(&question.passage, of_question, &real, &SpanSearch::default())?;
        given.push(best.map_or_else(String::new, |best| best.answer.text));
    }
    let rows: Vec<Row<'_>> = (given.iter().zip(questions))
        .map(|(hypothesis, question)| Row {
            hypothesis,
            references: question.answers.iter().map(|answer| answer.text.as_str()).collect(),
        })
        .collect();
    let scores = spans(&rows, RESAMPLING)?;
    Ok(Scored {
        main: Score::new("f1", scores.f1, scores.f1_interval),
        others: vec![Score::new("exact_match", scores.exact_match, scores.exact_match_interval)],
        examples: scores.questions as u64,
    })
}

/// A tag for each token of each row, padding included.
fn tagged_words(
    sentences: &[TaggedSentence],
    set: &TaggedSet,
    tags: &TagSet,
    mut tagged: Vec<Vec<u32>>,
) -> anyhow::Result<Scored> {
    for (tagged, row) in tagged.iter_mut().zip(&set.rows) {
        tagged.truncate(row.row.ids.len());
    }
    let names = |tagged: Vec<u32>| tagged.into_iter().filter_map(|tag| tags.name(tag)).collect::<Vec<_>>();
    let predicted: Vec<Vec<&str>> = set.join(&tagged).into_iter().map(names).collect();
    let expected: Vec<Vec<&String>> = sentences.iter().map(|sentence| sentence.tags.iter().collect()).collect();
    let scores = entities(&predicted, &expected, RESAMPLING)?;
    Ok(Scored {
        main: Score::new("f1", scores.all.f1(), scores.f1_interval),
        others: vec![
            Score::new("precision", scores.all.precision(), scores.precision_interval),
            Score::new("recall", scores.all.recall(), scores.recall_interval),
        ],
        examples: scores.sentences as u64,
    })
}

/// What training asks after every so many steps: the main score of the validation part.
pub fn validator<'a, M: Classifier>(run: &'a Run) -> impl FnMut(&M) -> Result<f64, TrainError> + 'a {
    move |model| match score(model, &run.examples.validation, run) {
        Ok(scored) => Ok(scored.main.percent),
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
