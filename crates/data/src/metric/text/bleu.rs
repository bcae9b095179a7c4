//! BLEU-4 (Papineni et al. 2002), as `sacrebleu` computes it (Post 2018): raw text in, its own tokenizer, 0-100.

use rayon::prelude::*;

use super::substitute::substitute;
use super::{MetricError, Row, check, is_python_space, ngrams, words};

/// The longest n-gram.
const ORDER: usize = 4;

/// How BLEU is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuOptions {
    /// Compare in lower case: sacrebleu's `lowercase`, in its signature `case:lc`.
    pub lowercase: bool,
}

/// BLEU and what it is made of. Index 0 is unigrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bleu {
    /// 0-100.
    pub score: f64,
    /// N-grams of the hypotheses found in a reference, each at most as often as in the reference that has most.
    pub counts: [u64; ORDER],
    /// N-grams of the hypotheses.
    pub totals: [u64; ORDER],
    /// The smoothed quotients of the two, 0-100.
    pub precisions: [f64; ORDER],
    /// 0-1, below 1 where the hypotheses are shorter than the references.
    pub brevity_penalty: f64,
    /// Tokens of the hypotheses.
    pub hypothesis_length: u64,
    /// Tokens of the references: of each row the one closest in length, the shorter of two as close.
    pub reference_length: u64,
}

/// BLEU of a corpus: counts are summed over its rows before anything is divided.
///
/// An order without a match counts as `1 / 2^k` matches, `k` the number of such orders so far (`smooth:exp`; Chen and
/// Cherry 2014, method 3); without any match at all the score is 0.
///
/// # Errors
/// When there are no rows or a row has no reference.
pub fn bleu(rows: &[Row<'_>], options: &BleuOptions) -> Result<Bleu, MetricError> {
    check(rows)?;
    let statistics: Vec<_> = rows.par_iter().map(|row| Statistics::of(row, options)).collect();
    Ok(statistics.iter().fold(Statistics::default(), Statistics::add).bleu(false))
}

/// BLEU of one row, over the orders of which the hypothesis has n-grams: sacrebleu's `sentence_bleu`, which sets
/// `effective_order`.
///
/// # Errors
/// When the row has no reference.
pub fn sentence_bleu(row: &Row<'_>, options: &BleuOptions) -> Result<Bleu, MetricError> {
    check(std::slice::from_ref(row))?;
    Ok(Statistics::of(row, options).bleu(true))
}

/// What is summed over rows.
#[derive(Default)]
struct Statistics {
    counts: [u64; ORDER],
    totals: [u64; ORDER],
    hypothesis_length: u64,
    reference_length: u64,
}

impl Statistics {
    fn of(row: &Row<'_>, options: &BleuOptions) -> Statistics {
        let hypothesis = tokenize(row.hypothesis, options);
        let references: Vec<_> = row.references.iter().map(|text| tokenize(text, options)).collect();
        let length = hypothesis.len();
        let closest = references.iter().map(Vec::len).min_by_key(|&other| (other.abs_diff(length), other));
        let mut statistics = Statistics {
            hypothesis_length: length as u64,
            reference_length: closest.unwrap_or(0) as u64,
            ..Statistics::default()
        };
        for n in 1..=ORDER {
            let mut most = ngrams::Counts::new();
            for reference in &references {
                for (ngram, count) in ngrams::count(reference, n) {
                    let most = most.entry(ngram).or_default();
                    *most = count.max(*most);
                }
            }
            statistics.counts[n - 1] = ngrams::overlap(&ngrams::count(&hypothesis, n), &most);
            statistics.totals[n - 1] = ngrams::total(length, n);
        }
        statistics
    }

    fn add(mut self, other: &Statistics) -> Statistics {
        for n in 0..ORDER {
            self.counts[n] += other.counts[n];
            self.totals[n] += other.totals[n];
        }
        self.hypothesis_length += other.hypothesis_length;
        self.reference_length += other.reference_length;
        self
    }

    /// Papineni et al., section 2.3; `effective` leaves out the orders without n-grams.
    fn bleu(&self, effective: bool) -> Bleu {
        let (hypothesis, reference) = (self.hypothesis_length, self.reference_length);
        let brevity_penalty = match hypothesis {
            _ if hypothesis >= reference => 1.0,
            0 => 0.0,
            _ => (1.0 - reference as f64 / hypothesis as f64).exp(),
        };
        let mut bleu = Bleu {
            score: 0.0,
            counts: self.counts,
            totals: self.totals,
            precisions: [0.0; ORDER],
            brevity_penalty,
            hypothesis_length: hypothesis,
            reference_length: reference,
        };
        if self.counts == [0; ORDER] {
            return bleu;
        }
        let orders = self.totals.iter().take_while(|&&total| total > 0).count();
        let mut smoothing = 1.0;
        for n in 0..orders {
            let total = self.totals[n] as f64;
            bleu.precisions[n] = match self.counts[n] {
                0 => {
                    smoothing *= 2.0;
                    100.0 / (smoothing * total)
                }
                count => 100.0 * count as f64 / total,
            };
        }
        if effective || orders == ORDER {
            let logs: f64 = bleu.precisions[..orders].iter().map(|precision| precision.ln()).sum();
            bleu.score = brevity_penalty * (logs / orders as f64).exp();
        }
        bleu
    }
}

fn tokenize(text: &str, options: &BleuOptions) -> Vec<String> {
    match options.lowercase {
        true => tokenize_13a(&text.to_lowercase()),
        false => tokenize_13a(text),
    }
}

/// The tokenizer `13a`, that of NIST's `mteval-v13a.pl`: ASCII punctuation is separated, but for apostrophes and for
/// hyphens, points and commas inside numbers; four HTML entities are unescaped; hyphenated line ends are joined.
pub fn tokenize_13a(text: &str) -> Vec<String> {
    let mut text =
        text.trim_end_matches(is_python_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, character);
    }
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| c == '.' || c == ',';
    let symbol = |c: char| c == ' ' || c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.');
    let text: Vec<char> = format!(" {text} ").chars().collect();
    let text = substitute(&text, |[c]| symbol(c), " 1 ");
    let text = substitute(&text, |[a, b]| !digit(a) && stop(b), "1 2 ");
    let text = substitute(&text, |[a, b]| stop(a) && !digit(b), " 1 2");
    let text = substitute(&text, |[a, b]| digit(a) && b == '-', "1 2 ");
    words(&text.into_iter().collect::<String>()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let tokens = tokenize_13a("\"Don't,\" he said: 1,000.5-2 &quot;x&quot; &amp;lt; U.S. co-op");
        let expected = [
            "\"", "Don't", ",", "\"", "he", "said", ":", "1,000.5", "-", "2", "\"", "x", "\"", "<", "U", ".", "S", ".",
            "co-op",
        ];
        assert_eq!(tokens, expected);
    }

    #[test]
    fn counts_of_the_paper() {
        // Papineni et al. 2002, section 2.1, examples 1 and 2: clipped unigram precisions 17/18 and 2/7.
        let references = [
            "It is a guide to action that ensures that the military will forever heed Party commands",
            "It is the guiding principle which guarantees the military forces always being under the command of the \
             Party",
            "It is the practical guide for the army always to heed the directions of the party",
        ];
        let hypothesis =
            "It is a guide to action which ensures that the military always obeys the commands of the party";
        let row = Row { hypothesis, references: references.to_vec() };
        let score = bleu(&[row], &BleuOptions::default()).unwrap();
        assert_eq!((score.counts[0], score.totals[0]), (17, 18));

        let references = vec!["The cat is on the mat", "There is a cat on the mat"];
        let row = Row { hypothesis: "the the the the the the the", references };
        let score = bleu(&[row], &BleuOptions { lowercase: true }).unwrap();
        assert_eq!((score.counts[0], score.totals[0]), (2, 7));
    }
}
