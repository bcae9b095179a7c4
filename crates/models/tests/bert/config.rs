use lapidary_models::bert::BertConfig;
use lapidary_models::checkpoint::Config;
use lapidary_models::{ModelError, Task};
use serde_json::{Value, json};

use super::{GOLDEN, Golden, object};

/// bert-a's `config.json` with one key changed; null counts as absent.
fn changed(key: &str, value: Value) -> Result<BertConfig, ModelError> {
    let mut values = object(&Golden::open("bert-a").config());
    values.insert(key.to_owned(), value);
    BertConfig::read(&Config::new("config.json", values), None)
}

#[test]
fn what_is_written_is_read() {
    let odd = BertConfig {
        vocabulary: 7,
        width: 6,
        blocks: 1,
        heads: 3,
        feed_forward: 5,
        positions: 9,
        token_types: 4,
        norm_eps: 1.3e-7,
        deviation: 0.1,
        pad_id: 6,
        task: Task::Tags(vec!["é".into(), String::new(), "a\nb".into()]),
    };
    for config in GOLDEN.map(|name| Golden::open(name).config()).into_iter().chain([odd]) {
        let text = config.to_json().to_string();
        let values = serde_json::from_str(&text).expect("an object");
        assert_eq!(BertConfig::read(&Config::new("config.json", values), None).expect("valid"), config);
    }
}

#[test]
fn values_are_those_of_the_file() {
    let [a, b, c, spans, tags] = GOLDEN.map(|name| Golden::open(name).config());
    assert_eq!((a.vocabulary, a.width, a.blocks, a.heads, a.feed_forward, a.positions), (61, 16, 2, 2, 40, 24));
    assert_eq!((b.norm_eps, c.norm_eps), (1e-5, 1e-12));
    assert_eq!((b.pad_id, c.pad_id), (0, 5));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(a.task, Task::Classes(names(&["LABEL_0", "LABEL_1"])));
    assert_eq!(b.task, Task::Classes(names(&["entailment", "neutral", "contradiction"])));
    assert_eq!(spans.task, Task::Spans);
    assert_eq!(tags.task, Task::Tags(names(&["O", "B-PER", "I-PER"])));
}

#[test]
fn a_new_task_replaces_that_of_the_file() {
    let golden = Golden::open("bert-b");
    let config = Config::read(&golden.path.join("config.json")).expect("readable");
    for task in [Task::Classes(vec!["no".to_owned(), "yes".to_owned()]), Task::Spans] {
        assert_eq!(BertConfig::read(&config, Some(&task)).expect("valid").task, task);
    }
    let error = BertConfig::read(&config, Some(&Task::Tags(Vec::new()))).expect_err("no tags").to_string();
    assert!(error.contains("key `id2label`"), "{error}");
}

#[test]
fn what_may_be_left_out() {
    assert_eq!(changed("type_vocab_size", Value::Null).expect("valid").token_types, 2);
    assert_eq!(changed("layer_norm_eps", Value::Null).expect("valid").norm_eps, 1e-12);
    assert_eq!(changed("position_embedding_type", Value::Null).expect("valid"), Golden::open("bert-a").config());
}

#[test]
fn what_cannot_be_built_is_named() {
    for (key, value, named, reason) in [
        ("vocab_size", Value::Null, "vocab_size", "is missing"),
        ("vocab_size", json!(0), "vocab_size", "must not be 0"),
        ("hidden_size", json!("wide"), "hidden_size", "should be a non-negative whole number"),
        ("hidden_size", json!(15), "num_attention_heads", "2 heads do not divide a width of 15"),
        ("hidden_size", json!(0), "hidden_size", "must not be 0"),
        ("num_attention_heads", json!(0), "num_attention_heads", "0 heads do not divide"),
        ("num_hidden_layers", json!(0), "num_hidden_layers", "must not be 0"),
        ("intermediate_size", json!(0), "intermediate_size", "must not be 0"),
        ("type_vocab_size", json!(0), "type_vocab_size", "must not be 0"),
        ("pad_token_id", json!(61), "pad_token_id", "61 is not in a vocabulary of 61"),
        ("pad_token_id", json!(1u64 << 40), "pad_token_id", "is not in a vocabulary of 61"),
        ("pad_token_id", json!(-1), "pad_token_id", "should be a non-negative whole number"),
        ("model_type", json!("roberta"), "model_type", "only \"bert\" is built"),
        ("hidden_act", json!("relu"), "hidden_act", "only \"gelu\" is built"),
        ("position_embedding_type", json!("relative_key"), "position_embedding_type", "only \"absolute\" is built"),
        ("id2label", json!({"1": "yes"}), "id2label", "has no name for class 0"),
        ("id2label", json!({}), "id2label", "must not be empty"),
        ("id2label", json!(["no", "yes"]), "id2label", "is not an object"),
        ("architectures", json!("BertModel"), "architectures", "expected a sequence"),
    ] {
        let error = changed(key, value).expect_err(reason).to_string();
        assert!(error.starts_with(&format!("config.json: key `{named}`: ")), "{error}");
        assert!(error.contains(reason), "{error}\nshould have\n{reason}");
    }
}
