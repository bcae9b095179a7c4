//! The Snowball English stemmer, also called Porter2 (Porter 2001, snowballstem.org), as it was when METEOR 1.5 was
//! released. Snowball has changed its English since: a stemmer of today would give other scores.

/// Whole words with a stem of their own.
const IRREGULAR: [(&str, &str); 18] = [
    ("skis", "ski"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("idly", "idl"),
    ("gently", "gentl"),
    ("ugly", "ugli"),
    ("early", "earli"),
    ("only", "onli"),
    ("singly", "singl"),
    ("sky", "sky"),
    ("news", "news"),
    ("howe", "howe"),
    ("atlas", "atlas"),
    ("cosmos", "cosmos"),
    ("bias", "bias"),
    ("andes", "andes"),
];

/// Words that are done after step 1a.
const DONE: [&str; 8] = ["inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"];

/// Beginnings after which R1 starts, whatever the vowels say.
const PREFIXES: [&str; 3] = ["gener", "commun", "arsen"];

const STEP2: [(&str, &str); 24] = [
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("abli", "able"),
    ("entli", "ent"),
    ("izer", "ize"),
    ("ization", "ize"),
    ("ational", "ate"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("aliti", "al"),
    ("alli", "al"),
    ("fulness", "ful"),
    ("ousli", "ous"),
    ("ousness", "ous"),
    ("iveness", "ive"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("bli", "ble"),
    ("ogi", "og"),
    ("fulli", "ful"),
    ("lessli", "less"),
    ("li", ""),
];

const STEP3: [(&str, &str); 9] = [
    ("tional", "tion"),
    ("ational", "ate"),
    ("alize", "al"),
    ("icate", "ic"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
    ("ative", ""),
];

const STEP4: [&str; 18] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism", "ate", "iti", "ous", "ive",
    "ize", "ion",
];

/// The stem of a word in lower case.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    let letters: Vec<char> = word.chars().collect();
    if letters.len() < 3 {
        return word.to_owned();
    }
    let mut word = Word::new(letters);
    word.step1a();
    if !DONE.iter().any(|done| word.letters.iter().copied().eq(done.chars())) {
        word.step1b();
        word.step1c();
        word.step2();
        word.step3();
        word.step4();
        word.step5();
    }
    word.letters.iter().map(|&letter| if letter == 'Y' { 'y' } else { letter }).collect()
}

/// A word whose consonants `y` are written `Y`, and where its regions R1 and R2 begin. The beginnings stay where they
/// are while the end is cut off.
struct Word {
    letters: Vec<char>,
    r1: usize,
    r2: usize,
}

impl Word {
    fn new(mut letters: Vec<char>) -> Word {
        if letters.first() == Some(&'\'') {
            letters.remove(0);
        }
        for i in 0..letters.len() {
            if letters[i] == 'y' && (i == 0 || vowel(letters[i - 1])) {
                letters[i] = 'Y';
            }
        }
        let prefix = PREFIXES.iter().find(|prefix| prefix.chars().eq(letters.iter().copied().take(prefix.len())));
        let r1 = prefix.map_or_else(|| region(&letters, 0), |prefix| prefix.len());
        let r2 = region(&letters, r1);
        Word { letters, r1, r2 }
    }

    fn ends_with(&self, suffix: &str) -> bool {
        let length = suffix.len();
        self.letters.len() >= length && suffix.chars().eq(self.letters[self.letters.len() - length..].iter().copied())
    }

    /// The longest of the suffixes that the word has, and what is before it. The suffixes are ASCII.
    fn longest<'a>(&self, suffixes: impl Iterator<Item = &'a str>) -> Option<(&'a str, &[char])> {
        let suffix = suffixes.filter(|suffix| self.ends_with(suffix)).max_by_key(|suffix| suffix.len())?;
        Some((suffix, &self.letters[..self.letters.len() - suffix.len()]))
    }

    /// Cuts the word to its first `length` letters and appends.
    fn replace(&mut self, length: usize, ending: &str) {
        self.letters.truncate(length);
        self.letters.extend(ending.chars());
    }

    fn step1a(&mut self) {
        if let Some((_, rest)) = self.longest(["'", "'s", "'s'"].into_iter()) {
            self.letters.truncate(rest.len());
        }
        let Some((suffix, rest)) = self.longest(["sses", "ied", "ies", "us", "ss", "s"].into_iter()) else { return };
        let length = rest.len();
        match suffix {
            "sses" => self.replace(length, "ss"),
            "ied" | "ies" => self.replace(length, if length > 1 { "i" } else { "ie" }),
            // A vowel, but not right before the `s`: "gas" keeps it.
            "s" if rest.split_last().is_some_and(|(_, before)| has_vowel(before)) => self.letters.truncate(length),
            _ => {}
        }
    }

    fn step1b(&mut self) {
        let suffixes = ["eed", "eedly", "ed", "edly", "ing", "ingly"];
        let Some((suffix, rest)) = self.longest(suffixes.into_iter()) else { return };
        let length = rest.len();
        if suffix.starts_with("eed") {
            if length >= self.r1 {
                self.replace(length, "ee");
            }
            return;
        }
        if !has_vowel(rest) {
            return;
        }
        self.letters.truncate(length);
        if ["at", "bl", "iz"].iter().any(|suffix| self.ends_with(suffix)) {
            self.letters.push('e');
        } else if ["bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"].iter().any(|double| self.ends_with(double)) {
            self.letters.pop();
        } else if length == self.r1 && ends_in_short_syllable(&self.letters) {
            self.letters.push('e');
        }
    }

    fn step1c(&mut self) {
        if let [_, .., before, last @ ('y' | 'Y')] = self.letters.as_mut_slice()
            && !vowel(*before)
        {
            *last = 'i';
        }
    }

    fn step2(&mut self) {
        let Some((suffix, rest)) = self.longest(STEP2.iter().map(|(suffix, _)| *suffix)) else { return };
        let before = rest.last().copied();
        let allowed = match suffix {
            "ogi" => before == Some('l'),
            "li" => before.is_some_and(|letter| "cdeghkmnrt".contains(letter)),
            _ => true,
        };
        if rest.len() >= self.r1 && allowed {
            self.replace(rest.len(), ending(&STEP2, suffix));
        }
    }

    fn step3(&mut self) {
        let Some((suffix, rest)) = self.longest(STEP3.iter().map(|(suffix, _)| *suffix)) else { return };
        let region = if suffix == "ative" { self.r1.max(self.r2) } else { self.r1 };
        if rest.len() >= region {
            self.replace(rest.len(), ending(&STEP3, suffix));
        }
    }

    fn step4(&mut self) {
        let Some((suffix, rest)) = self.longest(STEP4.into_iter()) else { return };
        if rest.len() >= self.r2 && (suffix != "ion" || rest.ends_with(&['s']) || rest.ends_with(&['t'])) {
            self.letters.truncate(rest.len());
        }
    }

    fn step5(&mut self) {
        let Some((last, rest)) = self.letters.split_last() else { return };
        let (in_r1, in_r2) = (rest.len() >= self.r1, rest.len() >= self.r2);
        let dropped = match last {
            'e' => in_r2 || in_r1 && !ends_in_short_syllable(rest),
            'l' => in_r2 && rest.ends_with(&['l']),
            _ => false,
        };
        if dropped {
            self.letters.pop();
        }
    }
}

fn ending(rules: &'static [(&str, &str)], suffix: &str) -> &'static str {
    rules.iter().find(|(other, _)| *other == suffix).map_or("", |(_, ending)| ending)
}

fn vowel(letter: char) -> bool {
    matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

fn has_vowel(letters: &[char]) -> bool {
    letters.iter().any(|&letter| vowel(letter))
}

/// Where the part after the first consonant that follows a vowel begins, or the end.
fn region(letters: &[char], start: usize) -> usize {
    let rest = letters.get(start..).unwrap_or_default();
    let found = rest.windows(2).position(|pair| vowel(pair[0]) && !vowel(pair[1]));
    found.map_or(letters.len(), |index| start + index + 2)
}

/// A vowel between consonants of which the last is not `w`, `x` or `Y`, or a vowel and a consonant that are all.
fn ends_in_short_syllable(letters: &[char]) -> bool {
    match letters {
        [first, last] => vowel(*first) && !vowel(*last),
        [.., before, middle, last] => {
            !vowel(*before) && vowel(*middle) && !vowel(*last) && !matches!(last, 'w' | 'x' | 'Y')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_definition() {
        // From the text of the algorithm, step by step.
        for (word, expected) in [
            ("ties", "tie"),
            ("cries", "cri"),
            ("gas", "gas"),
            ("this", "this"),
            ("gaps", "gap"),
            ("kiwis", "kiwi"),
            ("luxuriating", "luxuri"),
            ("hopping", "hop"),
            ("hoping", "hope"),
            ("by", "by"),
            ("say", "say"),
            ("cry", "cri"),
            ("generously", "generous"),
            ("communication", "communic"),
            ("arsenal", "arsenal"),
            ("'quoted'", "quot"),
        ] {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}
