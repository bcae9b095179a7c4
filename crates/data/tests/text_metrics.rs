//! Metrics of text against sacrebleu, rouge-score and METEOR: `oracles/text_metrics.py`.

use std::path::Path;

use lapidary_data::metric::text::{
    Bleu, BleuOptions, ChrfOptions, MeteorOptions, Overlap, Rouge, RougeOptions, Row, bleu, chrf, distinct,
    meteor_exact_stem, repetition, rouge, rows, sentence_bleu, sentence_rouge, words,
};
use proptest::prelude::*;
use serde_json::Value;

struct Golden {
    file: Value,
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
}

impl Golden {
    fn read() -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/text_metrics.json");
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let rows = file["rows"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let hypotheses = rows.iter().map(|row| text(&row["hypothesis"])).collect();
        let references = rows.iter().map(|row| row["references"].as_array().unwrap().iter().map(text).collect());
        Golden { hypotheses, references: references.collect(), file }
    }

    /// Compares the score of the corpus and that of each row, which `score` gives for a set of rows.
    fn check(&self, name: &str, score: impl Fn(&[Row<'_>], Option<usize>, &Value)) {
        let rows = rows(&self.hypotheses, &self.references).unwrap();
        score(&rows, None, &self.file["corpus"][name]);
        for (index, row) in rows.iter().enumerate() {
            score(std::slice::from_ref(row), Some(index), &self.file["rows"][index][name]);
        }
    }
}

fn close(ours: f64, theirs: &Value, what: &str) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("{what}: {theirs}"));
    let error = (ours - theirs).abs();
    assert!(error <= 1e-12 * theirs.abs(), "{what}: {ours} instead of {theirs}");
}

#[test]
fn tokens_are_those_of_13a() {
    let golden = Golden::read();
    for (index, text) in golden.hypotheses.iter().enumerate() {
        let tokens = bleu::tokenize_13a(text);
        assert_eq!(serde_json::json!(tokens), golden.file["rows"][index]["tokens_13a"], "{text:?}");
    }
}

#[test]
fn bleu_is_that_of_sacrebleu() {
    let golden = Golden::read();
    for (name, lowercase) in [("bleu", false), ("bleu_lowercase", true)] {
        let options = BleuOptions { lowercase };
        golden.check(name, |rows, index, expected| {
            let score: Bleu = match index {
                None => bleu(rows, &options).unwrap(),
                Some(_) => sentence_bleu(&rows[0], &options).unwrap(),
            };
            let what = format!("{name} of {index:?}");
            assert_eq!(serde_json::json!(score.counts), expected["counts"], "{what}");
            assert_eq!(serde_json::json!(score.totals), expected["totals"], "{what}");
            assert_eq!(serde_json::json!(score.hypothesis_length), expected["sys_len"], "{what}");
            assert_eq!(serde_json::json!(score.reference_length), expected["ref_len"], "{what}");
            close(score.score, &expected["score"], &what);
            close(score.brevity_penalty, &expected["bp"], &what);
            for (n, precision) in score.precisions.into_iter().enumerate() {
                close(precision, &expected["precisions"][n], &what);
            }
        });
    }
}

#[test]
fn chrf_is_that_of_sacrebleu() {
    let golden = Golden::read();
    for (name, word_order, lowercase) in [("chrf", 0, false), ("chrf_pp", 2, false), ("chrf_lowercase", 0, true)] {
        golden.check(name, |rows, index, expected| {
            let score = chrf(rows, &ChrfOptions { word_order, lowercase }).unwrap();
            close(score, expected, &format!("{name} of {index:?}"));
        });
    }
}

#[test]
fn rouge_is_that_of_rouge_score() {
    let golden = Golden::read();
    for (name, stemmer) in [("rouge", false), ("rouge_stemmer", true)] {
        let options = RougeOptions { stemmer };
        golden.check(name, |rows, index, expected| {
            let Rouge { rouge1, rouge2, rouge_l, rouge_lsum } = match index {
                None => rouge(rows, &options).unwrap(),
                Some(_) => sentence_rouge(&rows[0], &options).unwrap(),
            };
            let kinds = [("rouge1", rouge1), ("rouge2", rouge2), ("rougeL", rouge_l), ("rougeLsum", rouge_lsum)];
            for (kind, Overlap { precision, recall, f1 }) in kinds {
                for (part, ours) in [precision, recall, f1].into_iter().enumerate() {
                    close(ours, &expected[kind][part], &format!("{name} {kind} of {index:?}, part {part}"));
                }
            }
        });
    }
}

#[test]
fn meteor_is_that_of_the_jar() {
    let golden = Golden::read();
    for (name, normalize) in [("meteor_norm", true), ("meteor_lower", false)] {
        golden.check(name, |rows, index, expected| {
            let meteor = meteor_exact_stem(rows, &MeteorOptions { normalize }).unwrap();
            close(meteor.score, expected, &format!("{name} of {index:?}"));
        });
    }
}

/// Texts of characters that the tokenizers look at, and of any others.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(any::<char>(), 0..30).prop_map(String::from_iter),
        "[ab'y,.\\-0-9 \"&;\n|<>]{0,40}",
        "((the|cat|cats|ing|y|'s|\\.\\.|😀|İ|é|日) ?){0,20}",
    ]
}

proptest! {
    #[test]
    fn no_text_panics(hypotheses in proptest::collection::vec(hostile(), 1..4), references in
                      proptest::collection::vec(proptest::collection::vec(hostile(), 1..4), 3), flag: bool) {
        let rows = rows(&hypotheses, &references[..hypotheses.len()]).unwrap();
        let (zero, hundred, one) = (0.0, 100.0 + 1e-9, 1.0 + 1e-9);
        let score = bleu(&rows, &BleuOptions { lowercase: flag }).unwrap().score;
        prop_assert!((zero..=hundred).contains(&score));
        let score = chrf(&rows, &ChrfOptions { word_order: 2, lowercase: flag }).unwrap();
        prop_assert!((zero..=hundred).contains(&score));
        let score = rouge(&rows, &RougeOptions { stemmer: flag }).unwrap();
        for overlap in [score.rouge1, score.rouge2, score.rouge_l, score.rouge_lsum] {
            prop_assert!((zero..=one).contains(&overlap.f1));
        }
        let meteor = meteor_exact_stem(&rows, &MeteorOptions { normalize: flag }).unwrap();
        prop_assert!((zero..=one).contains(&meteor.score));
        let tokens: Vec<Vec<&str>> = hypotheses.iter().map(|text| words(text).collect()).collect();
        let four = std::num::NonZeroUsize::new(4).unwrap();
        prop_assert!((zero..=one).contains(&distinct(&tokens, four).unwrap().per_ngram()));
        prop_assert!((zero..=one).contains(&repetition(&tokens, four).unwrap().rep_n));
    }

    #[test]
    fn a_text_is_like_itself(text in hostile()) {
        let row = Row { hypothesis: &text, references: vec![&text] };
        let meteor = meteor_exact_stem(std::slice::from_ref(&row), &MeteorOptions::default()).unwrap();
        prop_assert!(meteor.score == 0.0 || meteor.score == 1.0, "{}", meteor.score);
        let score = chrf(std::slice::from_ref(&row), &ChrfOptions::default()).unwrap();
        prop_assert!(score == 0.0 || (score - 100.0).abs() < 1e-9, "{score}");
    }
}
