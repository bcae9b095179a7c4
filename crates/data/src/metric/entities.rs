//! Precision, recall and F1 of entities (Tjong Kim Sang and De Meulder 2003, cs/0306050, section 2.4): an entity is
//! right when its type, its first and its last word are.

use std::collections::BTreeMap;
use std::collections::HashSet;

use super::MetricError;
use super::bootstrap::{Interval, intervals};
use crate::tag::{Entity, Tag, TagError, entities as entities_of};

/// Counts of entities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EntityCounts {
    /// Predicted entities that are right.
    pub correct: u64,
    /// Predicted entities.
    pub predicted: u64,
    /// True entities: seqeval's support.
    pub expected: u64,
}

impl EntityCounts {
    /// The share of the predicted entities that is right, 0-100; 0 where there are none.
    pub fn precision(&self) -> f64 {
        percent(self.correct as f64, self.predicted as f64)
    }

    /// The share of the true entities that was found, 0-100; 0 where there are none.
    pub fn recall(&self) -> f64 {
        percent(self.correct as f64, self.expected as f64)
    }

    /// Their harmonic mean, 0-100; 0 where both are 0.
    pub fn f1(&self) -> f64 {
        harmonic(self.precision(), self.recall())
    }
}

/// How good the tags of a set of sentences are.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityScores {
    /// Sentences that were scored.
    pub sentences: usize,
    /// The sums over all types: the micro average.
    pub all: EntityCounts,
    /// By type, those that are only predicted among them.
    pub types: BTreeMap<String, EntityCounts>,
    /// 95 % of bootstrap samples of the sentences, of the micro average.
    pub precision_interval: Interval,
    /// Likewise.
    pub recall_interval: Interval,
    /// Likewise.
    pub f1_interval: Interval,
}

/// Scores tags against the true ones, sentence by sentence, as seqeval 1.2.2 does by default (and `conlleval`): see
/// [`tag::entities`](crate::tag::entities) for tags that are ill-formed. `seed` is that of the intervals.
///
/// # Errors
/// When there is no sentence, the two differ in sentences or words, or a tag is none of entities.
pub fn entities<S: AsRef<str>, T: AsRef<str>>(
    predicted: &[Vec<S>],
    expected: &[Vec<T>],
    seed: u64,
) -> Result<EntityScores, MetricError> {
    if predicted.len() != expected.len() {
        return Err(MetricError::Lengths { predictions: predicted.len(), labels: expected.len() });
    }
    if expected.is_empty() {
        return Err(MetricError::Empty);
    }
    let mut types: BTreeMap<String, EntityCounts> = BTreeMap::new();
    let mut all = EntityCounts::default();
    let mut rows = Vec::with_capacity(expected.len());
    for (sentence, (predicted, expected)) in predicted.iter().zip(expected).enumerate() {
        if predicted.len() != expected.len() {
            return Err(MetricError::Words { sentence, predicted: predicted.len(), tags: expected.len() });
        }
        let failed = |cause| MetricError::Tag { sentence, cause };
        let (predicted, expected) = (parsed(predicted).map_err(failed)?, parsed(expected).map_err(failed)?);
        let mut add = |entity: &Entity<'_>, count: fn(&mut EntityCounts) -> &mut u64| {
            *count(&mut all) += 1;
            *count(types.entry(entity.kind.to_owned()).or_default()) += 1;
        };
        predicted.iter().for_each(|entity| add(entity, |counts| &mut counts.predicted));
        expected.iter().for_each(|entity| add(entity, |counts| &mut counts.expected));
        let known: HashSet<&Entity<'_>> = expected.iter().collect();
        let correct: Vec<&Entity<'_>> = predicted.iter().filter(|entity| known.contains(entity)).collect();
        correct.iter().for_each(|entity| add(entity, |counts| &mut counts.correct));
        rows.push([correct.len() as f64, predicted.len() as f64, expected.len() as f64]);
    }
    let scores = |[correct, predicted, expected]: [f64; 3]| {
        let (precision, recall) = (percent(correct, predicted), percent(correct, expected));
        [precision, recall, harmonic(precision, recall)]
    };
    let [precision_interval, recall_interval, f1_interval] = intervals(&rows, seed, scores);
    Ok(EntityScores { sentences: rows.len(), all, types, precision_interval, recall_interval, f1_interval })
}

fn parsed<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Entity<'_>>, TagError> {
    let tags: Result<Vec<Tag<'_>>, _> = tags.iter().map(|tag| Tag::parse(tag.as_ref())).collect();
    Ok(entities_of(tags?))
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { 100.0 * part / whole }
}

fn harmonic(precision: f64, recall: f64) -> f64 {
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<Vec<&str>> {
        text.split('|').map(|sentence| sentence.split_whitespace().collect()).collect()
    }

    #[test]
    fn the_example_of_seqeval() {
        let expected = tags("O O O B-MISC I-MISC I-MISC O | B-PER I-PER O");
        let predicted = tags("O O B-MISC I-MISC I-MISC I-MISC O | B-PER I-PER O");
        let scores = entities(&predicted, &expected, 0).unwrap();
        assert_eq!(scores.all, EntityCounts { correct: 1, predicted: 2, expected: 2 });
        assert_eq!((scores.all.precision(), scores.all.recall(), scores.all.f1()), (50.0, 50.0, 50.0));
        assert_eq!(scores.types["MISC"].f1(), 0.0);
        assert_eq!(scores.types["PER"].f1(), 100.0);
        assert_eq!((scores.f1_interval.low, scores.f1_interval.high), (0.0, 100.0));
    }

    #[test]
    fn without_entities_all_is_zero() {
        let scores = entities(&tags("O O | O"), &tags("O O | O"), 0).unwrap();
        assert_eq!((scores.all.f1(), scores.types.len(), scores.f1_interval.high), (0.0, 0, 0.0));
    }

    #[test]
    fn bad_input_is_an_error() {
        let message =
            |predicted: &str, expected: &str| entities(&tags(predicted), &tags(expected), 0).unwrap_err().to_string();
        assert_eq!(message("O | O", "O"), "2 predictions for 1 labels");
        assert_eq!(message("O | O", "O | O O"), "sentence 1 has 2 tags and 1 predicted ones");
        assert_eq!(message("O | PER", "O | O"), "sentence 1: tag \"PER\" is not O, B-TYPE or I-TYPE");
        assert_eq!(entities::<&str, &str>(&[], &[], 0), Err(MetricError::Empty));
    }
}
