//! Entities as tags of words: B-TYPE on the first word of an entity, I-TYPE on its others, O on all words outside
//! (Ramshaw and Marcus 1995, cmp-lg/9505040; Tjong Kim Sang and Veenstra 1999, cs/9907006).

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The tag of a word that is no part of an entity.
pub const OUTSIDE: &str = "O";

/// A sentence, word by word, with a tag for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedSentence {
    /// At least one.
    pub words: Vec<String>,
    /// As many.
    pub tags: Vec<String>,
}

/// How a file writes the first word of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagScheme {
    /// Always with B.
    #[default]
    Iob2,
    /// With B only where an entity of the same type comes just before it, and with I elsewhere: the files of CoNLL-2003.
    Iob1,
}

/// What can be wrong with tags.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TagError {
    /// It says nothing of entities.
    #[error("tag {tag:?} is not O, B-TYPE or I-TYPE")]
    Malformed { tag: String },
    /// A list of tags that has one of them twice.
    #[error("tag {tag:?} is listed twice")]
    Twice { tag: String },
    /// A list of tags without that of words outside of entities.
    #[error("the list of tags has no O")]
    NoOutside,
    /// A word has a tag that is not listed.
    #[error("tag {tag:?} of word {word} is not listed")]
    Unlisted { tag: String, word: usize },
}

/// A tag, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag<'a> {
    Outside,
    Begin(&'a str),
    Inside(&'a str),
}

impl<'a> Tag<'a> {
    /// Takes a tag apart. `B` and `I` without a type have the type `_`, as in seqeval.
    ///
    /// # Errors
    /// For anything but O, B, I, B-TYPE and I-TYPE.
    pub fn parse(tag: &'a str) -> Result<Tag<'a>, TagError> {
        let kind = |rest: &'a str| match rest.strip_prefix('-') {
            Some("") => Some("_"),
            None if rest.is_empty() => Some("_"),
            kind => kind,
        };
        let begin = || tag.strip_prefix('B').and_then(kind).map(Tag::Begin);
        let inside = || tag.strip_prefix('I').and_then(kind).map(Tag::Inside);
        let found = if tag == OUTSIDE { Some(Tag::Outside) } else { begin().or_else(inside) };
        found.ok_or_else(|| TagError::Malformed { tag: tag.to_owned() })
    }
}

/// An entity: its type, and its words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    pub kind: &'a str,
    pub words: Range<usize>,
}

/// The entities of a sentence. An I that continues nothing, or an entity of another type, begins one: what the script
/// `conlleval` of CoNLL-2000 makes of it, and seqeval unless it is told to be strict.
pub fn entities<'a>(tags: impl IntoIterator<Item = Tag<'a>>) -> Vec<Entity<'a>> {
    let mut found: Vec<Entity<'a>> = Vec::new();
    for (word, tag) in tags.into_iter().enumerate() {
        match (tag, found.last_mut()) {
            (Tag::Outside, _) => (),
            (Tag::Inside(kind), Some(last)) if last.kind == kind && last.words.end == word => last.words.end += 1,
            (Tag::Begin(kind) | Tag::Inside(kind), _) => found.push(Entity { kind, words: word..word + 1 }),
        }
    }
    found
}

/// The tags of a sentence in IOB2, from those in IOB1: the same entities, each of which begins with B.
///
/// # Errors
/// At the first tag that [`Tag::parse`] refuses.
pub fn iob2<S: AsRef<str>>(tags: &[S]) -> Result<Vec<String>, TagError> {
    let parsed: Result<Vec<Tag<'_>>, _> = tags.iter().map(|tag| Tag::parse(tag.as_ref())).collect();
    let mut written = vec![OUTSIDE.to_owned(); tags.len()];
    for Entity { kind, words } in entities(parsed?) {
        let first = words.start;
        for word in words {
            written[word] = format!("{}-{kind}", if word == first { 'B' } else { 'I' });
        }
    }
    Ok(written)
}

/// The tags of a task. A tag's index is its place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct TagSet {
    names: Vec<String>,
    outside: u32,
}

impl TagSet {
    /// Tags in this order, O among them.
    ///
    /// # Errors
    /// When O is missing, a tag occurs twice or is none.
    pub fn new(names: Vec<String>) -> Result<TagSet, TagError> {
        for (at, tag) in names.iter().enumerate() {
            Tag::parse(tag)?;
            if names[..at].contains(tag) {
                return Err(TagError::Twice { tag: tag.clone() });
            }
        }
        match names.iter().position(|name| name == OUTSIDE) {
            Some(outside) => Ok(TagSet { names, outside: outside as u32 }),
            None => Err(TagError::NoOutside),
        }
    }

    /// The tags of some sentences: O, then the others in the order of their characters.
    ///
    /// # Errors
    /// At a tag that is none.
    pub fn collect(sentences: &[TaggedSentence]) -> Result<TagSet, TagError> {
        let others: BTreeSet<&String> = sentences.iter().flat_map(|sentence| &sentence.tags).collect();
        let others = others.into_iter().filter(|tag| *tag != OUTSIDE).cloned();
        TagSet::new([OUTSIDE.to_owned()].into_iter().chain(others).collect())
    }

    /// The tags, `[tags]`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The index of O.
    pub fn outside(&self) -> u32 {
        self.outside
    }

    /// The index of a tag, if it is listed.
    pub fn index(&self, tag: &str) -> Option<u32> {
        self.names.iter().position(|name| name == tag).map(|index| index as u32)
    }

    /// The tag of an index, if there is one.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get(index as usize).map(String::as_str)
    }
}

impl TryFrom<Vec<String>> for TagSet {
    type Error = TagError;

    fn try_from(names: Vec<String>) -> Result<TagSet, TagError> {
        TagSet::new(names)
    }
}

impl From<TagSet> for Vec<String> {
    fn from(tags: TagSet) -> Vec<String> {
        tags.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(tags: &str) -> Vec<&str> {
        tags.split_whitespace().collect()
    }

    fn found(tags: &str) -> Vec<(&str, Range<usize>)> {
        let tags = words(tags).into_iter().map(|tag| Tag::parse(tag).unwrap());
        entities(tags).into_iter().map(|entity| (entity.kind, entity.words)).collect()
    }

    #[test]
    fn entities_begin_with_b_or_a_change() {
        assert_eq!(found("B-PER I-PER O B-LOC"), [("PER", 0..2), ("LOC", 3..4)]);
        assert_eq!(found("B-PER B-PER I-LOC I-LOC"), [("PER", 0..1), ("PER", 1..2), ("LOC", 2..4)]);
        assert_eq!(found("I-PER O I-PER I-PER"), [("PER", 0..1), ("PER", 2..4)]);
        assert_eq!(found("B I B-a-b I-a-b I-a"), [("_", 0..2), ("a-b", 2..4), ("a", 4..5)]);
        assert_eq!(found("O O"), []);
        for tag in ["", "X-PER", "o", "BPER", "-", "B_PER", "E-PER", "S-PER", "OO", "Ö"] {
            assert_eq!(Tag::parse(tag), Err(TagError::Malformed { tag: tag.into() }));
        }
    }

    #[test]
    fn iob1_becomes_iob2() {
        for (one, two) in [
            ("I-PER I-PER O I-LOC B-LOC I-LOC", "B-PER I-PER O B-LOC B-LOC I-LOC"),
            ("I-PER I-LOC I-LOC O", "B-PER B-LOC I-LOC O"),
            ("B-PER I-PER", "B-PER I-PER"),
        ] {
            assert_eq!(iob2(&words(one)).unwrap(), words(two));
            assert_eq!(iob2(&words(two)).unwrap(), words(two));
        }
        assert!(iob2(&["O", "S-PER"]).is_err());
    }

    #[test]
    fn a_set_of_tags_is_listed_or_collected() {
        let sentence = |tags: &str| TaggedSentence {
            words: words(tags).iter().map(|_| "w".into()).collect(),
            tags: words(tags).into_iter().map(String::from).collect(),
        };
        let set = TagSet::collect(&[sentence("B-PER I-PER"), sentence("O B-LOC B-PER")]).unwrap();
        assert_eq!(set.names(), ["O", "B-LOC", "B-PER", "I-PER"]);
        assert_eq!((set.outside(), set.index("B-PER"), set.name(3), set.name(4)), (0, Some(2), Some("I-PER"), None));
        assert_eq!(TagSet::collect(&[sentence("B-PER")]).unwrap().names(), ["O", "B-PER"]);

        let list = |tags: &str| TagSet::new(words(tags).into_iter().map(String::from).collect());
        assert_eq!(list("B-PER O").unwrap().outside(), 1);
        assert_eq!(list("B-PER").unwrap_err().to_string(), "the list of tags has no O");
        assert_eq!(list("O B-PER O").unwrap_err().to_string(), "tag \"O\" is listed twice");
        assert_eq!(list("O PER").unwrap_err().to_string(), "tag \"PER\" is not O, B-TYPE or I-TYPE");

        #[derive(Debug, serde::Deserialize)]
        struct Recipe {
            tags: TagSet,
        }
        assert_eq!(toml::from_str::<Recipe>("tags = ['O', 'B-X']").unwrap().tags.names(), ["O", "B-X"]);
        assert!(toml::from_str::<Recipe>("tags = ['B-X']").unwrap_err().message().contains("has no O"));
    }
}
