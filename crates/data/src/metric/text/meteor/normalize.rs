//! METEOR's `-norm` for English: the Moses tokenizer with normalised quotes and dashes, hyphenated words split, and the
//! points of abbreviations such as `U.S.` dropped. Each step is one of the program's regular expressions, in its order.

use super::super::substitute::substitute;

/// Words after which a point does not end a sentence, from Moses' list for English.
const ABBREVIATIONS: &str = "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Adj Adm Adv Asst Bart Bldg Brig Bros \
    Capt Cmdr Col Comdr Con Corp Cpl DR Dr Drs Ens Gen Gov Hon Hr Hosp Insp Lt MM MR MRS MS Maj Messrs Mlle Mme Mr \
    Mrs Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt Sr St Supt Surg v vs i.e rev e.g Nos Nr";

/// Words of which the same is true before a number.
const BEFORE_NUMBERS: [&str; 3] = ["No", "Art", "pp"];

/// The text with its tokens between spaces, in its own case.
pub fn normalize(text: &str) -> String {
    let words = separate(&format!(" {text} ").chars().collect::<Vec<_>>());
    let words: Vec<&str> = words.split([' ', '\t', '\n', '\r', '\x0c']).filter(|word| !word.is_empty()).collect();
    let mut out = String::new();
    for (index, word) in words.iter().enumerate() {
        out.push_str(&end_points(word, words.get(index + 1).copied().unwrap_or_default()));
        out.push(' ');
    }
    // Java's trim.
    out.replace(is_wide_space, " ").trim_matches(|c| c <= ' ').to_owned()
}

/// All but the points at the ends of words.
fn separate(text: &[char]) -> String {
    let digit = |c: char| c.is_ascii_digit();
    let alnum = |c: char| digit(c) || alpha(c);
    let kept = |c: char| alnum(c) || is_java_space(c) || matches!(c, '.' | '\'' | '`' | ',' | '-' | '‘' | '’');
    let text = substitute(text, |[c]| !kept(c), " 1 ");
    let text = separate_ellipses(&text);

    let text = substitute(&text, |[a, b, c]| b == ',' && !digit(a) && !digit(c), "1 , 3");
    let text = substitute(&text, |[a, b, c]| b == ',' && digit(a) && !digit(c), "1 , 3");
    let text = substitute(&text, |[a, b, c]| b == ',' && !digit(a) && digit(c), "1 , 3");

    let text = substitute(&text, |[c]| matches!(c, '`' | '‘' | '’'), "'");
    let text: String = text.into_iter().collect();
    let text = text.replace(['“', '”'], " \" ").replace("''", " \" ").replace('–', "-").replace("--", "-");
    let text: Vec<char> = text.chars().collect();
    let text = substitute(&text, |[a, b, c]| b == '-' && (alnum(a) || a == '.') && alnum(c), "1 3");

    let text = substitute(&text, |[a, b, c]| b == '\'' && !alpha(a) && !alpha(c), "1 ' 3");
    let text = substitute(&text, |[a, b, c]| b == '\'' && !alnum(a) && alpha(c), "1 ' 3");
    let text = substitute(&text, |[a, b, c]| b == '\'' && alpha(a) && !alpha(c), "1 ' 3");
    let text = substitute(&text, |[a, b, c]| b == '\'' && alpha(a) && alpha(c), "1 '3");
    let text = substitute(&text, |[a, b, c]| b == '\'' && digit(a) && c == 's', "1 '3");
    text.into_iter().collect()
}

/// Puts spaces around runs of two points and more.
fn separate_ellipses(text: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    for run in text.chunk_by(|a, b| *a == '.' && *b == '.') {
        let space = (run.len() > 1).then_some(' ');
        out.extend(space);
        out.extend(run);
        out.extend(space);
    }
    out
}

/// Separates the point at the end of a word, unless it belongs to it.
fn end_points(word: &str, next: &str) -> String {
    let Some(stem) = word.strip_suffix('.') else { return word.to_owned() };
    if word.chars().all(|c| c == '.') {
        return word.to_owned();
    }
    if stem.contains('.') && stem.contains(alpha) {
        return word.replace('.', "");
    }
    let abbreviation = ABBREVIATIONS.split(' ').any(|abbreviation| abbreviation == stem);
    let before_number = BEFORE_NUMBERS.contains(&stem) && next.starts_with(|c: char| c.is_ascii_digit());
    if abbreviation || before_number || next.starts_with(|c: char| c.is_ascii_lowercase()) {
        return word.to_owned();
    }
    format!("{stem} .")
}

/// The letters that METEOR knows: Latin, Cyrillic and phonetic ones.
fn alpha(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c,
            '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{17e}' | '\u{400}'..='\u{4ff}'
            | '\u{500}'..='\u{527}' | '\u{a640}'..='\u{a66e}' | '\u{a67e}'..='\u{a697}' | '\u{1d00}'..='\u{1d7f}')
}

/// `\s` in Java.
fn is_java_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn is_wide_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}
