//! Tasks beside classes of texts: answers in passages and tagged words, from a recipe to their curvature.

use std::fs;

use serde_json::{Value, json};

use super::run::Place;
use super::{Called, lapidary};

/// What is the same in the recipes of all tasks.
const REST: &str = r#"
[finetune]
epochs = 2
batch_size = 8
evaluate_every = 3
[curvature]
samples = 2
examples = 4
iterations = 3
[quantize]
groups = 4
[[quantize.variant]]
name = "w4"
bits = 4
steps = 2
batch_size = 8
"#;

/// Questions on two passages, in SQuAD's form.
fn questions(many: usize) -> String {
    let passage = |number: usize| {
        let context = format!("a good film the poor plot a {} film", ["fine", "bad"][number % 2]);
        let answer = ["good film", "poor plot"][number % 2];
        let start = context.find(answer).expect("it is there");
        let asked = ["the film", "the plot"][number % 2];
        let question = json!({
            "id": number.to_string(), "question": asked,
            "answers": [{"text": answer, "answer_start": start}, {"text": "a good film", "answer_start": 0}],
        });
        json!({"context": context, "qas": [question]})
    };
    let passages: Vec<Value> = (0..many).map(passage).collect();
    json!({"version": "1.1", "data": [{"title": "films", "paragraphs": passages}]}).to_string()
}

/// Tagged sentences, in CoNLL's form.
fn sentences(many: usize) -> String {
    let sentence = |number: usize| {
        let (word, tag) = [("good", "B-GOOD"), ("bad", "O")][number % 2];
        format!("a O\n{word} {tag}\nfilm {}\nplot O\n\n", if number.is_multiple_of(2) { "I-GOOD" } else { "O" })
    };
    (0..many).map(sentence).collect()
}

fn place(model: &str, data: &str, files: [(&str, String); 2]) -> Place {
    let place = Place::new();
    for (name, text) in files {
        place.write(name, &text);
    }
    let head = format!("name = \"tiny\"\nseeds = [1]\n[model]\ncheckpoint = \"bert\"\n{model}[data]\n{data}");
    place.write("recipe.toml", &format!("{head}{REST}"));
    place
}

fn metric(result: &Value, name: &str) -> f64 {
    result["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name} in {result}"))
}

fn run(place: &Place, scores: &[&str]) {
    let called = place.run(&["--json"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("one JSON object");
    for score in scores {
        for variant in ["f32", "f32.seed1", "w4.direct", "w4.qat"] {
            assert!((0.0..=100.0).contains(&metric(&result, &format!("tiny.dev.{score}.{variant}"))));
        }
    }
    assert!(metric(&result, "tiny.validation.f1.f32") >= 0.0 && metric(&result, "tiny.curvature.omega.block1") >= 0.0);
    let page = fs::read_to_string(place.path("out/report.html")).expect("a report");
    assert!(page.contains("F1 over size") && page.contains("F1 on the validation part") && !page.contains("ccuracy"));
    let again = place.run(&["--json"]);
    assert_eq!(again.stderr.matches("done before").count(), 3, "{}", again.stderr);
}

fn curvature(place: &Place, data: &str) -> Value {
    let mut command = lapidary();
    command.arg("curvature").arg(place.path("out/seed1/finetune/model")).arg("--data").arg(place.path(data));
    command.args(["--json", "--layers", "--samples", "2", "--layer-examples", "4", "--landscape", "--out"]);
    let called = Called::of(command.arg(place.path("curvature")).output().expect("it starts"));
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    serde_json::from_str(&called.stdout).expect("one JSON object")
}

#[test]
fn answers_in_passages() {
    let data = "format = \"squad\"\ntrain = [\"train.json\"]\ndev = \"dev.json\"\nvalidation_rows = 6\nmax_length = 16\n\
                stride = 2\nquestion_length = 4\n";
    let place = place("", data, [("train.json", questions(30)), ("dev.json", questions(8))]);
    run(&place, &["f1", "exact_match"]);
    let config = fs::read_to_string(place.path("out/seed1/finetune/model/config.json")).expect("written");
    assert!(config.contains("BertForQuestionAnswering"), "{config}");
    let found = curvature(&place, "train.json");
    assert!(metric(&found, "curvature.loss") > 0.0 && metric(&found, "curvature.omega.block1") >= 0.0);
}

#[test]
fn tagged_words() {
    let data = "format = \"conll\"\ntrain = \"train.conll\"\nvalidation = \"dev.conll\"\ndev = \"dev.conll\"\n\
                max_length = 6\n";
    let place = place("", data, [("train.conll", sentences(30)), ("dev.conll", sentences(8))]);
    run(&place, &["f1", "precision", "recall"]);
    let config = fs::read_to_string(place.path("out/seed1/finetune/model/config.json")).expect("written");
    assert!(config.contains("BertForTokenClassification") && config.contains("I-GOOD"), "{config}");
    let found = curvature(&place, "dev.conll");
    assert!(metric(&found, "curvature.loss") > 0.0);
}

#[test]
fn what_does_not_belong_together_is_told() {
    let files = || [("train.json", questions(30)), ("dev.json", questions(8))];
    let squad = "format = \"squad\"\ntrain = \"train.json\"\ndev = \"dev.json\"\nvalidation_rows = 6\n";
    for (model, data, code, expected) in [
        ("labels = [\"a\", \"b\"]\n", squad.to_owned(), 2, "model.labels: answers in passages have no classes"),
        ("", format!("{squad}text = \"sentence\"\n"), 2, "data.text: only tables have columns by name"),
        (
            "",
            format!("{squad}stride = 500\n"),
            2,
            "data.stride: should be below the 317 tokens that 384 leave a passage",
        ),
        ("", format!("{squad}validation = \"dev.json\"\n"), 2, "data.validation_rows: says how many training rows"),
        ("", format!("{squad}columns = {{}}\n"), 2, "data.columns: is for the columns of CoNLL"),
        ("", squad.replace("rows = 6", "rows = 30"), 1, "30 questions, of which data.validation_rows = 30"),
        ("", squad.replace("\"squad\"", "\"tsv\""), 2, "model.labels: should name two classes or more"),
        ("labels = [\"a\", \"b\"]\n", squad.replace("\"squad\"", "\"tsv\""), 2, "data.text: is missing"),
        // The golden model has 24 positions.
        ("", squad.to_owned(), 1, "tokens, the model has 24 positions"),
        ("", squad.replace("train.json", "dev.conll"), 2, "no data `dev.conll`"),
    ] {
        let mut files = files();
        if expected.contains("24 positions") {
            files[0].1 = files[0].1.replace("fine film\"", &format!("fine film{}\"", " a film".repeat(9)));
        }
        let place = place(model, &data, files);
        let message = place.failure(&[], code);
        assert!(message.contains(expected), "{message}\nshould have\n{expected}");
    }
}
