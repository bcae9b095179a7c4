//! Text in the form of the Penn Treebank, lower case: [`ptb_words`].

use super::abbreviation::Abbreviation;

/// What the treebank writes for brackets.
const BRACKETS: [(&str, &str); 6] =
    [("-lrb-", "("), ("-rrb-", ")"), ("-lsb-", "["), ("-rsb-", "]"), ("-lcb-", "{"), ("-rcb-", "}")];

/// Contractions at a word's end, each a word of its own.
const CLITICS: [&str; 7] = ["n't", "'s", "'m", "'d", "'re", "'ve", "'ll"];

/// Words that begin with an apostrophe of their own, beside the contractions and years (`'90s`).
const CLIPPED: [&str; 3] = ["'em", "'n", "'til"];

/// Words that the treebank writes as two, and the length of the first.
const DOUBLE: [(&str, usize); 6] =
    [("cannot", 3), ("gimme", 3), ("gonna", 3), ("gotta", 3), ("lemme", 3), ("wanna", 3)];

/// The words and punctuation marks of `text` in lower case, one space between each two: the form in which raw text and
/// text that was tokenised as in the Penn Treebank (by Stanford CoreNLP, for instance) read the same.
///
/// - Words and marks are apart as in the treebank: contractions (`do n't`, `it 's`, `can not`) and currency (`$ 5`,
///   but `us$ 5`) are divided; hyphens, slashes and ampersands within a word, decimals, times and host names are not.
/// - A period stays with an abbreviation (`mr.`, `u.s.`), and the second one that CoreNLP puts after an abbreviation at
///   the end of a sentence goes. It stays with an initial (`j.`) too, unless that is the end of the text.
/// - Brackets are characters, not `-lrb-`. Double quotation marks of all kinds are `"`, single ones and apostrophes
///   `'`, en and em dashes and runs of hyphens `--`, an ellipsis or `. . .` is `...`, and a fraction such as `½` is
///   `1/2`.
/// - Invisible characters (zero-width spaces and joiners, soft hyphens, direction marks) are left out, control
///   characters are white space.
///
/// All else stays, whatever its script. The form is idempotent: applied to its own output it changes nothing. What
/// CoreNLP itself loses does not come back: it writes `£` as `#` and `€` as `$`, and those stay different from the raw
/// text. The rules are for English.
///
/// Of the 10,570 questions of SQuAD's development set, raw and as Du et al. 2017 (1705.00106) tokenised them, 10,559
/// are equal in this form.
pub fn ptb_words(text: &str) -> String {
    let text = unify(text);
    let out = String::with_capacity(text.len() + text.len() / 8);
    let mut words = Words { out, after_abbreviation: false, periods: 0 };
    let mut chunks = text.split_whitespace().peekable();
    while let Some(chunk) = chunks.next() {
        let number_follows = chunks.peek().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()));
        let mut rest = chunk;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(first_piece(rest));
            words.piece(piece, number_follows && more.is_empty());
            rest = more;
        }
    }
    words.finish()
}

/// Lower case, and one character for all that mean the same.
fn unify(text: &str) -> String {
    let mut unified = String::with_capacity(text.len());
    for c in text.to_lowercase().chars() {
        match c {
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => {}
            '‘' | '’' | '‚' | '‛' | '`' | '´' => unified.push('\''),
            '“' | '”' | '„' | '‟' | '«' | '»' => unified.push('"'),
            '‐' | '‑' => unified.push('-'),
            '–' | '—' | '―' => unified.push_str(" -- "),
            '…' => unified.push_str(" ... "),
            c if c.is_control() => unified.push(' '),
            c => match fraction(c) {
                // `5½` is five and a half.
                Some(fraction) => unified.extend([" ", fraction]),
                None => unified.push(c),
            },
        }
    }
    let unified = BRACKETS.iter().fold(unified, |text, (escape, bracket)| text.replace(escape, bracket));
    unified.replace("''", "\"")
}

fn fraction(c: char) -> Option<&'static str> {
    Some(match c {
        '¼' => "1/4",
        '½' => "1/2",
        '¾' => "3/4",
        '⅓' => "1/3",
        '⅔' => "2/3",
        '⅕' => "1/5",
        '⅖' => "2/5",
        '⅗' => "3/5",
        '⅘' => "4/5",
        '⅙' => "1/6",
        '⅚' => "5/6",
        '⅛' => "1/8",
        '⅜' => "3/8",
        '⅝' => "5/8",
        '⅞' => "7/8",
        _ => return None,
    })
}

/// The length of the first piece of `chunk`, which is not empty and has no white space: up to the first place where
/// two neighbouring characters are divided whatever word they stand in.
fn first_piece(chunk: &str) -> usize {
    let mut before = None;
    let mut characters = chunk.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let run = || chunk.len() - at - chunk[at..].trim_start_matches(c).len();
        let width = c.len_utf8();
        let after = characters.peek().map(|&(_, after)| after);
        let in_number = || [before, after].iter().all(|side| side.is_some_and(|side| side.is_ascii_digit()));
        // How many bytes from here on are a piece of their own, and whether it begins here.
        let (length, begins) = match c {
            '(' | ')' | '[' | ']' | '{' | '}' | '"' | ';' | '?' | '!' | '%' | '|' | '<' | '>' | '=' | '~' | '°'
            | '·' | '−' | '×' => (width, true),
            ',' | ':' if !in_number() => (width, true),
            '-' | '.' if after == Some(c) => (run(), true),
            '+' => (run(), true),
            '$' | '£' | '€' | '¥' | '#' => (width, !before.is_some_and(char::is_alphabetic)),
            _ => {
                before = Some(c);
                continue;
            }
        };
        return if begins && at > 0 { at } else { at + length };
    }
    chunk.len()
}

struct Words {
    out: String,
    /// Whether the last word is an abbreviation with its period.
    after_abbreviation: bool,
    /// How many of the last words are a period each.
    periods: usize,
}

impl Words {
    fn push(&mut self, word: &str) {
        let second_period = word == "." && self.after_abbreviation;
        if second_period {
            return;
        }
        self.periods = if word == "." { self.periods + 1 } else { 0 };
        if self.periods == 3 {
            self.out.truncate(self.out.len() - ". .".len());
            self.out.push_str("...");
            self.periods = 0;
            return;
        }
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        let is_dash = word.len() > 1 && word.bytes().all(|byte| byte == b'-');
        self.out.push_str(if is_dash { "--" } else { word });
        self.after_abbreviation = word.ends_with('.') && word.bytes().any(|byte| byte != b'.');
    }

    /// A single letter that ends the text is no initial: `Apollo on a Saturn V.`
    fn finish(mut self) -> String {
        let last = self.out.rsplit(' ').next().unwrap_or_default();
        if let Some(letter) = last.strip_suffix('.')
            && letter.chars().count() == 1
            && self.after_abbreviation
        {
            self.out.truncate(self.out.len() - 1);
            self.out.push_str(" .");
        }
        self.out
    }

    /// Takes marks off both ends of a piece until no rule takes any: then none will when the words are read again.
    fn piece(&mut self, piece: &str, number_follows: bool) {
        let mut middle = piece;
        let mut tail = Vec::new();
        loop {
            if let Some(length) = mark_before(middle) {
                let (mark, rest) = middle.split_at(length);
                self.push(mark);
                middle = rest;
            } else if let Some(length) = mark_after(middle, number_follows && tail.is_empty()) {
                let (rest, mark) = middle.split_at(middle.len() - length);
                tail.push(mark);
                middle = rest;
            } else {
                break;
            }
        }
        match DOUBLE.iter().find(|(word, _)| *word == middle) {
            Some(&(_, length)) => {
                self.push(&middle[..length]);
                self.push(&middle[length..]);
            }
            None => self.push(middle),
        }
        tail.iter().rev().for_each(|mark| self.push(mark));
    }
}

/// The length of a mark at the head of `piece` that is not part of its word.
fn mark_before(piece: &str) -> Option<usize> {
    let mut characters = piece.chars();
    let (first, second) = (characters.next()?, characters.next()?);
    let taken = match first {
        '*' | '/' | '&' => true,
        '\'' => !CLITICS.contains(&piece) && !CLIPPED.contains(&piece) && !is_year(piece),
        // Runs of them are pieces of their own.
        '-' | '.' => second != first && !second.is_ascii_digit(),
        _ => false,
    };
    taken.then_some(1)
}

/// `'90` or `'90s`.
fn is_year(piece: &str) -> bool {
    let bytes = piece.as_bytes();
    matches!(bytes, [b'\'', tens, ones] | [b'\'', tens, ones, b's'] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

/// The length of a mark or contraction at the end of `piece` that is not part of its word.
fn mark_after(piece: &str, number_follows: bool) -> Option<usize> {
    let clitic = CLITICS.iter().find(|clitic| piece.len() > clitic.len() && piece.ends_with(**clitic));
    if let Some(clitic) = clitic {
        return Some(clitic.len());
    }
    let last = piece.chars().next_back().filter(|last| piece.len() > last.len_utf8())?;
    let word = &piece[..piece.len() - last.len_utf8()];
    let taken = match last {
        '*' | '/' | '&' | '\'' => true,
        '-' => !word.ends_with('-'),
        '.' if word.ends_with('.') => false,
        '.' => match Abbreviation::of(word) {
            None => true,
            Some(Abbreviation::BeforeNumber) => !number_follows,
            Some(Abbreviation::Leads | Abbreviation::Anywhere) => false,
        },
        _ => false,
    };
    taken.then_some(last.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn raw_and_tokenised_text_read_the_same() {
        for (raw, tokenised, words) in [
            ("It's red (or so).", "it 's red -lrb- or so -rrb- .", "it 's red ( or so ) ."),
            ("He can't, won't, cannot.", "He ca n't , wo n't , can not .", "he ca n't , wo n't , can not ."),
            ("“Well”, he said", "`` Well '' , he said", "\" well \" , he said"),
            ("the 'inner' boys' den", "the ` inner ' boys ' den", "the ' inner ' boys ' den"),
            ("1999–2003—or more", "1999 -- 2003 -- or more", "1999 -- 2003 -- or more"),
            ("Does Mr. X live in the U.S.?", "does mr. x live in the u.s. ?", "does mr. x live in the u.s. ?"),
            ("He left the U.S.", "he left the u.s. .", "he left the u.s."),
            ("It cost $5 or US$1,000.50.", "it cost $ 5 or us$ 1,000.50 .", "it cost $ 5 or us$ 1,000.50 ."),
            ("At 9:00, 27.7°C: 5% off", "at 9:00 , 27.7 °c : 5 % off", "at 9:00 , 27.7 ° c : 5 % off"),
            ("No. 5 said no.", "no. 5 said no .", "no. 5 said no ."),
            (
                "pre- and post-war AT&T, and/or km/h",
                "pre - and post-war at&t , and/or km/h",
                "pre - and post-war at&t , and/or km/h",
            ),
            ("1,000+ so. . . so", "1,000 + so ... so", "1,000 + so ... so"),
            ("wait… 5½ or ½", "wait ... 5 1/2 or 1/2", "wait ... 5 1/2 or 1/2"),
            ("[a]:33 /x/ .5 -5", "-lsb- a -rsb- :33 / x / .5 -5", "[ a ] : 33 / x / .5 -5"),
            ("J. Smith's Saturn V.", "j. smith 's saturn v .", "j. smith 's saturn v ."),
            ("the '90s, '68 and 'em", "the '90s , '68 and 'em", "the '90s , '68 and 'em"),
            ("d'Olier's", "d'olier 's", "d'olier 's"),
            ("zero\u{200b}width\u{a0}space\u{7}bell", "zerowidth space bell", "zerowidth space bell"),
        ] {
            assert_eq!(ptb_words(raw), words);
            assert_eq!(ptb_words(tokenised), words);
        }
        assert_eq!(ptb_words(" \n"), "");
    }

    /// A hostile text as long as a line may be has to be read in a moment.
    #[test]
    fn time_is_linear() {
        for pattern in ["'", "a'", "(", "-", ".", ".'", "a.", "n't", "$", "1,", "-lrb-", "*&"] {
            let text = pattern.repeat((1 << 20) / pattern.len());
            assert!(!ptb_words(&text).is_empty());
        }
    }

    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            proptest::collection::vec(any::<char>(), 0..30).prop_map(String::from_iter),
            "[abnst10'`\".,:;$#&/*°½…– +-]{0,24}",
            "(a|s|n't|cannot|no|u\\.s|\\.|'|''|`|-lrb-|-|--|–|\\$|5|,|°|\u{200b}| |Σ|İ|‐|l|rb|r|st){0,16}",
        ]
    }

    proptest! {
        #[test]
        fn the_form_is_idempotent(text in hostile()) {
            let words = ptb_words(&text);
            prop_assert_eq!(&ptb_words(&words), &words);
            prop_assert!(!words.contains("  ") && words.trim() == words);
        }
    }
}
