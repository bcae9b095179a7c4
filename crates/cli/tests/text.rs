//! From a folder of text to a model that writes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Called, call, lapidary};

const RECIPE: &str = r#"
kind = "text"
name = "small"

[data]
files = ["texts"]
hold_out_every = 4

[tokenizer]
vocabulary = 280

[model]
positions = 24
width = 16
heads = 2
feed_forward = 32
blocks = 1

[pretrain]
recall = 0.5
batch_size = 4
evaluate_every = 5

[[pretrain.variant]]
name = "both"
objective = "both"
steps = 12
pieces = 0.5

[[pretrain.variant]]
name = "twin"
from = "both"
objective = "autoregressive"
steps = 10
"#;

/// Eight documents of a few hundred words and a recipe for them.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("texts")).expect("made");
    for document in 0..8 {
        let word = |i: usize| ["amber", "beryl", "citrine", "diamond", "emerald", "garnet"][(i * i + document) % 6];
        let text: Vec<&str> = (0..300).map(word).collect();
        fs::write(folder.path().join(format!("texts/{document}.txt")), text.join(" ")).expect("written");
    }
    fs::write(folder.path().join("small.toml"), RECIPE).expect("written");
    folder
}

pub fn in_folder(folder: &Path, arguments: &[&str]) -> Called {
    let output = lapidary().current_dir(folder).env("LAPIDARY_DATA", folder).args(arguments).output();
    Called::of(output.expect("it starts"))
}

#[test]
fn text_becomes_models_that_write() {
    let folder = folder();
    let run = |arguments: &[&str]| in_folder(folder.path(), &[&["run", "small.toml", "--json"], arguments].concat());
    let first = run(&[]);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let result: Value = serde_json::from_str(&first.stdout).expect("JSON");
    let metric = |result: &Value, name: &str| result["metrics"][name].as_f64().unwrap_or(f64::NAN);
    assert_eq!(metric(&result, "text.held_out.documents"), 2.0);
    assert_eq!(metric(&result, "text.train.documents"), 6.0);
    for name in [
        "bits_per_byte.both",
        "bits_per_byte_bound.both",
        "bits_per_byte.twin",
        "denoising_nats_per_token.both",
        "perplexity.twin",
    ] {
        let value = metric(&result, &format!("text.held_out.{name}"));
        assert!(value > 0.0 && value < 1e4, "{name} is {value}");
    }
    assert!(metric(&result, "text.held_out.denoising_nats_per_token.twin").is_nan(), "it does not repair");
    assert!(folder.path().join("runs/small/report.html").is_file());

    let again = run(&[]);
    assert!(again.stderr.contains("pretrain/twin: done before"), "{}", again.stderr);
    let again: Value = serde_json::from_str(&again.stdout).expect("JSON");
    assert_eq!(again["metrics"], result["metrics"]);

    let model = "runs/small/pretrain/both/model";
    let write = |arguments: &[&str]| {
        let tokens = if arguments.contains(&"--tokens") { &[][..] } else { &["--tokens", "9"] };
        in_folder(folder.path(), &[&["generate", model, "--prompt", "amber beryl"], tokens, arguments].concat())
    };
    for way in [
        &["--decode", "autoregressive"][..],
        &["--decode", "parallel", "--steps", "3"],
        &["--decode", "parallel", "--accept", "entropy=2", "--renoise", "--precision", "bf16"],
        &["--decode", "parallel", "--candidates", "3", "--rank-by", "likelihood"],
        &["--decode", "parallel", "--accept", "verified", "--steps", "4"],
        &["--decode", "parallel", "--accept", "verified", "--candidates", "3", "--rank-by", "likelihood"],
        &["--decode", "parallel", "--blocks", "2", "--tokens", "4", "--accept", "unsure=0.5"],
        &["--decode", "speculative", "--draft", "2"],
    ] {
        let (one, other) = (write(&[way, &["--json"]].concat()), write(way));
        assert_eq!((one.code, other.code), (Some(0), Some(0)), "{}", one.stderr);
        let json: Value = serde_json::from_str(&one.stdout).expect("JSON");
        let text = json["text"].as_str().expect("a text");
        assert!(text.starts_with("amber beryl") && json["tokens"].as_u64() <= Some(9), "{json}");
        assert_eq!(other.stdout, format!("{text}\n"), "the same text again");
    }
    let plain = write(&["--temperature", "0.5"]);
    let speculative = write(&["--decode", "speculative", "--temperature", "0.5"]);
    assert_eq!(speculative.stdout, plain.stdout, "the same text");
    let shown = write(&["--decode", "parallel", "--steps", "3", "--accept", "all", "--show"]);
    let canvases = shown.stderr.lines().filter(|line| line.contains(" of 9 ")).count();
    assert!((2..=4).contains(&canvases), "{}", shown.stderr);

    let twin = in_folder(folder.path(), &["generate", "runs/small/pretrain/twin/model", "--decode", "parallel"]);
    assert!(
        twin.error(2).contains("was trained to predict the next token, and --decode parallel needs"),
        "{}",
        twin.stderr
    );
    assert!(write(&["--tokens", "30"]).error(2).contains("the model's 24 positions"));
    assert!(write(&["--steps", "0"]).error(2).starts_with("invalid value '0' for '--steps <N>'"));
    assert!(write(&["--accept", "top=many"]).error(2).contains("top wants a count"));
    assert!(in_folder(folder.path(), &["generate", "no-such"]).error(1).contains("no-such"));
    assert!(call(&["inspect", folder.path().join(model).to_str().expect("UTF-8")]).stdout.contains("lapidary_decoder"));
}

const TASK: &str = r#"
[finetune]
batch_size = 4
evaluate_every = 5

[[finetune.variant]]
name = "canvas"
from = "both"
objective = "both"

[[finetune.variant]]
name = "twin"
from = "twin"
objective = "autoregressive"

[[finetune.variant]]
name = "fresh"
objective = "denoising"

[write]
passes = [1, 3]
test_passes = 2
temperatures = [0, 0.5]
accept = ["all", "surest=0.5", "verified"]
candidates = 2

[[task]]
name = "echo"
canvas = 8
steps = 10
validate_every = 3
too_long = "cut"
form = "words"
test = { files = ["test.txt", "right.txt"], format = "lines" }

[[task.train]]
files = ["pairs.jsonl"]
source = "text"
target = "short"
"#;

/// The same with a task: of some words, the first.
fn folder_with_task() -> tempfile::TempDir {
    let folder = folder();
    let words = ["Amber", "beryl", "citrine", "diamond", "emerald"];
    let text = |i: usize| [words[i % 5], words[i / 5 % 5], words[i / 25 % 5]].join(" ");
    let line = |i: usize| serde_json::json!({ "text": text(i), "short": words[i % 5] }).to_string();
    let lines = |each: &dyn Fn(usize) -> String, range: std::ops::Range<usize>| {
        range.map(|i| each(i) + "\n").collect::<String>()
    };
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).expect("written");
    // One source of the test is among those to train on.
    write("pairs.jsonl", lines(&line, 0..30));
    write("test.txt", lines(&text, 29..40));
    write("right.txt", lines(&|i| words[i % 5].to_owned(), 29..40));
    write("small.toml", format!("{RECIPE}{TASK}"));
    folder
}

#[test]
fn models_are_fine_tuned_and_their_texts_compared() {
    let folder = folder_with_task();
    let run = || in_folder(folder.path(), &["run", "small.toml", "--json"]);
    let called = run();
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("JSON");
    let metric = |name: &str| result["metrics"][name].as_f64().unwrap_or(f64::NAN);
    for (name, expected) in
        [("train_pairs", 20.0), ("kept_sources", 9.0), ("test_sources", 11.0), ("left_out_in_test", 1.0)]
    {
        assert_eq!(metric(&format!("echo.data.{name}")), expected, "{name}");
    }
    for name in [
        "test.copied.rouge_l",
        "test.canvas.greedy.bleu_4",
        "test.canvas.parallel.rouge_l",
        "test.canvas.ranked_by_itself.meteor_exact_stem",
        "test.canvas.ranked_by_likelihood.chrf",
        "test.twin.greedy.passes",
        "test.fresh.parallel.tokens_per_pass",
        "kept.fresh.passes_3.rouge_l",
        "kept.twin.greedy.bleu_4",
        "kept_loss.canvas",
        "test.canvas.greedy.words",
    ] {
        let value = metric(&format!("echo.{name}"));
        assert!((0.0..=100.0).contains(&value), "{name} is {value}");
    }
    let guessed = |what: &str| result["metrics"][format!("speculative.echo_canvas.{what}")].as_f64();
    assert_eq!((guessed("prompts"), guessed("equal_texts")), (Some(11.0), Some(11.0)), "the same texts");
    assert_eq!(metric("echo.test.copied.rouge_1"), 50.0, "a word of three, which is all of one");
    let page = fs::read_to_string(folder.path().join("runs/small/report.html")).expect("a page");
    assert!(page.contains("Task: echo") && page.contains("ROUGE-L over passes"));
    // A model of a task is asked as it was trained, and only what it writes is printed.
    let canvas = ["generate", "runs/small/task/echo/canvas/model", "--prompt", "Beryl citrine"];
    for way in ["autoregressive", "parallel", "speculative"] {
        let written = in_folder(folder.path(), &[&canvas[..], &["--decode", way, "--json"]].concat());
        assert_eq!(written.code, Some(0), "{}", written.stderr);
        let json: Value = serde_json::from_str(&written.stdout).expect("JSON");
        let text = json["text"].as_str().expect("a text");
        assert!(!text.starts_with("Beryl") && !text.starts_with(' '), "{json}");
        assert!(json["tokens"].as_u64() <= Some(8) && json["prompt_tokens"].as_u64() > Some(3), "{json}");
    }
    let again = run();
    assert!(again.stderr.contains("task/echo/fresh/scores: done before"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).expect("JSON")["metrics"], result["metrics"]);
}

const PUPIL: &str = r#"
[[finetune.variant]]
name = "pupil"
from = "both"
teacher = "twin"
objective = "both"
pieces = 0.5
"#;

#[test]
fn a_model_learns_what_another_writes() {
    let folder = folder_with_task();
    let recipe = format!("{RECIPE}{TASK}").replace("\n[write]", &format!("{PUPIL}\n[write]"));
    fs::write(folder.path().join("small.toml"), recipe).expect("written");
    // Long enough that the twin's texts end.
    let longer = ["--set", "task.echo.steps=150", "--set", "finetune.learning_rate=2e-2"];
    let run = || in_folder(folder.path(), &[&["run", "small.toml", "--json"][..], &longer].concat());
    let called = run();
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("JSON");
    let metric = |name: &str| result["metrics"][name].as_f64().unwrap_or(f64::NAN);
    let (pairs, unfinished) = (metric("echo.taught.pupil.train_pairs"), metric("echo.taught.pupil.unfinished"));
    assert!((1.0..=20.0).contains(&pairs) && pairs + unfinished <= 29.0, "{pairs} and {unfinished}");
    assert!(metric("echo.taught.canvas.train_pairs").is_nan(), "it has no teacher");
    assert!((0.0..=100.0).contains(&metric("echo.test.pupil.parallel.rouge_l")));
    assert!(called.stdout.contains("echo: pupil learned what twin writes for"), "{}", called.stdout);
    let again = run();
    assert!(again.stderr.contains("task/echo/twin/texts-"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<Value>(&again.stdout).expect("JSON")["metrics"], result["metrics"]);
}

#[test]
fn canvases_may_say_what_comes_next() {
    let folder = folder_with_task();
    let called = in_folder(folder.path(), &["run", "small.toml", "--json", "--set", "model.shifted_canvas=true"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("JSON");
    let metric = |name: &str| result["metrics"][name].as_f64();
    assert!(metric("text.held_out.bits_per_byte_bound.both") > Some(0.0));
    assert!(metric("echo.test.fresh.parallel.rouge_l") >= Some(0.0));
    assert_eq!(metric("speculative.echo_canvas.equal_texts"), Some(11.0));
    let model = "runs/small/pretrain/both/model";
    let write = |way: &[&str]| {
        let call = ["generate", model, "--prompt", "amber beryl", "--tokens", "5"];
        let called = in_folder(folder.path(), &[&call, way].concat());
        assert_eq!(called.code, Some(0), "{}", called.stderr);
        called.stdout
    };
    assert_eq!(write(&["--decode", "speculative", "--draft", "2"]), write(&[]), "the same text");
    let blocks = write(&["--decode", "parallel", "--steps", "3", "--blocks", "2"]);
    assert_eq!(blocks, write(&["--decode", "parallel", "--steps", "3", "--blocks", "2"]));
    write(&["--decode", "parallel", "--candidates", "2", "--rank-by", "likelihood"]);
    let config = fs::read_to_string(folder.path().join(model).join("config.json")).expect("a config");
    assert!(config.contains("\"shifted_canvas\": true"), "{config}");
}

#[test]
fn bad_tasks_are_told_in_one_line() {
    let folder = folder_with_task();
    let set = |set: &str| in_folder(folder.path(), &["run", "small.toml", "--set", set]);
    for (assignment, expected) in [
        ("task.echo.canvas=30", "task.0.canvas: should be 2 to 21, is 30"),
        ("task.echo.form=verse", "unknown variant `verse`"),
        ("finetune.variant.twin.from=other", "finetune.variant.1.from: should be a pretrained variant, is \"other\""),
        (
            "finetune.variant.canvas.teacher=twin",
            "finetune.variant.0.teacher: should be a variant before this one that writes token after token, is \"twin\"",
        ),
        ("write.accept=[\"most\"]", "write.accept.0: give verified, all, share="),
        (
            "finetune.variant.twin.pieces=0.5",
            "finetune.variant.1.pieces: is for models that repair canvases: leave it out, or set the objective to",
        ),
        (
            "write.accept=[\"verified\"]",
            "write.accept: should have another rule than verified, for fresh does not write",
        ),
        ("write.test_passes=0", "write.test_passes: should be 1 to 10000, is 0"),
    ] {
        let called = set(assignment);
        assert!(called.error(2).contains(expected), "{}", called.stderr);
    }
    for (sizes, expected) in [("task.echo.canvas=20", "a source has"), ("task.echo.canvas=2", "a target has")] {
        let arguments = ["run", "small.toml", "--set", "task.echo.too_long=error", "--set", sizes];
        let called = in_folder(folder.path(), &arguments);
        assert!(called.code == Some(1) && called.stderr.contains(expected), "{sizes}: {}", called.stderr);
    }
    fs::write(folder.path().join("right.txt"), "amber\n").expect("written");
    let called = set("seed=1");
    assert!(called.code == Some(1) && called.stderr.contains("right.txt"), "{}", called.stderr);
}

#[test]
fn a_stopped_training_of_text_goes_on() {
    let folder = folder();
    let run = |out: &str, steps: &str| {
        let set = format!("pretrain.variant.twin.steps={steps}");
        let arguments =
            ["run", "small.toml", "--json", "--out", out, "--set", &set, "--set", "pretrain.variant.both.steps=1"];
        in_folder(folder.path(), &arguments)
    };
    let whole = run("whole", "10");
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    // What a training that was stopped at its fifth step leaves behind: a state, and no mark of being done.
    let twin = folder.path().join("whole/pretrain/twin");
    let mark: Value = serde_json::from_slice(&fs::read(twin.join("stage.json")).expect("read")).expect("JSON");
    fs::write(twin.join("stage.json"), serde_json::json!({ "key": mark["key"] }).to_string()).expect("written");
    let again = run("whole", "10");
    assert!(again.stderr.contains("pretrain/twin: goes on where it was stopped"), "{}", again.stderr);
    let metrics = |called: &Called| serde_json::from_str::<Value>(&called.stdout).expect("JSON")["metrics"].clone();
    let (before, after) = (metrics(&whole), metrics(&again));
    assert_eq!(before["text.held_out.bits_per_byte.twin"], after["text.held_out.bits_per_byte.twin"]);
}

#[test]
fn text_is_learned_by_any_optimizer() {
    let folder = folder();
    let kfac = "pretrain.optimizer={ kind = \"kfac\", damping = 0.1, strict = false }";
    let run = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        in_folder(folder.path(), &["run", "small.toml", "--json"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    let called = run(&[kfac, "pretrain.accumulate=2", "pretrain.noise_scale=true"]);
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("JSON");
    assert!(result["metrics"]["text.held_out.bits_per_byte.twin"].as_f64() > Some(0.0));
    // The output matrix is part of the loss, and has no factors.
    let strict = run(&["pretrain.optimizer={ kind = \"kfac\" }"]);
    assert!(
        strict.code == Some(1) && strict.stderr.contains("K-FAC has no factors of output.weight"),
        "{}",
        strict.stderr
    );
    assert!(
        run(&["pretrain.accumulate=3"]).error(2).contains("pretrain.accumulate: should divide the batch size of 4")
    );
}

#[test]
fn bad_recipes_of_text_are_told_in_one_line() {
    let folder = folder();
    let set = |set: &str| in_folder(folder.path(), &["run", "small.toml", "--set", set]);
    for (assignment, expected) in [
        ("model.heads=3", "model.heads: should divide the width of 16, is 3"),
        ("model.depth=3", "unknown field `depth`"),
        ("tokenizer.vocabulary=20", "tokenizer.vocabulary: should be 260 to 1000000, is 20"),
        ("pretrain.variant.both.objective=guess", "unknown variant `guess`"),
        (
            "pretrain.variant.both.from=twin",
            "pretrain.variant.0.from: should be a variant before this one, is \"twin\"",
        ),
        ("pretrain.variant.twin.name=both", "pretrain.variant: has `both` twice"),
        ("data.files=[]", "data.files: should name a file or a folder at least"),
    ] {
        let called = set(assignment);
        assert!(called.error(2).contains(expected), "{}", called.stderr);
    }
    assert!(set("data.files=[\"no-such\"]").error(2).starts_with("no data `no-such`; looked for"));
    assert!(set("data.hold_out_every=9").stderr.contains("of 8 documents every 9th is none"));
    fs::write(folder.path().join("texts/4.txt"), b"amber \xff beryl").expect("written");
    let called = set("seed=1");
    assert!(
        called.code == Some(1) && called.stderr.contains("4.txt") && called.stderr.contains('6'),
        "{}",
        called.stderr
    );
}
