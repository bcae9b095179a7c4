//! A little world drawn from a seed: coloured shapes on a grid, sentences and questions about them.
//!
//! It is what `lapidary demo` learns, and what tests use instead of a download. Every question can be answered from
//! the picture, and equally well from the [description](Scene::description); none can be answered from its own words,
//! because each answer that a question can have is equally frequent.

mod query;
mod render;
mod scene;

use std::sync::Arc;

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

pub use query::{Direction, Kind, Query, Referent, answers};
pub use scene::{Colour, GRID, Object, Scene, Shape};

use crate::{Example, Part};

/// The side of the pictures in examples, in pixels.
pub const PICTURE_SIZE: u32 = 32;

/// Keeps the world's numbers apart from the other streams of one seed.
const PLACE: u64 = 0x0053_594e_5448;

/// The three parts of the world. A scene belongs to exactly one of them, whatever the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Eight tenths of all scenes.
    Train,
    /// One tenth.
    Validation,
    /// One tenth.
    Test,
}

/// A question about a scene and its right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Such as `what colour is the circle`.
    pub text: String,
    /// An index into [`answers`].
    pub answer: u32,
    /// What has to be seen to answer it.
    pub kind: Kind,
}

/// A scene and one question about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub scene: Scene,
    pub question: Question,
}

impl Sample {
    /// The picture, then the question.
    pub fn picture_example(&self) -> Example {
        let picture = Arc::new(self.scene.render(PICTURE_SIZE));
        let parts = vec![Part::Image(picture), Part::Text(self.question.text.clone())];
        Example { parts, label: Some(self.question.answer) }
    }

    /// The description, then the question, as a pair of texts.
    pub fn text_example(&self) -> Example {
        let parts = vec![Part::Text(self.scene.description()), Part::Text(self.question.text.clone())];
        Example { parts, label: Some(self.question.answer) }
    }
}

/// Sample `index` of a split: a pure function of its arguments.
///
/// Kinds are equally frequent, so are the questions of a kind, and so are the answers to a question: the question and
/// its answer are drawn first, then scenes until one fits. A run of samples therefore has no cheap way to be right.
pub fn sample(seed: u64, index: u64, split: Split) -> Sample {
    let mut stream = Stream::at_place(seed, index, PLACE);
    let query = Query::draw(&mut stream);
    let possible = query.kind().answers();
    let answer = possible[stream.below(possible.len())];
    loop {
        let scene = Scene::draw(&mut stream);
        if query.answer(&scene) == Some(answer) && scene.split() == split {
            return Sample { scene, question: Question { text: query.text(), answer, kind: query.kind() } };
        }
    }
}

/// Samples `0..count` of a split. A larger count begins with the samples of a smaller one.
pub fn samples(seed: u64, count: usize, split: Split) -> impl Iterator<Item = Sample> {
    (0..count as u64).map(move |index| sample(seed, index, split))
}

/// Examples of a picture and a question about it, labelled with the index of the answer.
pub fn examples(seed: u64, count: usize, split: Split) -> Vec<Example> {
    samples(seed, count, split).map(|sample| sample.picture_example()).collect()
}

/// The same questions about the same scenes, each with the scene's description in place of its picture.
pub fn text_examples(seed: u64, count: usize, split: Split) -> Vec<Example> {
    samples(seed, count, split).map(|sample| sample.text_example()).collect()
}

/// Every word that descriptions, questions and answers are made of, each once: the vocabulary of
/// [`Tokenizer::from_words`](crate::Tokenizer::from_words).
pub fn words() -> Vec<&'static str> {
    let mut words = answers().to_vec();
    words.extend(query::WORDS);
    words.extend(scene::WORDS);
    let mut seen = std::collections::HashSet::new();
    words.retain(|&word| seen.insert(word));
    words
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::Tokenizer;

    const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

    #[test]
    fn a_sample_is_a_function_of_seed_index_and_split() {
        let first: Vec<_> = samples(1, 20, Split::Train).collect();
        assert_eq!(first[..10], samples(1, 10, Split::Train).collect::<Vec<_>>());
        assert_ne!(first, samples(2, 20, Split::Train).collect::<Vec<_>>());
        assert_eq!(first[7], sample(1, 7, Split::Train));
    }

    #[test]
    fn splits_share_no_scene_across_seeds() {
        let scenes = |split| -> HashSet<Scene> {
            [1, 2].into_iter().flat_map(|seed| samples(seed, 2000, split).map(|sample| sample.scene)).collect()
        };
        let [train, validation, test] = SPLITS.map(scenes);
        assert!(train.is_disjoint(&validation) && train.is_disjoint(&test) && validation.is_disjoint(&test));
        assert!(train.len() > 3000, "{}", train.len());
    }

    #[test]
    fn answers_are_balanced_within_every_question() {
        let mut counts: HashMap<(String, u32), u32> = HashMap::new();
        let mut kinds: HashMap<Kind, u32> = HashMap::new();
        let mut possible: HashMap<String, usize> = HashMap::new();
        for Sample { question, .. } in samples(3, 40_000, Split::Train) {
            *kinds.entry(question.kind).or_default() += 1;
            possible.insert(question.text.clone(), question.kind.answers().len());
            *counts.entry((question.text, question.answer)).or_default() += 1;
        }
        assert_eq!(kinds.len(), Kind::ALL.len());
        assert!(kinds.values().all(|count| (7_600..8_400).contains(count)), "{kinds:?}");
        for ((text, answer), count) in &counts {
            let asked: u32 = counts.iter().filter(|((other, _), _)| other == text).map(|(_, count)| count).sum();
            let expected = f64::from(asked) / possible[text] as f64;
            let deviations = (f64::from(*count) - expected) / expected.sqrt();
            assert!(deviations.abs() < 5.0, "{text}: answer {answer} {count} times of {asked}");
        }
    }

    #[test]
    fn the_vocabulary_is_closed() {
        let tokenizer = Tokenizer::from_words(&words()).unwrap();
        let unknown = tokenizer.id("[UNK]").unwrap();
        let mut used = HashSet::new();
        for example in SPLITS.iter().flat_map(|&split| text_examples(5, 3000, split)) {
            let (encoded, truncated) = tokenizer.encode(&example, 64).unwrap();
            assert!(!truncated && !encoded.ids.contains(&unknown), "{example:?}");
            used.extend(encoded.ids);
        }
        used.extend(answers().iter().filter_map(|answer| tokenizer.id(answer)));
        let unused: Vec<_> = words().into_iter().filter(|word| !used.contains(&tokenizer.id(word).unwrap())).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn picture_and_text_examples_ask_the_same() {
        let (pictures, texts) = (examples(7, 30, Split::Test), text_examples(7, 30, Split::Test));
        for (picture, text) in pictures.iter().zip(&texts) {
            assert_eq!((picture.label, &picture.parts[1]), (text.label, &text.parts[1]));
            assert!(matches!(&picture.parts[0], Part::Image(image) if image.width == PICTURE_SIZE));
            assert!((picture.label.unwrap() as usize) < answers().len());
        }
    }
}
