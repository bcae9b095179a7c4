//! Tagged words as the shared tasks of CoNLL have them: a word a line, in columns, and an empty line after each
//! sentence.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{DataError, is_zst, quote};
use crate::tag::{Tag, TagScheme, TaggedSentence, iob2};

/// The word of the lines that CoNLL-2003 puts between documents.
const DOCUMENT: &str = "-DOCSTART-";

/// Which columns make a tagged word. Columns count from 1, and back from the last with -1, -2 and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConllColumns {
    /// The word. If not said, the first column, and in a `.conllu` the second, since there the first is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word: Option<i64>,
    /// The tag. If not said, the last column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<i64>,
    /// How the file's tags are meant. Those that are read are always of IOB2.
    pub scheme: TagScheme,
}

/// Reads tagged sentences, compressed if the file's name ends in `.zst`.
///
/// The columns of a line are separated by tabs if it has any, and else by spaces; lines that have nothing else are
/// empty, and any number of them separates two sentences. A line whose word is `-DOCSTART-` is no part of a sentence
/// and ends one. In a file whose name ends in `.conllu` (and `.zst`), lines that begin with `#` are comments; elsewhere
/// they are words.
///
/// # Errors
/// At the first malformed line: a column that it lacks, an empty word, a tag that is none of entities, bytes that are
/// not UTF-8; in a `.conllu` also a line for several words or for none (`1-2`, `1.1`), whose words would come twice;
/// for a file without words; for columns that contradict themselves.
pub fn read(path: &Path, columns: &ConllColumns) -> Result<Vec<TaggedSentence>, DataError> {
    let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
    let conllu = plain.extension().is_some_and(|extension| extension == "conllu");
    let (word, tag) = (columns.word.unwrap_or(if conllu { 2 } else { 1 }), columns.tag.unwrap_or(-1));
    if word == 0 || tag == 0 || word == tag {
        let what = format!("word {word} and tag {tag}: two columns are needed, counted from 1 or back from -1");
        return Err(DataError::Columns { path: path.to_path_buf(), what });
    }

    let mut lines = Lines::open(path)?;
    let mut sentences = Vec::new();
    let mut sentence = TaggedSentence { words: Vec::new(), tags: Vec::new() };
    while let Some(line) = lines.next_line()? {
        if conllu && line.starts_with('#') {
            continue;
        }
        if line.trim_matches([' ', '\t']).is_empty() {
            end(&mut sentence, columns.scheme, &mut sentences);
            continue;
        }
        let found = tagged(line, word, tag, conllu).map(|(word, tag)| (word.to_owned(), tag.to_owned()));
        let (word, tag) = found.map_err(|what| lines.wrong(what))?;
        if word == DOCUMENT {
            end(&mut sentence, columns.scheme, &mut sentences);
            continue;
        }
        Tag::parse(&tag).map_err(|cause| lines.wrong(cause.to_string()))?;
        sentence.words.push(word);
        sentence.tags.push(tag);
    }
    end(&mut sentence, columns.scheme, &mut sentences);
    match sentences.is_empty() {
        true => Err(lines.empty()),
        false => Ok(sentences),
    }
}

/// Puts a sentence to the others, if it has words, and empties it.
fn end(sentence: &mut TaggedSentence, scheme: TagScheme, sentences: &mut Vec<TaggedSentence>) {
    let words = std::mem::take(&mut sentence.words);
    let tags = std::mem::take(&mut sentence.tags);
    if words.is_empty() {
        return;
    }
    let tags = match scheme {
        TagScheme::Iob2 => tags,
        // Each tag was parsed when it was read.
        TagScheme::Iob1 => iob2(&tags).unwrap_or(tags),
    };
    sentences.push(TaggedSentence { words, tags });
}

/// The word and the tag of a line.
fn tagged(line: &str, word: i64, tag: i64, conllu: bool) -> Result<(&str, &str), String> {
    let cells: Vec<&str> = match line.contains('\t') {
        true => line.split('\t').collect(),
        false => line.split(' ').filter(|cell| !cell.is_empty()).collect(),
    };
    let place = |column: i64| {
        let back = |from_end: usize| cells.len().checked_sub(from_end);
        let distance = usize::try_from(column.unsigned_abs()).unwrap_or(usize::MAX);
        let place = if column > 0 { distance.checked_sub(1) } else { back(distance) };
        let place = place.filter(|&place| place < cells.len());
        place.ok_or_else(|| format!("there is no column {column} in {}", quote(line)))
    };
    let (word, tag) = (place(word)?, place(tag)?);
    if word == tag {
        return Err(format!("one column has both word and tag: {}", quote(line)));
    }
    if conllu && cells[0].contains(['-', '.']) {
        return Err(format!("a line for several words or for none, {}, cannot be tagged", quote(cells[0])));
    }
    match cells[word].trim().is_empty() {
        true => Err(format!("the word is empty in {}", quote(line))),
        false => Ok((cells[word], cells[tag])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(name: &str, bytes: &[u8], columns: &ConllColumns) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let packed = name.ends_with(".zst").then(|| zstd::encode_all(bytes, 3).unwrap());
        std::fs::write(&path, packed.as_deref().unwrap_or(bytes)).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        let sentences = read(&path, columns).map_err(|error| error.to_string().replace(&prefix, ""))?;
        let written = |sentence: &TaggedSentence| {
            let words: Vec<_> = sentence.words.iter().zip(&sentence.tags).map(|(w, t)| format!("{w}/{t}")).collect();
            assert_eq!(sentence.words.len(), sentence.tags.len());
            words.join(" ")
        };
        Ok(sentences.iter().map(written).collect())
    }

    fn read_text(name: &str, text: &str) -> Result<Vec<String>, String> {
        read_bytes(name, text.as_bytes(), &ConllColumns::default())
    }

    #[test]
    fn sentences_are_told_apart() {
        let columns = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP B-ORG\nrejects  VBZ I-VP O \n\n\nPeter NNP I-NP B-PER";
        assert_eq!(read_text("eng.train", columns).unwrap(), ["EU/B-ORG rejects/O", "Peter/B-PER"]);
        // An empty line may have a tab, a word a space beside it, and a name a hash before it.
        let tabs = "\n#NFL\tO\r\n New York\tB-loc\n\t\n# a\tI-loc\n-DOCSTART-\tO\n!\tO\n";
        for name in ["a.conll", "a.conll.zst", "a.tsv"] {
            assert_eq!(read_text(name, tabs).unwrap(), ["#NFL/O  New York/B-loc", "# a/I-loc", "!/O"]);
        }
        let numbered = "# text = Bo ran\n1\tBo\tB-PER\n# in between\n2\t#1\tO\n\n";
        assert_eq!(read_text("a.conllu", numbered).unwrap(), ["Bo/B-PER #1/O"]);
        assert_eq!(read_text("a.conllu.zst", numbered).unwrap(), ["Bo/B-PER #1/O"]);
    }

    #[test]
    fn columns_and_scheme_can_be_said() {
        let columns = |toml| toml::from_str::<ConllColumns>(toml).unwrap();
        let text = b"O\ta\tI-X\tp\nO\tb\tI-X\tq\nO\tc\tB-X\tr\n";
        let found = |toml| read_bytes("a.txt", text, &columns(toml));
        assert_eq!(found("word = 2\ntag = 3").unwrap(), ["a/I-X b/I-X c/B-X"]);
        assert_eq!(found("word = -1\ntag = -2\nscheme = 'iob1'").unwrap(), ["p/B-X q/I-X r/B-X"]);
        assert_eq!(found("word = 2\ntag = 1\nscheme = 'iob2'").unwrap(), ["a/O b/O c/O"]);
        assert_eq!(
            found("word = -1").unwrap_err(),
            "cannot read a.txt with these columns: word -1 and tag -1: two columns are needed, counted from 1 or back \
             from -1"
        );
        for toml in ["word = 0", "tag = 0", "word = 3\ntag = 3"] {
            assert!(found(toml).unwrap_err().starts_with("cannot read a.txt with these columns"), "{toml}");
        }
        for (toml, message) in [
            ("tag = 5", "there is no column 5 in \"O\\ta\\tI-X\\tp\""),
            ("tag = -5", "there is no column -5 in \"O\\ta\\tI-X\\tp\""),
            ("tag = -9223372036854775808", "there is no column -9223372036854775808 in \"O\\ta\\tI-X\\tp\""),
            ("word = 4", "one column has both word and tag: \"O\\ta\\tI-X\\tp\""),
            ("", "tag \"p\" is not O, B-TYPE or I-TYPE"),
        ] {
            assert_eq!(found(toml).unwrap_err(), format!("a.txt, line 1: {message}"));
        }
        assert!(toml::from_str::<ConllColumns>("words = 1").is_err());
    }

    #[test]
    fn every_malformed_line_is_named() {
        for (name, text, message) in [
            ("a.conll", &b""[..], "a.conll holds no examples"),
            ("a.conll", b"\n \n\t\n-DOCSTART- O\n", "a.conll holds no examples"),
            ("a.conll", b"a O\nb\n", "a.conll, line 2: one column has both word and tag: \"b\""),
            ("a.conll", b"a O\n\tO\n", "a.conll, line 2: the word is empty in \"\\tO\""),
            ("a.conll", b"a\t\n", "a.conll, line 1: tag \"\" is not O, B-TYPE or I-TYPE"),
            ("a.conll", b"a S-PER\n", "a.conll, line 1: tag \"S-PER\" is not O, B-TYPE or I-TYPE"),
            ("a.conll", b"a O\n\xff O\n", "a.conll, line 2: byte 1 is not UTF-8, after \"\""),
            ("a.conllu", b"a O\n", "a.conllu, line 1: one column has both word and tag: \"a O\""),
            (
                "a.conllu",
                b"1-2\tcan't\tO\n1\tcan\tO\n",
                "a.conllu, line 1: a line for several words or for none, \"1-2\", cannot be tagged",
            ),
        ] {
            assert_eq!(read_bytes(name, text, &ConllColumns::default()).unwrap_err(), message);
        }
    }
}
