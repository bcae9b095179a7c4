//! Exact match and F1 of extracted answers, as SQuAD v1.1 has them (Rajpurkar et al. 2016, 1606.05250, section 6.1).

use std::collections::HashMap;

use rayon::prelude::*;

use super::MetricError;
use super::bootstrap::{Interval, intervals};
use super::text::{Row, words};

/// How good the answers to a set of questions are, 0-100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpanScores {
    /// Questions that were scored.
    pub questions: usize,
    /// The share of answers that are, normalised, those of an annotator.
    pub exact_match: f64,
    /// The mean over the questions of the best F1 of words with an annotator's answer.
    pub f1: f64,
    /// 95 % of bootstrap samples of the questions.
    pub exact_match_interval: Interval,
    /// Likewise.
    pub f1_interval: Interval,
}

/// Scores answers against those of the annotators, as the official `evaluate-v1.1.py` does: texts in lower case,
/// without ASCII punctuation and without the words a, an and the; of several annotators the best counts, for each of
/// the two scores by itself. An empty text stands for no answer. `seed` is that of the intervals.
///
/// The word boundaries around articles are those of Unicode's alphabetic and numeric characters. Python's differ from
/// them only where an article touches a vowel sign or a circled letter.
///
/// # Errors
/// When there are no rows or a row has no reference.
pub fn spans(rows: &[Row<'_>], seed: u64) -> Result<SpanScores, MetricError> {
    super::text::check(rows)?;
    let scored: Vec<[f64; 2]> = rows.par_iter().map(score).collect();
    let questions = rows.len();
    let mean = |sums: [f64; 2]| sums.map(|sum| 100.0 * sum / questions as f64);
    let sums = scored.iter().fold([0.0; 2], |sums, row| [sums[0] + row[0], sums[1] + row[1]]);
    let [exact_match, f1] = mean(sums);
    let [exact_match_interval, f1_interval] = intervals(&scored, seed, mean);
    Ok(SpanScores { questions, exact_match, f1, exact_match_interval, f1_interval })
}

/// Exact match and F1 of one answer, 0-1.
fn score(row: &Row<'_>) -> [f64; 2] {
    let found = normalize(row.hypothesis);
    let mut best = [0.0_f64; 2];
    for reference in &row.references {
        let expected = normalize(reference);
        let exact = if found == expected { 1.0 } else { 0.0 };
        best = [best[0].max(exact), best[1].max(f1(&found, &expected))];
    }
    best
}

/// F1 of two bags of words.
fn f1(found: &[String], expected: &[String]) -> f64 {
    let mut left: HashMap<&String, u64> = HashMap::new();
    for word in expected {
        *left.entry(word).or_default() += 1;
    }
    let mut same = 0_u64;
    for word in found {
        if let Some(count @ 1..) = left.get_mut(word) {
            *count -= 1;
            same += 1;
        }
    }
    if same == 0 {
        return 0.0;
    }
    let (precision, recall) = (same as f64 / found.len() as f64, same as f64 / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The words of an answer that count.
fn normalize(text: &str) -> Vec<String> {
    let text: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    // An article is a run of letters and digits, which a character of neither kind may end within a word.
    let mut without = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let letters = first.is_alphanumeric();
        let end = rest.find(|c: char| c.is_alphanumeric() != letters).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        without.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = after;
    }
    words(&without).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(hypothesis: &str, references: &[&str]) -> [f64; 2] {
        let scores = spans(&[Row { hypothesis, references: references.to_vec() }], 0).unwrap();
        [scores.exact_match, scores.f1]
    }

    #[test]
    fn articles_case_and_punctuation_do_not_count() {
        assert_eq!(one("The  CAT, a dog!", &["cat dog"]), [100.0, 100.0]);
        assert_eq!(one("U.S.", &["us"]), [100.0, 100.0]);
        assert_eq!(one("an-the", &["anthe"]), [100.0, 100.0]);
        assert_eq!(one("the “a” an", &["“ ”"]), [100.0, 100.0]);
        assert_eq!(one("", &["the"]), [100.0, 0.0]);
        assert_eq!(one("", &["cat"]), [0.0, 0.0]);
        // Exact with the second, but no better F1 than with it; the best of each counts.
        assert_eq!(one("in 1973", &["1973", "in the 1973"]), [100.0, 100.0]);
        let [exact, f1] = one("big red cat", &["red cat sat down", "blue"]);
        assert_eq!(exact, 0.0);
        assert!((f1 - 100.0 * 4.0 / 7.0).abs() < 1e-12, "{f1}");
    }

    #[test]
    fn bad_input_is_an_error() {
        assert_eq!(spans(&[], 0), Err(MetricError::Empty));
        let row = Row { hypothesis: "a", references: vec![] };
        assert_eq!(spans(&[row], 0), Err(MetricError::Unreferenced { row: 0 }));
    }
}
