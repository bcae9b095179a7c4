//! Where sentences begin and end: [`sentences`].

use std::ops::Range;

use super::abbreviation::Abbreviation;

/// The longest note in brackets (`[12]`, `[citation needed]`) that is looked for behind a period, in bytes.
const LONGEST_NOTE: usize = 40;

/// The longest word before a period that may be an abbreviation, in bytes.
const LONGEST_ABBREVIATION: usize = 32;

/// Words that seldom follow an abbreviation unless a sentence begins with them.
const STARTERS: [&str; 54] = [
    "A", "After", "Also", "Although", "An", "And", "Another", "As", "At", "Because", "Before", "Both", "But", "By",
    "Despite", "During", "Each", "For", "From", "He", "Her", "His", "However", "If", "In", "It", "Its", "Many", "Most",
    "On", "One", "Other", "Several", "She", "Since", "Some", "That", "The", "Their", "There", "These", "They", "This",
    "Those", "Though", "Three", "To", "Two", "Under", "We", "When", "While", "With", "You",
];

/// The sentences of an English text, as byte ranges in order. White space around them belongs to none; all other
/// characters belong to one.
///
/// A sentence ends at a period, question mark or exclamation mark, or a run of them with the last two, together with
/// the quotation marks, brackets and notes such as `[12]` right after it, if white space follows and then something
/// else than a lower-case letter; and at a blank line. These periods end none:
/// - of a title or another abbreviation that stands before what it belongs to (`Dr.`, `e.g.`);
/// - of another abbreviation (`Inc.`, `U.S.`) or an initial (`J.`), unless a word follows that begins sentences, such
///   as `The`; and of `No.`, `Fig.` and the like before a digit;
/// - of an ellipsis (`...`).
///
/// The rules know nothing of what a text says: `Inc. Magazine` and `by Apple Inc. Sales fell` look alike, and neither
/// is divided.
///
/// Of the sentences that Du et al. 2017 (1705.00106) took from SQuAD's development set with Stanford CoreNLP, 94% are
/// these. Most of the others differ in where the answer was looked for, or in a note in brackets, which CoreNLP counts
/// to the sentence that follows.
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(length) = text[at..].find(['.', '?', '!', '\n']) {
        at += length;
        let (end, ends) = match text[at..].starts_with('\n') {
            true => after_line(text, at),
            false => after_marks(text, start, at),
        };
        if ends {
            push(&mut found, text, start..end);
            start = end;
        }
        at = end;
    }
    push(&mut found, text, start..text.len());
    found
}

fn push(found: &mut Vec<Range<usize>>, text: &str, range: Range<usize>) {
    let sentence = text[range.clone()].trim_start();
    let start = range.end - sentence.len();
    if !sentence.is_empty() {
        found.push(start..start + sentence.trim_end().len());
    }
}

/// Where the white space from a line's end on stops, and whether it has a blank line.
fn after_line(text: &str, at: usize) -> (usize, bool) {
    let space = &text[at..text.len() - text[at..].trim_start().len()];
    (at + space.len(), space.matches('\n').count() > 1)
}

/// Where the marks at `at`, with all that closes behind them, stop, and whether they end the sentence that begins at
/// `start`.
fn after_marks(text: &str, start: usize, at: usize) -> (usize, bool) {
    let rest = text[at..].trim_start_matches(['.', '?', '!']);
    let marks = &text[at..text.len() - rest.len()];
    let after = rest.trim_start_matches(['"', '\'', '”', '’', ')', ']', '}', '»']);
    let after = without_notes(after);
    let end = text.len() - after.len();
    let next = after.trim_start();
    if next.is_empty() {
        return (end, true);
    }
    let word = next.trim_start_matches(['"', '\'', '“', '‘', '(', '[', '{', '«']);
    let ends = next.len() < after.len()
        && !word.starts_with(char::is_lowercase)
        && (marks.contains(['?', '!']) || marks == "." && !is_abbreviation(&text[start..at], word));
    (end, ends)
}

/// `text` without the notes in brackets at its head.
fn without_notes(mut text: &str) -> &str {
    while let Some(note) = text.strip_prefix('[') {
        let Some(length) = note.bytes().take(LONGEST_NOTE).position(|byte| byte == b']') else {
            break;
        };
        text = &note[length + 1..];
    }
    text
}

/// Whether a period between these two belongs to the word before it and ends no sentence.
fn is_abbreviation(before: &str, after: &str) -> bool {
    let tail = before
        .char_indices()
        .rev()
        .find(|(at, c)| before.len() - at > LONGEST_ABBREVIATION || !(c.is_alphanumeric() || *c == '.'));
    let word = tail.map_or(before, |(at, c)| &before[at + c.len_utf8()..]);
    match Abbreviation::of(&word.to_lowercase()) {
        None => false,
        Some(Abbreviation::Leads) => true,
        Some(Abbreviation::BeforeNumber) => after.starts_with(|c: char| c.is_ascii_digit()),
        Some(Abbreviation::Anywhere) => {
            let next = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            !STARTERS.contains(&next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn marks_before_a_capital_end_a_sentence() {
        assert_eq!(split(" One came. Two left! Who? 3 stayed.\n"), ["One came.", "Two left!", "Who?", "3 stayed."]);
        assert_eq!(
            split("He said \"go.\" \"No!\" (They did.) Then"),
            ["He said \"go.\"", "\"No!\"", "(They did.)", "Then"]
        );
        assert_eq!(
            split("So it was.[12][citation needed] Then no more."),
            ["So it was.[12][citation needed]", "Then no more."]
        );
        assert_eq!(split("A head\n\nand a\nbody"), ["A head", "and a\nbody"]);
        assert_eq!(split("Yahoo! is 3.5 times as big. 漢字"), ["Yahoo! is 3.5 times as big.", "漢字"]);
        assert_eq!(split(" \n\n "), [""; 0]);
    }

    #[test]
    fn abbreviations_do_not() {
        for whole in [
            "Dr. J. R. Smith and Mrs. Ray, e.g. Ann, met.",
            "Apple Inc. Sales, No. 5, U.S. Army, Ph.D. Jones",
            "Wait... There",
            "about a.m. 5 or so, et al. (1999)",
            "no.Space",
        ] {
            assert_eq!(split(whole), [whole]);
        }
        assert_eq!(split("He left the U.S. The end."), ["He left the U.S.", "The end."]);
        assert_eq!(split("He said no. Then"), ["He said no.", "Then"]);
    }

    #[test]
    fn time_is_linear() {
        for pattern in [".", ". ", "a.", "a. ", "A. B", "\n", "\n ", ".[", ".[]", ".\"", "? "] {
            let text = pattern.repeat((1 << 20) / pattern.len());
            assert!(!sentences(&text).is_empty() || text.trim().is_empty());
        }
    }

    proptest! {
        #[test]
        fn all_but_white_space_is_in_one_sentence(text in "(a|A|The|U\\.S|\\.|\\?|\n| |\"|\\[1\\]|\\[|é|.){0,40}") {
            let mut at = 0;
            for sentence in sentences(&text) {
                prop_assert!(text[at..sentence.start].trim().is_empty());
                prop_assert_eq!(text[sentence.clone()].trim(), &text[sentence.clone()]);
                prop_assert!(!sentence.is_empty());
                at = sentence.end;
            }
            prop_assert!(text[at..].trim().is_empty());
        }
    }
}
