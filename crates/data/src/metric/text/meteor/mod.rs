//! METEOR 1.5 for English (Denkowski and Lavie 2014) with two of its four modules: words match if they are the same
//! (`exact`) or have the same stem (`stem`). WordNet's synonyms and the table of paraphrases, tens of megabytes, are
//! left out, so its scores are not those of the full METEOR and must be published under another name.

mod align;
mod normalize;

use rayon::prelude::*;

use super::{MetricError, Row, check};
use align::align;

/// The parameters of METEOR 1.5 for English, task *rank* (Denkowski and Lavie 2014): how much recall counts
/// in the mean, the penalty's exponent and its greatest value, and the weight of content words.
const ALPHA: f64 = 0.85;
const BETA: f64 = 0.20;
const GAMMA: f64 = 0.60;
const DELTA: f64 = 0.75;

/// The weights of an exact match and of a match of stems.
const WEIGHTS: [f64; 2] = [1.0, 0.6];

/// METEOR's list of English function words, those with a relative frequency above 0.001 in a large corpus, with
/// punctuation (`function/english.words` of the release).
const FUNCTION_WORDS: &str = "the , . to of and a in that for \" is on 's it with was as said at he by be from have \
    has are his but an this not i will ’ they ) -rrb- ( -lrb- who their had we which were been more or s its would \
    about new one after you : also up when there than $ all out her people she year two - can if last first “ over \
    other ” into some what so -- no time years could ? 't — '";

/// How METEOR reads a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeteorOptions {
    /// Separate punctuation, split contractions and hyphenated words and drop the points of `U.S.`, as METEOR's `-norm`
    /// does for English; this is how METEOR is mostly used. Otherwise texts are taken as tokenized, and cut at white
    /// space of ASCII only (`-lower`). Either way they are put in lower case.
    pub normalize: bool,
}

impl Default for MeteorOptions {
    fn default() -> MeteorOptions {
        MeteorOptions { normalize: true }
    }
}

/// METEOR and what it is made of, 0-1.
#[derive(Debug, Clone, PartialEq)]
pub struct Meteor {
    /// Of the whole set, from statistics summed over its rows: METEOR's "final score", which is not the mean of `rows`.
    pub score: f64,
    /// Weighted matches over the weighted length of the hypotheses.
    pub precision: f64,
    /// Weighted matches over the weighted length of the references.
    pub recall: f64,
    /// What fragmentation takes off: the score is `(1 - penalty)` times the weighted harmonic mean of the two.
    pub penalty: f64,
    /// The score of each row.
    pub rows: Vec<f64>,
}

/// METEOR 1.5 with the modules `exact` and `stem`, weights 1.0 and 0.6, parameters of the task *rank*. Of a row's
/// references the one with the best score counts.
///
/// The alignment is found as the released program finds it, with a beam of 40 and its rounding (see
/// `meteor/align.rs`), since an exact search gives other scores on repetitive text. Time grows with the product of the
/// two lengths.
///
/// # Errors
/// When there are no rows or a row has no reference.
pub fn meteor_exact_stem(rows: &[Row<'_>], options: &MeteorOptions) -> Result<Meteor, MetricError> {
    check(rows)?;
    let statistics: Vec<_> = rows.par_iter().map(|row| best(row, options)).collect();
    let mut sum = Statistics::default();
    for row in &statistics {
        sum.add(row);
    }
    let total = sum.score();
    Ok(Meteor { rows: statistics.iter().map(|row| row.score().score).collect(), ..total })
}

/// The statistics with the best reference, the first of those that are equally good.
fn best(row: &Row<'_>, options: &MeteorOptions) -> Statistics {
    let hypothesis = tokenize(row.hypothesis, options);
    let mut best: Option<(f64, Statistics)> = None;
    for text in &row.references {
        let statistics = Statistics::of(&hypothesis, &tokenize(text, options));
        let score = statistics.score().score;
        if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
            best = Some((score, statistics));
        }
    }
    best.map(|(_, statistics)| statistics).unwrap_or_default()
}

fn tokenize(text: &str, options: &MeteorOptions) -> Vec<String> {
    let text = if options.normalize { normalize::normalize(text) } else { text.to_owned() };
    text.to_lowercase().split([' ', '\t', '\n', '\r', '\x0c']).filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// What is summed over rows.
#[derive(Default)]
struct Statistics {
    hypothesis: Side,
    reference: Side,
    chunks: u64,
}

/// Words of one side. Index 0 is content words, 1 function words.
#[derive(Default)]
struct Side {
    words: [u64; 2],
    /// By module (exact, stem), then by kind of word.
    matches: [[u64; 2]; 2],
}

impl Statistics {
    fn of(hypothesis: &[String], reference: &[String]) -> Statistics {
        let alignment = align(hypothesis, reference);
        let mut statistics = Statistics::default();
        for word in hypothesis {
            statistics.hypothesis.words[kind(word)] += 1;
        }
        for word in reference {
            statistics.reference.words[kind(word)] += 1;
        }
        let mut previous = None;
        for (j, matched) in alignment.iter().enumerate() {
            if let Some(i) = *matched {
                let module = usize::from(hypothesis[i] != reference[j]);
                statistics.hypothesis.matches[module][kind(&hypothesis[i])] += 1;
                statistics.reference.matches[module][kind(&reference[j])] += 1;
                // A chunk goes on where both sides go on.
                let follows = previous.is_some_and(|previous: usize| previous + 1 == i);
                statistics.chunks += u64::from(!follows);
            }
            previous = *matched;
        }
        statistics
    }

    /// Whether all words of both sides match in one chunk: then there is no fragmentation at all.
    fn perfect(&self) -> bool {
        self.hypothesis.complete() && self.reference.complete() && self.chunks == 1
    }

    fn add(&mut self, row: &Statistics) {
        if !row.perfect() {
            self.chunks += row.chunks;
        }
        for (sum, side) in [(&mut self.hypothesis, &row.hypothesis), (&mut self.reference, &row.reference)] {
            for kind in 0..2 {
                sum.words[kind] += side.words[kind];
                sum.matches[0][kind] += side.matches[0][kind];
                sum.matches[1][kind] += side.matches[1][kind];
            }
        }
    }

    /// The score of Denkowski and Lavie 2014, without `rows`.
    fn score(&self) -> Meteor {
        let matches = self.hypothesis.matched() + self.reference.matched();
        if matches == 0 {
            return Meteor { score: 0.0, precision: 0.0, recall: 0.0, penalty: 0.0, rows: Vec::new() };
        }
        let (precision, recall) = (self.hypothesis.share(), self.reference.share());
        let mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall);
        let fragmentation = if self.perfect() { 0.0 } else { self.chunks as f64 / (matches as f64 / 2.0) };
        let penalty = GAMMA * fragmentation.powf(BETA);
        Meteor { score: (mean * (1.0 - penalty)).max(0.0), precision, recall, penalty, rows: Vec::new() }
    }
}

impl Side {
    fn matched(&self) -> u64 {
        self.matches.iter().flatten().sum()
    }

    fn complete(&self) -> bool {
        self.matched() == self.words.iter().sum::<u64>()
    }

    /// Weighted matches over weighted words.
    fn share(&self) -> f64 {
        let weights = [DELTA, 1.0 - DELTA];
        let weighted = |counts: &[u64; 2]| counts[0] as f64 * weights[0] + counts[1] as f64 * weights[1];
        let matches: f64 = WEIGHTS.iter().zip(&self.matches).map(|(weight, counts)| weight * weighted(counts)).sum();
        matches / weighted(&self.words)
    }
}

fn kind(word: &str) -> usize {
    usize::from(FUNCTION_WORDS.split(' ').any(|function| function == word))
}
