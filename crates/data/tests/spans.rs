//! Windows, best spans and scores of extracted answers against Hugging Face's code: `oracles/spans.py`.

use std::path::Path;
use std::sync::Arc;

use lapidary_data::metric::spans::spans;
use lapidary_data::metric::text::Row;
use lapidary_data::{
    Encoded, SpanAnswer, SpanLogits, SpanOptions, SpanQuestion, SpanSearch, SpanWindow, Target, Tokenizer, best_span,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn file() -> Value {
    serde_json::from_slice(&std::fs::read(golden("spans.json")).unwrap()).unwrap()
}

pub fn wordpiece(name: &str) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden(&format!("{name}.tokenizer.json")), folder.path().join("tokenizer.json")).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().into()
}

fn asked(question: &str, passage: &str, answer: &str, start_byte: usize) -> SpanQuestion {
    let answers = vec![SpanAnswer { text: answer.into(), start_byte }];
    SpanQuestion { id: "1".into(), question: question.into(), passage: Arc::from(passage), answers }
}

fn target(window: &SpanWindow) -> (usize, usize) {
    match window.row.target {
        Target::Span { start, end } => (start, end),
        _ => panic!("a window has a span"),
    }
}

/// The logits of the oracle.
fn logits(case: usize, window: usize, tokens: usize) -> [Vec<f32>; 2] {
    let of = |place: usize, by: [usize; 4]| ((place * by[0] + window * by[1] + case * by[2]) % by[3]) as f32 / 64.0;
    let start = |place| of(place, [7919, 4507, 6037, 1009]) - if place == 0 { 100.0 / 64.0 } else { 0.0 };
    let end = |place| of(place, [6311, 3001, 9001, 1013]);
    [(0..tokens).map(start).collect(), (0..tokens).map(end).collect()]
}

#[test]
fn windows_and_best_spans_are_those_of_hugging_face() {
    let file = file();
    let tokenizers = ["uncased", "cased"].map(|name| (name, wordpiece(name)));
    let (mut answered, mut tokenless, mut behind, mut divided, mut none) = (0, 0, 0, 0, 0);
    for (index, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let (_, tokenizer) = tokenizers.iter().find(|(name, _)| *name == case["tokenizer"]).unwrap();
        let answer = (number(&case["answer"][0]), text(&case["answer"][1]));
        let asked = asked(&text(&case["question"]), &text(&case["passage"]), &answer.1, answer.0);
        let options = SpanOptions {
            max_length: number(&case["max_length"]),
            stride: number(&case["stride"]),
            question_length: number(&case["question_length"]),
        };
        let set = tokenizer.span_windows(std::slice::from_ref(&asked), &options).unwrap();
        assert_eq!(json!(set.cut_questions == 1), case["cut"], "case {index}");
        let expected = case["windows"].as_array().unwrap();
        assert_eq!(set.windows.len(), expected.len(), "case {index}");
        for (window, expected) in set.windows.iter().zip(expected) {
            assert_eq!(json!(window.row.ids), expected["ids"], "case {index}");
            assert_eq!(json!(window.row.types), expected["types"], "case {index}");
            assert_eq!(json!([window.passage.start, window.passage.end]), expected["passage"], "case {index}");
            let bytes: Vec<usize> = window.bytes.iter().flat_map(|bytes| [bytes.start, bytes.end]).collect();
            assert_eq!(json!(bytes), expected["bytes"], "case {index}");

            let ((start, end), theirs) = (target(window), &expected["span"]);
            let (their_start, their_end) = (number(&theirs[0]), number(&theirs[1]));
            answered += usize::from(end > 0);
            // What is beside the answer's tokens on the left, and on the right.
            let begins = start > 0 && window.bytes_of(start).unwrap().start <= answer.0;
            let ends = start > 0 && window.bytes_of(end).unwrap().end >= answer.0 + answer.1.len();
            if (start, end) == (their_start, their_end) {
                continue;
            } else if !begins || !ends {
                // A character without a token: they take the next token too, or no answer at all.
                assert!(their_end == 0 || their_start <= start && their_end >= end, "case {index}");
                tokenless += 1;
            } else if their_start >= window.passage.end {
                // "We could go after the last offset if the answer is the last word (edge case)", as they say.
                assert_eq!((start, end), (window.passage.end - 1, their_end), "case {index}");
                behind += 1;
            } else {
                // A character of several tokens, of which they have the last as start and the first as end.
                let (ours, theirs) = ([start, end], [their_start, their_end]);
                assert_eq!(ours.map(|place| window.bytes_of(place)), theirs.map(|place| window.bytes_of(place)));
                divided += 1;
            }
        }

        let of_windows: Vec<_> = set.windows.iter().map(|window| window.row.ids.len()).enumerate().collect();
        let of_windows: Vec<_> = of_windows.into_iter().map(|(window, tokens)| logits(index, window, tokens)).collect();
        let of_windows: Vec<_> = of_windows.iter().map(|[start, end]| SpanLogits { start, end }).collect();
        let search = SpanSearch { n_best: number(&case["n_best"]), max_tokens: number(&case["max_tokens"]) };
        let best = best_span(&asked.passage, &set.windows, &of_windows, &search).unwrap();
        none += usize::from(best.is_none());
        let bytes = best.map(|best| {
            assert_eq!(asked.passage[best.answer.bytes()], best.answer.text);
            [best.answer.bytes().start, best.answer.bytes().end]
        });
        assert_eq!(json!(bytes), case["best"], "case {index}");
    }
    println!(
        "{answered} windows with an answer; others than theirs: {tokenless} of characters without a token, {behind} at \
         the window's end, {divided} of divided characters; {none} questions without a span"
    );
    assert!(answered > 30 && tokenless > 0 && behind > 0 && divided > 0 && none > 0);
}

#[test]
fn scores_are_those_of_the_official_script() {
    let file = file();
    let scores = &file["scores"];
    let texts: Vec<(String, Vec<String>)> = scores["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["prediction"]), row["answers"].as_array().unwrap().iter().map(text).collect()))
        .collect();
    let rows: Vec<Row<'_>> = texts
        .iter()
        .map(|(hypothesis, references)| Row { hypothesis, references: references.iter().map(String::as_str).collect() })
        .collect();
    let close = |ours: f64, theirs: &Value| (ours - theirs.as_f64().unwrap()).abs() < 1e-10;
    for (row, expected) in rows.iter().zip(scores["rows"].as_array().unwrap()) {
        let ours = spans(std::slice::from_ref(row), 0).unwrap();
        assert!(close(ours.exact_match, &expected["exact_match"]), "{row:?}: {ours:?}");
        assert!(close(ours.f1, &expected["f1"]), "{row:?}: {ours:?}");
    }
    let all = spans(&rows, 7).unwrap();
    assert!(close(all.exact_match, &scores["exact_match"]) && close(all.f1, &scores["f1"]), "{all:?}");
    for (score, interval) in [(all.exact_match, all.exact_match_interval), (all.f1, all.f1_interval)] {
        assert!(interval.low < score - 5.0 && score + 5.0 < interval.high, "{interval:?}");
    }
    assert_eq!(all, spans(&rows, 7).unwrap());
}

#[test]
fn questions_keep_their_windows() {
    let tokenizer = wordpiece("uncased");
    let long = "stone river wind ".repeat(20);
    let questions = [
        asked("light?", &long, "wind", 12),
        asked("north stone blue glass river of light?", &long, "river wind stone", 40),
        asked("glass?", "blue glass", "glass", 5),
        // Not where it is said to be, so in no window.
        asked("glass?", "blue glass", "glass", 50),
        asked("?", "\u{200b}", "\u{200b}", 0),
    ];
    let options = SpanOptions { max_length: 16, stride: 4, question_length: 4 };
    let set = tokenizer.span_windows(&questions, &options).unwrap();
    assert_eq!((set.cut_questions, set.unanswerable), (1, 2));
    for (index, question) in questions.iter().enumerate() {
        let windows = set.of(index);
        let alone = tokenizer.span_windows(std::slice::from_ref(question), &options).unwrap();
        assert_eq!(windows.len(), alone.windows.len());
        for (window, alone) in windows.iter().zip(&alone.windows) {
            assert_eq!((window.question, &window.row, &window.bytes), (index, &alone.row, &alone.bytes));
        }
    }
    assert_eq!((set.of(2).len(), set.of(4).len(), set.of(4)[0].bytes.len(), set.of(5).len()), (1, 1, 0, 0));
    assert_eq!(set.of(4)[0].row.target, Target::Span { start: 0, end: 0 });
    // A window begins 4 tokens before the end of the one before.
    for pair in set.of(0).windows(2) {
        assert_eq!(pair[0].bytes[pair[0].bytes.len() - 4..], pair[1].bytes[..4]);
    }
}

#[test]
fn texts_make_no_special_tokens() {
    let tokenizer = wordpiece("cased");
    let asked = asked("[SEP]?", "[CLS] stone [SEP] river", "[SEP]", 12);
    let set = tokenizer.span_windows(std::slice::from_ref(&asked), &SpanOptions::default()).unwrap();
    let window = &set.windows[0];
    let special = |id: &&u32| [tokenizer.id("[CLS]"), tokenizer.id("[SEP]")].contains(&Some(**id));
    assert_eq!(window.row.ids.iter().filter(special).count(), 3);
    let (start, end) = target(window);
    assert_eq!((window.bytes_of(start).unwrap().start, window.bytes_of(end).unwrap().end), (12, 17));
}

#[test]
fn options_without_room_are_errors() {
    let tokenizer = wordpiece("uncased");
    let asked = asked("stone?", "river", "river", 0);
    let windows = |max_length, stride, question_length| {
        let options = SpanOptions { max_length, stride, question_length };
        tokenizer.span_windows(std::slice::from_ref(&asked), &options)
    };
    assert!(windows(12, 4, 4).is_ok() && windows(5, 0, 1).is_ok());
    for (max_length, stride, question_length) in [(11, 4, 4), (12, 5, 4), (12, 4, 5), (12, 4, 0), (2, 0, 1), (0, 0, 0)]
    {
        let error = windows(max_length, stride, question_length).unwrap_err().to_string();
        assert!(error.starts_with(&format!("no windows of max_length {max_length} can be cut")), "{error}");
    }
    let options: SpanOptions = toml::from_str("stride = 100").unwrap();
    assert_eq!(options, SpanOptions { stride: 100, ..SpanOptions::default() });
}

/// Logits of 0, and of 1 at one token of the passage.
fn logits_at(window: &SpanWindow, token: usize) -> Vec<f32> {
    (0..window.row.ids.len()).map(|place| f32::from(place == window.passage.start + token)).collect()
}

#[test]
fn logits_that_do_not_fit_are_errors() {
    let tokenizer = wordpiece("uncased");
    let asked = asked("stone?", "blue river", "river", 5);
    let windows = tokenizer.span_windows(std::slice::from_ref(&asked), &SpanOptions::default()).unwrap().windows;
    let tokens = windows[0].row.ids.len();
    let best = |start: &[f32], end: &[f32]| {
        let best = best_span("blue river", &windows, &[SpanLogits { start, end }], &SpanSearch::default());
        best.map_err(|error| error.to_string()).map(|best| best.unwrap())
    };
    let mut logits = logits_at(&windows[0], 1);
    let found = best(&logits, &logits).unwrap();
    assert_eq!((found.answer.text.as_str(), found.answer.start_byte, found.score, found.window), ("river", 5, 2.0, 0));
    let ruled_out = vec![f32::NEG_INFINITY; tokens];
    assert_eq!(best(&logits[1..], &logits).unwrap_err(), "window 0 has 7 tokens and 6 logits of starts and 7 of ends");
    logits[2] = f32::NAN;
    assert_eq!(best(&ruled_out, &logits).unwrap_err(), "a logit of window 0 is NaN");
    logits[2] = f32::INFINITY;
    assert_eq!(best(&logits, &ruled_out).unwrap_err(), "a logit of window 0 is inf");
    let none = best_span("blue river", &windows, &[], &SpanSearch::default()).unwrap_err().to_string();
    assert_eq!(none, "logits of 0 windows for 1 windows of passages");
    let even = vec![0.0; tokens];
    let logits = [SpanLogits { start: &even, end: &logits_at(&windows[0], 1) }];
    let other = best_span("blue", &windows, &logits, &SpanSearch::default()).unwrap_err().to_string();
    assert_eq!(other, "window 0 speaks of the bytes 0..10, which are no part of the passage");
    let nothing = SpanSearch { n_best: 0, max_tokens: 30 };
    assert_eq!(best_span("blue river", &windows, &logits, &nothing), Ok(None));
    let logits = [SpanLogits { start: &ruled_out, end: &even }];
    assert_eq!(best_span("blue river", &windows, &logits, &SpanSearch::default()), Ok(None));
}

/// What [`best_span`] says, by trying all spans of a window.
fn plain(windows: &[SpanWindow], logits: &[SpanLogits<'_>], max_tokens: usize) -> Option<f32> {
    let all = windows.iter().zip(logits).flat_map(|(window, logits)| {
        let ends = move |start: usize| start..window.passage.end.min(start + max_tokens);
        let pairs = window.passage.clone().flat_map(move |start| ends(start).map(move |end| (start, end)));
        pairs.map(|(start, end)| logits.start[start] + logits.end[end])
    });
    all.max_by(f32::total_cmp)
}

proptest! {
    #[test]
    fn every_text_has_windows_that_cover_it(
        question in "[a-c한é😀 ?]{0,12}", passage in "(river|stone|[a-z한É😀日\u{301}\u{200b}])( ?(river|[a-c한\u{301}])){0,60}",
        (from, to) in (0.0..1.0, 0.0..1.0), (room, stride) in (1_usize..20, 0_usize..10), seed in any::<u64>(),
    ) {
        let tokenizer = wordpiece("uncased");
        let places: Vec<usize> = passage.char_indices().map(|(place, _)| place).chain([passage.len()]).collect();
        let place = |share: f64| places[(share * places.len() as f64) as usize];
        let (start, end) = (place(from).min(place(to)), place(from).max(place(to)));
        let asked = asked(&question, &passage, &passage[start..end], start);
        let options = SpanOptions { max_length: 3 + 4 + stride + room, stride, question_length: 4 };
        let set = tokenizer.span_windows(std::slice::from_ref(&asked), &options).unwrap();

        let mut bytes: Vec<_> = Vec::new();
        for window in &set.windows {
            prop_assert!(window.row.ids.len() <= options.max_length);
            prop_assert_eq!(window.passage.len(), window.bytes.len());
            let shared = if bytes.is_empty() { 0 } else { stride };
            prop_assert_eq!(&bytes[bytes.len() - shared..], &window.bytes[..shared]);
            bytes.extend_from_slice(&window.bytes[shared..]);
            if window.has_answer() {
                let (first, last) = target(window);
                let (first, last) = (window.bytes_of(first).unwrap(), window.bytes_of(last).unwrap());
                prop_assert!(first.end > start && last.start < end);
            }
        }
        let ids: Vec<u32> = tokenizer.encode_text(&passage).unwrap();
        prop_assert_eq!(bytes.len(), ids.len());

        let mut stream = lapidary_kernels::rng::Stream::new(seed, 0);
        let mut draw = |row: &Encoded| -> Vec<f32> { row.ids.iter().map(|_| stream.normal()).collect() };
        let logits: Vec<_> = set.windows.iter().map(|window| (draw(&window.row), draw(&window.row))).collect();
        let logits: Vec<_> = logits.iter().map(|(start, end)| SpanLogits { start, end }).collect();
        let search = SpanSearch { n_best: usize::MAX, max_tokens: 5 };
        let best = best_span(&passage, &set.windows, &logits, &search).unwrap();
        prop_assert_eq!(best.map(|best| best.score), plain(&set.windows, &logits, 5));
    }

    #[test]
    fn an_answer_is_like_itself(texts in proptest::collection::vec("[a-cthe.,' é😀]{0,20}", 1..6), seed in any::<u64>()) {
        let rows: Vec<Row<'_>> =
            texts.iter().map(|text| Row { hypothesis: text, references: vec!["other", text] }).collect();
        let scores = spans(&rows, seed).unwrap();
        prop_assert_eq!((scores.exact_match, scores.exact_match_interval.low), (100.0, 100.0));
        prop_assert!((0.0..=100.0).contains(&scores.f1) && scores.f1_interval.low <= scores.f1_interval.high);
    }
}
