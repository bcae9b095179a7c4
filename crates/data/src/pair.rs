//! Pairs of texts: what one is written from, and what is to be written. Their sources are [`source::pairs`],
//! [`source::parallel`] and [`source::squad`].
//!
//! [`source::pairs`]: crate::source::pairs
//! [`source::parallel`]: crate::source::parallel
//! [`source::squad`]: crate::source::squad

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What a text is written from, and the texts that would be right.
///
/// As a source gives it, each text has a character that is not white space, and no white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What the model reads.
    pub source: String,
    /// What it is to write: at least one. The first is the one trained on, all are references of an evaluation.
    pub targets: Vec<String>,
}

impl Pair {
    /// A pair of texts as they stand in a file, without the white space around each.
    pub(crate) fn new<'a>(source: &str, targets: impl IntoIterator<Item = &'a str>) -> Result<Pair, String> {
        let source = source.trim().to_owned();
        if source.is_empty() {
            return Err("the source is empty".into());
        }
        let targets: Vec<String> = targets.into_iter().map(|target| target.trim().to_owned()).collect();
        match targets.iter().position(String::is_empty) {
            Some(empty) if targets.len() > 1 => Err(format!("target {} of {} is empty", empty + 1, targets.len())),
            Some(_) => Err("the target is empty".into()),
            None if targets.is_empty() => Err("there is no target".into()),
            None => Ok(Pair { source, targets }),
        }
    }
}

/// Makes one pair of all that have the same source, with the targets of all: the references by which a text that is
/// written once for each source is evaluated. Sources and targets keep the order in which they first appear; equal
/// targets stay as many as they are.
pub fn group(pairs: impl IntoIterator<Item = Pair>) -> Vec<Pair> {
    let mut grouped: Vec<Pair> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for pair in pairs {
        match places.entry(pair.source.clone()) {
            Entry::Occupied(place) => grouped[*place.get()].targets.extend(pair.targets),
            Entry::Vacant(place) => {
                place.insert(grouped.len());
                grouped.push(pair);
            }
        }
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_no_empty_text() {
        let pair = Pair::new(" a b\n", ["\tc ", "d"]).unwrap();
        assert_eq!(pair, Pair { source: "a b".into(), targets: vec!["c".into(), "d".into()] });
        for (source, targets, message) in [
            (" ", &["b"][..], "the source is empty"),
            ("a", &["\u{a0}"], "the target is empty"),
            ("a", &["b", ""], "target 2 of 2 is empty"),
            ("a", &[], "there is no target"),
        ] {
            assert_eq!(Pair::new(source, targets.iter().copied()).unwrap_err(), message);
        }
    }

    #[test]
    fn equal_sources_become_one_pair() {
        let pairs = [("b", "1"), ("a", "2"), ("b", "3"), ("b", "1"), ("B", "4")];
        let grouped = group(pairs.map(|(source, target)| Pair::new(source, [target]).unwrap()));
        let found: Vec<_> = grouped.iter().map(|pair| (pair.source.as_str(), pair.targets.join(" "))).collect();
        assert_eq!(found, [("b", "1 3 1".into()), ("a", "2".into()), ("B", "4".into())]);
        assert!(group([]).is_empty());
    }
}
