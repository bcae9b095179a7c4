//! chrF (Popović 2015) and chrF++ (Popović 2017), as `sacrebleu` computes them, 0-100.

use rayon::prelude::*;

use super::{MetricError, Row, check, ngrams, words};

/// The longest n-gram of characters.
const CHARACTER_ORDER: usize = 6;

/// Recall counts this many times as much as precision.
const BETA: f64 = 2.0;

/// How chrF is computed. The default is chrF2: `nc:6|nw:0|space:no`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChrfOptions {
    /// The longest n-gram of words: 0 for chrF, 2 for chrF++.
    pub word_order: u8,
    /// Compare in lower case.
    pub lowercase: bool,
}

/// chrF of a corpus, 0-100: the F score of mean precision and mean recall over the orders of n-grams that both sides
/// have, white space left out of characters, counts summed over the rows. Of a row's references the one with the best
/// chrF counts.
///
/// # Errors
/// When there are no rows or a row has no reference.
pub fn chrf(rows: &[Row<'_>], options: &ChrfOptions) -> Result<f64, MetricError> {
    check(rows)?;
    let statistics: Vec<_> = rows.par_iter().map(|row| best(row, options)).collect();
    let mut sum = vec![Order::default(); CHARACTER_ORDER + usize::from(options.word_order)];
    for row in &statistics {
        for (sum, order) in sum.iter_mut().zip(row) {
            sum.hypothesis += order.hypothesis;
            sum.reference += order.reference;
            sum.matches += order.matches;
        }
    }
    Ok(score(&sum))
}

/// N-grams of one length.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    hypothesis: u64,
    reference: u64,
    matches: u64,
}

/// The statistics with the best reference, the first of those that are equally good.
fn best(row: &Row<'_>, options: &ChrfOptions) -> Vec<Order> {
    let hypothesis = Units::new(row.hypothesis, options);
    let mut best: Option<(f64, Vec<Order>)> = None;
    for text in &row.references {
        let orders = compare(&hypothesis, &Units::new(text, options), options.word_order);
        let score = score(&orders);
        if best.as_ref().is_none_or(|(highest, _)| score > *highest) {
            best = Some((score, orders));
        }
    }
    best.map(|(_, orders)| orders).unwrap_or_default()
}

/// A text as characters and as words.
struct Units {
    characters: Vec<char>,
    words: Vec<String>,
}

impl Units {
    fn new(text: &str, options: &ChrfOptions) -> Units {
        let lower;
        let text = match options.lowercase {
            true => {
                lower = text.to_lowercase();
                &lower
            }
            false => text,
        };
        Units { characters: words(text).flat_map(str::chars).collect(), words: words(text).flat_map(split).collect() }
    }
}

/// Separates a punctuation mark at the end of a word or, if there is none, at its beginning.
fn split(word: &str) -> Vec<String> {
    let mut inner = word.chars();
    let (first, last) = (inner.next(), inner.next_back());
    match (first, last) {
        (Some(_), Some(last)) if last.is_ascii_punctuation() => {
            vec![word[..word.len() - last.len_utf8()].to_owned(), last.to_string()]
        }
        (Some(first), Some(_)) if first.is_ascii_punctuation() => {
            vec![first.to_string(), word[first.len_utf8()..].to_owned()]
        }
        _ => vec![word.to_owned()],
    }
}

fn compare(hypothesis: &Units, reference: &Units, word_order: u8) -> Vec<Order> {
    let characters = (1..=CHARACTER_ORDER).map(|n| order(&hypothesis.characters, &reference.characters, n));
    let words = (1..=word_order).map(|n| order(&hypothesis.words, &reference.words, n.into()));
    characters.chain(words).collect()
}

fn order<T: Eq + std::hash::Hash>(hypothesis: &[T], reference: &[T], n: usize) -> Order {
    let total = ngrams::total(reference.len(), n);
    Order {
        // What the reference is too short for is not held against the hypothesis.
        hypothesis: if total > 0 { ngrams::total(hypothesis.len(), n) } else { 0 },
        reference: total,
        matches: ngrams::overlap(&ngrams::count(hypothesis, n), &ngrams::count(reference, n)),
    }
}

fn score(orders: &[Order]) -> f64 {
    let (mut precision, mut recall, mut count) = (0.0, 0.0, 0.0);
    for order in orders.iter().filter(|order| order.hypothesis > 0 && order.reference > 0) {
        precision += order.matches as f64 / order.hypothesis as f64;
        recall += order.matches as f64 / order.reference as f64;
        count += 1.0;
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / count, recall / count);
    let factor = BETA * BETA;
    100.0 * (1.0 + factor) * precision * recall / (factor * precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_is_separated() {
        let cases: [(&str, &[&str]); 5] =
            [("(hi)", &["(hi", ")"]), ("(hi", &["(", "hi"]), ("hi", &["hi"]), ("!", &["!"]), ("é!", &["é", "!"])];
        for (word, parts) in cases {
            assert_eq!(split(word), parts);
        }
    }
}
