//! Porter's stemmer (Porter 1980, "An algorithm for suffix stripping") with NLTK's extensions, which rouge-score uses.
//!
//! The extensions: irregular words, `-ied`, short words in `-ies`, `y` to `i` only after a consonant, `-alli` before
//! the other rules of step 2, `-fulli` and `-logi`, and *vc* counted as *cvc* where a final `e` is restored or dropped.

/// A suffix, what replaces it, and what the rest must be for that.
type Rule = (&'static str, &'static str, fn(&str) -> bool);

const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// The stem of a word of ASCII letters and digits in lower case.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let word = step1c(step1b(step1a(word.to_owned())));
    step5b(step5a(apply(apply(step2(word), &STEP3), &STEP4)))
}

/// The first rule whose suffix the word has decides, whether its condition holds or not.
fn apply(word: String, rules: &[Rule]) -> String {
    for (suffix, replacement, condition) in rules {
        if let Some(stem) = word.strip_suffix(suffix) {
            return if condition(stem) { format!("{stem}{replacement}") } else { word };
        }
    }
    word
}

fn step1a(word: String) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    apply(word, &[("sses", "ss", always), ("ies", "i", always), ("ss", "ss", always), ("s", "", always)])
}

fn step1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        return format!("{stem}{}", if word.len() == 4 { "ie" } else { "i" });
    }
    if word.ends_with("eed") {
        return apply(word, &[("eed", "ee", positive)]);
    }
    let Some(stem) = ["ed", "ing"].iter().filter_map(|suffix| word.strip_suffix(suffix)).find(|stem| has_vowel(stem))
    else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|suffix| stem.ends_with(suffix)) {
        return format!("{stem}e");
    }
    if ends_in_double_consonant(stem) {
        let single = !stem.ends_with(['l', 's', 'z']);
        return stem[..stem.len() - usize::from(single)].to_owned();
    }
    if measure(stem) == 1 && ends_cvc(stem) { format!("{stem}e") } else { stem.to_owned() }
}

fn step1c(word: String) -> String {
    apply(word, &[("y", "i", |stem| stem.len() > 1 && consonants(stem).last() == Some(&true))])
}

fn step2(word: String) -> String {
    match word.strip_suffix("alli") {
        Some(stem) if positive(stem) => apply(format!("{stem}al"), &STEP2),
        _ => apply(word, &STEP2),
    }
}

const STEP2: [Rule; 22] = [
    ("ational", "ate", positive),
    ("tional", "tion", positive),
    ("enci", "ence", positive),
    ("anci", "ance", positive),
    ("izer", "ize", positive),
    ("bli", "ble", positive),
    ("alli", "al", positive),
    ("entli", "ent", positive),
    ("eli", "e", positive),
    ("ousli", "ous", positive),
    ("ization", "ize", positive),
    ("ation", "ate", positive),
    ("ator", "ate", positive),
    ("alism", "al", positive),
    ("iveness", "ive", positive),
    ("fulness", "ful", positive),
    ("ousness", "ous", positive),
    ("aliti", "al", positive),
    ("iviti", "ive", positive),
    ("biliti", "ble", positive),
    ("fulli", "ful", positive),
    // The `l` is counted with the stem, so that "geo" and "theo" are long enough.
    ("ogi", "og", |stem| stem.ends_with('l') && positive(stem)),
];

const STEP3: [Rule; 7] = [
    ("icate", "ic", positive),
    ("ative", "", positive),
    ("alize", "al", positive),
    ("iciti", "ic", positive),
    ("ical", "ic", positive),
    ("ful", "", positive),
    ("ness", "", positive),
];

const STEP4: [Rule; 19] = [
    ("al", "", long),
    ("ance", "", long),
    ("ence", "", long),
    ("er", "", long),
    ("ic", "", long),
    ("able", "", long),
    ("ible", "", long),
    ("ant", "", long),
    ("ement", "", long),
    ("ment", "", long),
    ("ent", "", long),
    ("ion", "", |stem| long(stem) && stem.ends_with(['s', 't'])),
    ("ou", "", long),
    ("ism", "", long),
    ("ate", "", long),
    ("iti", "", long),
    ("ous", "", long),
    ("ive", "", long),
    ("ize", "", long),
];

fn step5a(word: String) -> String {
    apply(word, &[("e", "", |stem| long(stem) || measure(stem) == 1 && !ends_cvc(stem))])
}

fn step5b(word: String) -> String {
    if word.ends_with("ll") && long(&word[..word.len() - 1]) { word[..word.len() - 1].to_owned() } else { word }
}

fn always(_: &str) -> bool {
    true
}

fn positive(stem: &str) -> bool {
    measure(stem) > 0
}

fn long(stem: &str) -> bool {
    measure(stem) > 1
}

/// For each letter whether it is a consonant: not one of `aeiou`, and not `y` after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        flags.push(match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !flags.last().copied().unwrap_or(false),
            _ => true,
        });
    }
    flags
}

/// The paper's *m*: how often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let letters = word.as_bytes();
    letters.len() >= 2
        && letters[letters.len() - 2] == letters[letters.len() - 1]
        && consonants(word).ends_with(&[true])
}

/// The paper's \*o: consonant, vowel, consonant other than `w`, `x`, `y`; for NLTK also a word of a vowel and a
/// consonant.
fn ends_cvc(word: &str) -> bool {
    let flags = consonants(word);
    flags.ends_with(&[true, false, true]) && !word.ends_with(['w', 'x', 'y']) || flags == [false, true]
}
