//! The alignment of METEOR: which word of the hypothesis each word of the reference is matched with.
//!
//! The paper asks for most matches, then fewest chunks, then the smallest distance between matched positions (Denkowski
//! and Lavie 2014). The released program, whose scores everyone publishes, does almost that:
//!
//! - a beam of 40 partial alignments goes through the reference from left to right;
//! - words that have one possible match only are matched from the start;
//! - matches of stems, half a match on paper, are added to an integer and so count as none: an ambiguous one is taken
//!   only where it makes no chunk more;
//! - what a match adds to the distance is added to the alignment it came from, so to the alternatives after it rather
//!   than to the alignment that has it.
//!
//! All of this is kept, since the numbers depend on it. Two things are not: the program compares words by 32-bit hashes,
//! and Java puts a capital sigma after punctuation inside a word in another lower case than Unicode does.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::rc::Rc;

use super::super::stem;

/// Partial alignments that are kept.
const BEAM: usize = 40;

/// For each word of the reference the word of the hypothesis that it is matched with.
pub fn align(hypothesis: &[String], reference: &[String]) -> Vec<Option<usize>> {
    let places = possible(hypothesis, reference);
    let mut links = Vec::new();
    let mut paths = vec![Path::new(hypothesis.len())];
    for (j, places) in places.iter().enumerate() {
        let mut steps = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            path.steps(index, j, places, &mut steps);
        }
        // Stable, as the order among equals decides which are dropped.
        steps.sort_by_key(|step| step.rank);
        steps.truncate(BEAM);
        paths = steps.iter().map(|step| paths[step.path].take(step, j, &mut links)).collect();
    }
    let best = paths.iter().min_by_key(|path| {
        let Rank(exact, chunks, distance) = path.rank;
        Rank(exact, chunks + u64::from(path.last.is_some()), distance)
    });
    let mut alignment = vec![None; reference.len()];
    let mut link = best.and_then(|path| path.link);
    while let Some(Link { previous, i, j }) = link.map(|link| &links[link]) {
        alignment[*j] = Some(*i);
        link = *previous;
    }
    alignment
}

/// Where a word of the reference may be matched.
struct Places {
    exact: Vec<usize>,
    stem: Vec<usize>,
    /// There is one place, and no other word can have it.
    definite: bool,
}

/// Words match that are equal or have equal stems. Between identical texts stems are not looked at.
fn possible<'a>(hypothesis: &[String], reference: &'a [String]) -> Vec<Rc<Places>> {
    let identical = hypothesis == reference;
    let key = |word: &String| if identical { word.clone() } else { stem::porter2(word) };
    let mut groups: HashMap<String, (Vec<usize>, usize)> = HashMap::new();
    for (i, word) in hypothesis.iter().enumerate() {
        groups.entry(key(word)).or_default().0.push(i);
    }
    let keys: Vec<String> = reference.iter().map(key).collect();
    for key in &keys {
        groups.entry(key.clone()).or_default().1 += 1;
    }
    // Equal words share their places, of which a repetitive text has as many as words.
    let mut known: HashMap<&String, Rc<Places>> = HashMap::new();
    let places = |(key, word): (&String, &'a String)| {
        let find = || {
            let (places, rivals) = &groups[key];
            let (exact, stem) = places.iter().partition(|&&i| &hypothesis[i] == word);
            Rc::new(Places { exact, stem, definite: places.len() == 1 && *rivals == 1 })
        };
        Rc::clone(known.entry(word).or_insert_with(find))
    };
    keys.iter().zip(reference).map(places).collect()
}

/// What makes an alignment better, best first: exact matches, chunks, distance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(Reverse<u64>, u64, u64);

/// A match at the end of a list that is read backwards.
struct Link {
    previous: Option<usize>,
    i: usize,
    j: usize,
}

/// A partial alignment.
#[derive(Clone)]
struct Path {
    /// Chunks are counted when they end.
    rank: Rank,
    /// The place of the match before, if the word before is matched.
    last: Option<usize>,
    /// Words of the hypothesis that are taken.
    used: Vec<bool>,
    link: Option<usize>,
}

/// One way for a path to go on.
struct Step {
    rank: Rank,
    path: usize,
    place: Option<usize>,
}

impl Path {
    fn new(words: usize) -> Path {
        Path { rank: Rank(Reverse(0), 0, 0), last: None, used: vec![false; words], link: None }
    }

    /// The ways to go on at word `j` of the reference, without some that at least `BEAM` others are better than.
    fn steps(&self, path: usize, j: usize, places: &Places, steps: &mut Vec<Step>) {
        let Rank(Reverse(matches), chunks, mut distance) = self.rank;
        for (open, matches) in [(&places.exact, matches + 1), (&places.stem, matches)] {
            for (index, &i) in open.iter().filter(|&&i| !self.used[i]).enumerate() {
                let follows = self.last.is_some_and(|last| last + 1 == i);
                let chunks = chunks + u64::from(self.last.is_some() && !follows);
                let added = i.abs_diff(j) as u64;
                // The distance grows, so only a place that goes on with the chunk can still be among the best.
                if index < BEAM || follows {
                    let own = if places.definite { added } else { 0 };
                    let rank = Rank(Reverse(matches), chunks, distance + own);
                    steps.push(Step { rank, path, place: Some(i) });
                }
                distance += added;
            }
        }
        if !places.definite {
            let rank = Rank(Reverse(matches), chunks + u64::from(self.last.is_some()), distance);
            steps.push(Step { rank, path, place: None });
        }
    }

    fn take(&self, step: &Step, j: usize, links: &mut Vec<Link>) -> Path {
        let mut path = Path { rank: step.rank, last: step.place, ..self.clone() };
        if let Some(i) = step.place {
            path.used[i] = true;
            links.push(Link { previous: self.link, i, j });
            path.link = Some(links.len() - 1);
        }
        path
    }
}
