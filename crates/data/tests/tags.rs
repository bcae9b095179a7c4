//! Tagged words: scores of entities against seqeval, `oracles/entities.py`, and the way of sentences to rows and back.

use std::path::Path;

use lapidary_data::metric::entities::{EntityCounts, entities};
use lapidary_data::tag::{Tag, entities as entities_of, iob2};
use lapidary_data::{Batch, TagSet, TaggedSentence, Target, Tokenizer};
use lapidary_kernels::cross_entropy::IGNORED;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::spans::wordpiece;

fn sentences(value: &Value) -> Vec<Vec<&str>> {
    value.as_array().unwrap().iter().map(|tags| tags.as_str().unwrap().split_whitespace().collect()).collect()
}

#[test]
fn scores_are_those_of_seqeval() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/entities.json");
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (index, case) in file["cases"].as_array().unwrap().iter().enumerate() {
        let (expected, predicted) = (sentences(&case["expected"]), sentences(&case["predicted"]));
        let scores = entities(&predicted, &expected, 1).unwrap();
        let same = |counts: &EntityCounts, theirs: &Value| {
            let ours = [counts.precision(), counts.recall(), counts.f1(), 100.0 * counts.expected as f64];
            for (ours, theirs) in ours.into_iter().zip(theirs.as_array().unwrap()) {
                let theirs = 100.0 * theirs.as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-10, "case {index}: {ours} instead of {theirs}");
            }
        };
        same(&scores.all, &case["all"]);
        let types = case["types"].as_object().unwrap();
        assert_eq!(scores.types.keys().collect::<Vec<_>>(), types.keys().collect::<Vec<_>>(), "case {index}");
        scores.types.iter().for_each(|(kind, counts)| same(counts, &types[kind]));
        assert!(scores.f1_interval.low <= scores.all.f1() && scores.all.f1() <= scores.f1_interval.high);

        for (tags, theirs) in expected.iter().zip(case["entities"].as_array().unwrap()) {
            let found = entities_of(tags.iter().map(|tag| Tag::parse(tag).unwrap()));
            let found: Vec<_> =
                found.iter().map(|entity| json!([entity.kind, entity.words.start, entity.words.end - 1])).collect();
            assert_eq!(json!(found), *theirs, "case {index}");
            // In IOB2 they are the same.
            let written = iob2(tags).unwrap();
            let again = entities_of(written.iter().map(|tag| Tag::parse(tag).unwrap()));
            assert_eq!(again.len(), found.len());
            assert_eq!(iob2(&written).unwrap(), written);
        }
    }
}

fn sentence(text: &str) -> TaggedSentence {
    let parts = text.split(' ').map(|part| part.rsplit_once('/').unwrap());
    let (words, tags) = parts.map(|(word, tag)| (word.to_owned(), tag.to_owned())).unzip();
    TaggedSentence { words, tags }
}

fn tags() -> TagSet {
    TagSet::new(["B-S", "I-S", "O", "B-W"].map(String::from).to_vec()).unwrap()
}

fn row_tags(target: &Target) -> &[i64] {
    match target {
        Target::Tags(tags) => tags,
        _ => panic!("a row of tagged words has tags"),
    }
}

#[test]
fn the_first_token_of_a_word_has_its_tag() {
    let tokenizer = wordpiece("uncased");
    let set = [sentence("Riverstone/B-S cutters/I-S of/O \u{200b}/O [SEP]/O north/B-W")];
    let set = tokenizer.encode_tagged(&set, &tags(), 64).unwrap();
    assert_eq!((set.rows.len(), set.divided, set.cut_words, set.tokenless), (1, 0, 0, 1));
    let row = &set.rows[0];
    let names = ["[CLS]", "river", "##stone", "cut", "##t", "##er", "##s", "of", "[UNK]", "s", "##e", "##p", "[UNK]"];
    let ids: Vec<u32> = names.iter().chain(&["north", "[SEP]"]).map(|name| tokenizer.id(name).unwrap()).collect();
    assert_eq!(row.row.ids, ids);
    assert_eq!(row.places, [Some(1), Some(3), Some(7), None, Some(8), Some(13)]);
    let tags: Vec<Option<i64>> = row_tags(&row.row.target).iter().map(|&tag| (tag != IGNORED).then_some(tag)).collect();
    let (s, i, o, w) = (Some(0), Some(1), Some(2), Some(3));
    let none = None;
    assert_eq!(tags, [none, s, none, i, none, none, none, o, o, none, none, none, none, w, none]);
    assert_eq!(row.row.types, [0; 15]);
    assert_eq!(set.join(&[(0..15).collect::<Vec<u32>>()]), [[1, 3, 7, 2, 8, 13]]);
}

#[test]
fn long_sentences_are_divided_between_words() {
    let tokenizer = wordpiece("uncased");
    let sentences = [
        sentence("riverstone/B-S riverstone/I-S wind/O lighting/O"),
        sentence("wind/O"),
        sentence("aaaaaaaaaa/B-W wind/O"),
    ];
    let set = tokenizer.encode_tagged(&sentences, &tags(), 7).unwrap();
    let found: Vec<_> = set.rows.iter().map(|row| (row.sentence, row.words.clone(), row.row.ids.len())).collect();
    assert_eq!(found, [(0, 0..3, 7), (0, 3..4, 4), (1, 0..1, 3), (2, 0..1, 7), (2, 1..2, 3)]);
    assert_eq!((set.divided, set.cut_words, set.tokenless), (2, 1, 0));
    let batch = Batch::collate(&[&set.rows[2].row, &set.rows[1].row], tokenizer.pad_id().unwrap());
    assert_eq!(batch.targets, [IGNORED, 2, IGNORED, IGNORED, IGNORED, 2, IGNORED, IGNORED]);
    let predicted: Vec<Vec<u32>> = set.rows.iter().map(|row| vec![row.sentence as u32; row.row.ids.len()]).collect();
    assert_eq!(set.join(&predicted), [vec![0; 4], vec![1], vec![2; 2]]);
}

#[test]
fn sentences_that_cannot_be_encoded_are_errors() {
    let tokenizer = wordpiece("uncased");
    let message = |sentences: &[TaggedSentence], max_length| {
        tokenizer.encode_tagged(sentences, &tags(), max_length).unwrap_err().to_string()
    };
    let good = sentence("wind/O stone/B-S");
    assert_eq!(message(std::slice::from_ref(&good), 2), "max_length 2 leaves no room for text beside 2 special tokens");
    let short = TaggedSentence { tags: vec!["O".into()], ..good.clone() };
    assert_eq!(message(&[good.clone(), short], 9), "example 1: 1 tags for 2 words");
    assert_eq!(message(&[good, sentence("a/O b/I-W")], 9), "example 1: tag \"I-W\" of word 1 is not listed");
    let none = TaggedSentence { words: vec![], tags: vec![] };
    let set = tokenizer.encode_tagged(&[none, sentence("wind/O")], &tags(), 3).unwrap();
    assert_eq!((set.rows.len(), set.join(&[vec![7, 3, 7]])), (1, vec![vec![], vec![3]]));
}

/// The tags as a model that is always right says them, one a token.
fn right(set: &lapidary_data::TaggedSet) -> Vec<Vec<u32>> {
    let tags =
        |row: &lapidary_data::TaggedRow| row_tags(&row.row.target).iter().map(|&tag| tag.max(0) as u32).collect();
    set.rows.iter().map(tags).collect()
}

proptest! {
    #[test]
    fn no_word_is_lost(
        words in proptest::collection::vec(("[a-zÉ한😀.\u{301}]{1,9}|riverstone|\u{200d}", 0_usize..4), 0..30),
        max_length in 3_usize..20,
    ) {
        let (tokenizer, tags): (Tokenizer, TagSet) = (wordpiece("uncased"), tags());
        let (words, chosen): (Vec<String>, Vec<usize>) = words.into_iter().unzip();
        let names: Vec<String> = chosen.iter().map(|&tag| tags.names()[tag].clone()).collect();
        let set = [TaggedSentence { words, tags: names }];
        let encoded = tokenizer.encode_tagged(&set, &tags, max_length).unwrap();
        prop_assert!(encoded.rows.iter().all(|row| row.row.ids.len() <= max_length));
        let joined = encoded.join(&right(&encoded)).remove(0);
        let places = encoded.rows.iter().flat_map(|row| &row.places);
        prop_assert_eq!(joined.len(), chosen.len());
        for ((found, chosen), place) in joined.into_iter().zip(chosen).zip(places) {
            prop_assert_eq!(found, if place.is_some() { chosen as u32 } else { tags.outside() });
        }
    }
}
