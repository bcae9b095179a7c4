//! ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin 2004), as Google's `rouge-score` computes them, 0-1.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{MetricError, Row, check, ngrams, stem};

/// How ROUGE is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RougeOptions {
    /// Compare stems of words of more than three letters: `use_stemmer`, with NLTK's variant of Porter's stemmer.
    pub stemmer: bool,
}

/// What a hypothesis and a reference share, 0-1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overlap {
    /// The share of the hypothesis that is in the reference.
    pub precision: f64,
    /// The share of the reference that is in the hypothesis.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// The four ROUGE scores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rouge {
    /// Single words.
    pub rouge1: Overlap,
    /// Pairs of words.
    pub rouge2: Overlap,
    /// The longest common subsequence of the whole texts, line ends ignored.
    pub rouge_l: Overlap,
    /// The union of longest common subsequences of sentences (Lin 2004, section 3.2). Sentences end at `\n`: break the
    /// lines of a text before calling if it has none.
    pub rouge_lsum: Overlap,
}

/// Mean ROUGE over the rows. Precision, recall and F1 are each averaged, so the mean F1 is not that of the means.
///
/// Texts are put in lower case and cut at everything but `a-z` and `0-9`: a letter with an accent splits its word, and
/// text in other scripts has no words at all and scores 0. Of a row's references each of the four scores takes the one
/// with the best F1 (`score_multi`). Time and memory of ROUGE-Lsum are the product of two sentences' lengths.
///
/// # Errors
/// When there are no rows or a row has no reference.
pub fn rouge(rows: &[Row<'_>], options: &RougeOptions) -> Result<Rouge, MetricError> {
    check(rows)?;
    let scores: Vec<_> = rows.par_iter().map(|row| best(row, options)).collect();
    let mean = |kind: fn(&Rouge) -> Overlap| {
        let mean = |part: fn(Overlap) -> f64| scores.iter().map(|row| part(kind(row))).sum::<f64>() / rows.len() as f64;
        Overlap { precision: mean(|o| o.precision), recall: mean(|o| o.recall), f1: mean(|o| o.f1) }
    };
    Ok(Rouge {
        rouge1: mean(|rouge| rouge.rouge1),
        rouge2: mean(|rouge| rouge.rouge2),
        rouge_l: mean(|rouge| rouge.rouge_l),
        rouge_lsum: mean(|rouge| rouge.rouge_lsum),
    })
}

/// ROUGE of one row.
///
/// # Errors
/// When the row has no reference.
pub fn sentence_rouge(row: &Row<'_>, options: &RougeOptions) -> Result<Rouge, MetricError> {
    check(std::slice::from_ref(row))?;
    Ok(best(row, options))
}

fn best(row: &Row<'_>, options: &RougeOptions) -> Rouge {
    let hypothesis = Text::new(row.hypothesis, options);
    let mut best = Rouge::default();
    for (index, reference) in row.references.iter().enumerate() {
        let rouge = compare(&hypothesis, &Text::new(reference, options));
        let keep = |best: &mut Overlap, new: Overlap| {
            if index == 0 || new.f1 > best.f1 {
                *best = new;
            }
        };
        keep(&mut best.rouge1, rouge.rouge1);
        keep(&mut best.rouge2, rouge.rouge2);
        keep(&mut best.rouge_l, rouge.rouge_l);
        keep(&mut best.rouge_lsum, rouge.rouge_lsum);
    }
    best
}

/// A text's words, whole and by line.
struct Text {
    words: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Text {
    fn new(text: &str, options: &RougeOptions) -> Text {
        Text { words: tokenize(text, options), lines: text.split('\n').map(|line| tokenize(line, options)).collect() }
    }
}

fn tokenize(text: &str, options: &RougeOptions) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|word| !word.is_empty());
    let stem = |word: &str| match options.stemmer && word.len() > 3 {
        true => stem::porter(word),
        false => word.to_owned(),
    };
    words.map(stem).collect()
}

fn compare(hypothesis: &Text, reference: &Text) -> Rouge {
    let (h, r) = (hypothesis.words.len() as u64, reference.words.len() as u64);
    let ngrams = |n| {
        let matches = ngrams::overlap(&ngrams::count(&hypothesis.words, n), &ngrams::count(&reference.words, n));
        Overlap::new(matches, ngrams::total(hypothesis.words.len(), n), ngrams::total(reference.words.len(), n))
    };
    Rouge {
        rouge1: ngrams(1),
        rouge2: ngrams(2),
        rouge_l: Overlap::new(lcs(&hypothesis.words, &reference.words), h, r),
        rouge_lsum: Overlap::new(summary_lcs(&hypothesis.lines, &reference.lines), h, r),
    }
}

impl Overlap {
    fn new(matches: u64, hypothesis: u64, reference: u64) -> Overlap {
        if matches == 0 {
            return Overlap::default();
        }
        let (precision, recall) = (matches as f64 / hypothesis as f64, matches as f64 / reference as f64);
        Overlap { precision, recall, f1: 2.0 * precision * recall / (precision + recall) }
    }
}

/// The length of the longest common subsequence, from one row of the table at a time.
fn lcs(hypothesis: &[String], reference: &[String]) -> u64 {
    let mut row = vec![0; hypothesis.len() + 1];
    for r in reference {
        let mut diagonal = 0;
        for (j, h) in hypothesis.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if r == h { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[hypothesis.len()]
}

/// Hits of the union of longest common subsequences (Lin 2004, equation 5, numerator). No word counts more often than
/// either text has it, as in ROUGE-1.5.5, of which the paper says nothing.
fn summary_lcs(hypothesis: &[Vec<String>], reference: &[Vec<String>]) -> u64 {
    let mut left = available(hypothesis);
    let mut right = available(reference);
    let mut hits = 0;
    for sentence in reference {
        let mut union = vec![false; sentence.len()];
        for other in hypothesis {
            mark_lcs(sentence, other, &mut union);
        }
        for (word, _) in sentence.iter().zip(union).filter(|(_, common)| *common) {
            if let (Some(left @ 1..), Some(right @ 1..)) = (left.get_mut(word), right.get_mut(word)) {
                *left -= 1;
                *right -= 1;
                hits += 1;
            }
        }
    }
    hits
}

fn available(sentences: &[Vec<String>]) -> HashMap<&String, u64> {
    let mut counts = HashMap::new();
    for word in sentences.iter().flatten() {
        *counts.entry(word).or_default() += 1;
    }
    counts
}

/// Marks the words of the reference that are in one longest common subsequence. Of several equally long ones it is
/// rouge-score's: read from the end, a word of the hypothesis is passed over only where that loses nothing and passing
/// over one of the reference would.
fn mark_lcs(reference: &[String], hypothesis: &[String], marks: &mut [bool]) {
    let width = hypothesis.len();
    // [reference, hypothesis]: whether the cell to the left is greater than the one above.
    let mut leftward = vec![false; reference.len() * width];
    let mut row = vec![0_u64; width + 1];
    for (i, r) in reference.iter().enumerate() {
        let mut diagonal = 0;
        for (j, h) in hypothesis.iter().enumerate() {
            let above = row[j + 1];
            leftward[i * width + j] = row[j] > above;
            row[j + 1] = if r == h { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    let (mut i, mut j) = (reference.len(), width);
    while i > 0 && j > 0 {
        if reference[i - 1] == hypothesis[j - 1] {
            marks[i - 1] = true;
            (i, j) = (i - 1, j - 1);
        } else if leftward[(i - 1) * width + j - 1] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f1(hypothesis: &str, reference: &str) -> Rouge {
        let row = Row { hypothesis, references: vec![reference] };
        sentence_rouge(&row, &RougeOptions::default()).unwrap()
    }

    #[test]
    fn examples_of_the_paper() {
        // Lin 2004, section 3.1: S1 is the reference, ROUGE-L of S2 is 3/4, of S3 2/4 and of S4 2/4.
        let reference = "police killed the gunman";
        assert_eq!(f1("police kill the gunman", reference).rouge_l.f1, 0.75);
        assert_eq!(f1("the gunman kill police", reference).rouge_l.f1, 0.5);
        assert_eq!(f1("the gunman police killed", reference).rouge_l.f1, 0.5);
        // Section 3.2: "w1 w2 w3 w4 w5" against two sentences has a union of 4 words out of 5.
        let recall = f1("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5").rouge_lsum.recall;
        assert_eq!(recall, 0.8);
    }
}
