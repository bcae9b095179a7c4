//! Words whose period belongs to them.

/// What a word says about a period right after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abbreviation {
    /// It stands before what it belongs to, as titles do: the period ends no sentence.
    Leads,
    /// It can stand anywhere: the period may end a sentence as well.
    Anywhere,
    /// It is an abbreviation before a number only: `no. 5`, `fig. 2`.
    BeforeNumber,
}

const LEADS: [&str; 37] = [
    "adm", "approx", "brig", "bros", "ca", "capt", "cf", "cmdr", "col", "cpl", "dr", "e.g", "fr", "ft", "gen", "gov",
    "hon", "i.e", "lt", "maj", "messrs", "mr", "mrs", "ms", "mt", "pres", "prof", "rep", "reps", "rev", "sen", "sens",
    "sgt", "st", "supt", "viz", "vs",
];

const ANYWHERE: [&str; 26] = [
    "al", "apr", "aug", "ave", "blvd", "co", "corp", "dec", "dept", "esq", "etc", "feb", "inc", "jan", "jr", "ltd",
    "m.sc", "b.sc", "nov", "oct", "ph.d", "rd", "sep", "sept", "sr", "univ",
];

const BEFORE_NUMBER: [&str; 10] = ["art", "ch", "chap", "eq", "fig", "no", "nos", "pp", "sec", "vol"];

impl Abbreviation {
    /// What the lower-case `word`, its last period left out, is: one of a list, an initial (`j`) or letters with
    /// periods between them (`u.s`).
    pub(super) fn of(word: &str) -> Option<Abbreviation> {
        if LEADS.contains(&word) {
            Some(Abbreviation::Leads)
        } else if ANYWHERE.contains(&word) || is_initials(word) {
            Some(Abbreviation::Anywhere)
        } else if BEFORE_NUMBER.contains(&word) {
            Some(Abbreviation::BeforeNumber)
        } else {
            None
        }
    }
}

/// Single letters with a period between each two; not too many, so that a hostile word costs no time.
fn is_initials(word: &str) -> bool {
    const LONGEST: usize = 32;
    if word.len() > LONGEST {
        return false;
    }
    let mut letters = word.split('.').map(|piece| {
        let mut letters = piece.chars();
        letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none()
    });
    letters.all(|one_letter| one_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initials_are_single_letters() {
        for yes in ["j", "u.s", "j.r.r", "é"] {
            assert_eq!(Abbreviation::of(yes), Some(Abbreviation::Anywhere), "{yes}");
        }
        for no in ["", ".", "1", "us", "u.sa", "u..s", "u.s.", ".u", "3.d"] {
            assert_eq!(Abbreviation::of(no), None, "{no}");
        }
        assert_eq!(Abbreviation::of("e.g"), Some(Abbreviation::Leads));
        assert_eq!(Abbreviation::of("no"), Some(Abbreviation::BeforeNumber));
    }
}
