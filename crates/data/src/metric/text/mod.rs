//! Metrics of generated text, whose numbers equal those of the field's reference tools.
//!
//! | metric | equal to | scale |
//! |---|---|---|
//! | [`bleu()`], [`sentence_bleu`] | `sacrebleu` 2.6, tokenizer 13a, exponential smoothing | 0-100 |
//! | [`chrf()`] | `sacrebleu` 2.6, chrF2 and chrF2++ | 0-100 |
//! | [`rouge()`] | Google's `rouge-score` 0.1.2 with NLTK 3.10 | 0-1 |
//! | [`meteor_exact_stem`] | METEOR 1.5 in Java, `-l en -m "exact stem" -w "1.0 0.6"` | 0-1 |
//! | [`distinct`], [`repetition`] | the papers | 0-1 |
//!
//! The scales are the tools' own, since that is how their numbers are published. A text is a Rust string, so always
//! valid Unicode; an empty hypothesis is legal and scores 0. Rows are scored in parallel and summed in their order.

pub mod bleu;
pub mod chrf;
pub mod diversity;
pub mod meteor;
pub mod rouge;

mod ngrams;
mod stem;
mod substitute;

pub use bleu::{Bleu, BleuOptions, bleu, sentence_bleu};
pub use chrf::{ChrfOptions, chrf};
pub use diversity::{Distinct, Repetition, distinct, repetition};
pub use meteor::{Meteor, MeteorOptions, meteor_exact_stem};
pub use rouge::{Overlap, Rouge, RougeOptions, rouge, sentence_rouge};

use super::MetricError;

/// A generated text and the texts that it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    pub hypothesis: &'a str,
    /// At least one. Rows may have different numbers of them.
    pub references: Vec<&'a str>,
}

/// Puts each hypothesis together with its references.
///
/// # Errors
/// When the two differ in number.
pub fn rows<'a, H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &'a [H],
    references: &'a [Vec<R>],
) -> Result<Vec<Row<'a>>, MetricError> {
    if hypotheses.len() != references.len() {
        return Err(MetricError::Rows { hypotheses: hypotheses.len(), references: references.len() });
    }
    let row = |(hypothesis, references): (&'a H, &'a Vec<R>)| Row {
        hypothesis: hypothesis.as_ref(),
        references: references.iter().map(AsRef::as_ref).collect(),
    };
    Ok(hypotheses.iter().zip(references).map(row).collect())
}

/// The words of a text between white space, as Python's `str.split` finds them.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
}

/// White space as Python has it: Unicode's, and four of ASCII's separators that Unicode does not count.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// What every metric asks of its input.
pub(super) fn check(rows: &[Row<'_>]) -> Result<(), MetricError> {
    if rows.is_empty() {
        return Err(MetricError::Empty);
    }
    match rows.iter().position(|row| row.references.is_empty()) {
        Some(row) => Err(MetricError::Unreferenced { row }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_is_an_error() {
        let error = rows(&["a"], &[vec!["a"], vec!["b"]]).unwrap_err();
        assert_eq!(error.to_string(), "1 hypotheses for the references of 2 rows");
        assert_eq!(check(&[]), Err(MetricError::Empty));
        let (hypotheses, references) = (["a", "b"], [vec!["a"], vec![]]);
        let error = check(&rows(&hypotheses, &references).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "row 1 has no reference; each row needs at least one, which may be empty text");
    }

    #[test]
    fn words_are_those_of_python() {
        let text = "\u{a0}a\u{1c}b\u{3000}c\u{200b}d\u{85}\t e ";
        assert_eq!(words(text).collect::<Vec<_>>(), ["a", "b", "c\u{200b}d", "e"]);
    }
}
