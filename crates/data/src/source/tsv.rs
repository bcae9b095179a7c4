//! Tab-separated tables as GLUE has them: a header, one example a line, and no quoting, so that `"` is a letter like
//! any other (a CSV reader would swallow the lines between two of them).

use std::path::Path;

use super::lines::Lines;
use super::{Columns, DataError, quote};
use crate::Example;

/// Where the wanted columns stand.
struct Header {
    width: usize,
    text: usize,
    pair: Option<usize>,
    label: usize,
}

/// Reads a labelled table, compressed if its name ends in `.zst`.
///
/// # Errors
/// At the first malformed row: another number of columns than the header has, an empty text or label, a label outside
/// the set, bytes that are not UTF-8; for a header without the columns; for a table without rows.
pub fn read(path: &Path, columns: &Columns) -> Result<Vec<Example>, DataError> {
    columns.check(path)?;
    let mut lines = Lines::open(path)?;
    let header = match lines.next_line()? {
        None => return Err(lines.empty()),
        Some(line) => Header::parse(line, columns),
    };
    let header = header.map_err(|what| lines.wrong(what))?;

    let mut examples = Vec::new();
    while let Some(line) = lines.next_line()? {
        let example = header.row(line, columns);
        examples.push(example.map_err(|what| lines.wrong(what))?);
    }
    if examples.is_empty() {
        return Err(lines.empty());
    }
    Ok(examples)
}

impl Header {
    fn parse(line: &str, columns: &Columns) -> Result<Header, String> {
        let names: Vec<&str> = line.split('\t').collect();
        let find = |wanted: &str| {
            let mut places = names.iter().enumerate().filter(|(_, name)| **name == wanted).map(|(place, _)| place);
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
                (Some(_), Some(_)) => Err(format!("the header has more than one column {}", quote(wanted))),
                (None, _) => Err(format!("the header has no column {}, but {}", quote(wanted), quote(line))),
            }
        };
        Ok(Header {
            width: names.len(),
            text: find(&columns.text)?,
            pair: columns.pair.as_deref().map(find).transpose()?,
            label: find(&columns.label)?,
        })
    }

    fn row(&self, line: &str, columns: &Columns) -> Result<Example, String> {
        let cells: Vec<&str> = line.split('\t').collect();
        if cells.len() != self.width {
            return Err(format!("{} columns where the header has {}: {}", cells.len(), self.width, quote(line)));
        }
        if cells[self.label].is_empty() {
            return Err(format!("the label (column {}) is empty", quote(&columns.label)));
        }
        let label = columns.labels.index_of_name(cells[self.label])?;
        columns.example(cells[self.text], self.pair.map(|place| cells[place]), label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Labels, Part};

    fn sst2() -> Columns {
        Columns { text: "sentence".into(), pair: None, label: "label".into(), labels: Labels::Count(2) }
    }

    fn nli() -> Columns {
        let names = ["entailment", "neutral", "contradiction"].map(String::from).to_vec();
        Columns {
            text: "premise".into(),
            pair: Some("hypothesis".into()),
            label: "gold".into(),
            labels: Labels::Names(names),
        }
    }

    fn read_bytes(bytes: &[u8], columns: &Columns) -> Result<Vec<Example>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.tsv");
        std::fs::write(&path, bytes).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        read(&path, columns).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn texts(example: &Example) -> Vec<&str> {
        fn text(part: &Part) -> &str {
            match part {
                Part::Text(text) => text,
                Part::Image(_) => panic!("a table has no images"),
            }
        }
        example.parts.iter().map(text).collect()
    }

    #[test]
    fn quotes_are_ordinary_characters() {
        let examples = read_bytes(b"sentence\tlabel\n\" a half-open quote \t1\n'it' \"is\"\t0\n", &sst2()).unwrap();
        assert_eq!(texts(&examples[0]), ["\" a half-open quote "]);
        assert_eq!(texts(&examples[1]), ["'it' \"is\""]);
        assert_eq!(examples.iter().map(|example| example.label).collect::<Vec<_>>(), [Some(1), Some(0)]);
    }

    #[test]
    fn columns_are_found_by_name() {
        let table = "gold\tid\thypothesis\tpremise\nneutral\t7\tb\ta\nentailment\t8\td\tc";
        let examples = read_bytes(table.as_bytes(), &nli()).unwrap();
        assert_eq!(texts(&examples[0]), ["a", "b"]);
        assert_eq!(texts(&examples[1]), ["c", "d"]);
        assert_eq!((examples[0].label, examples[1].label), (Some(1), Some(0)));
    }

    #[test]
    fn every_malformed_row_is_named() {
        for (table, message) in [
            (&b"sentence\tlabel\na\t1\nb\n"[..], "set.tsv, line 3: 1 columns where the header has 2: \"b\""),
            (b"sentence\tlabel\na\tb\t1\n", "set.tsv, line 2: 3 columns where the header has 2: \"a\\tb\\t1\""),
            (b"sentence\tlabel\na\t1\n\n", "set.tsv, line 3: 1 columns where the header has 2: \"\""),
            (b"sentence\tlabel\na\t\n", "set.tsv, line 2: the label (column \"label\") is empty"),
            (b"sentence\tlabel\na\t2\n", "set.tsv, line 2: label \"2\" is not an integer of 0..=1"),
            (b"sentence\tlabel\na\tgood\n", "set.tsv, line 2: label \"good\" is not an integer of 0..=1"),
            (b"sentence\tlabel\n  \t1\n", "set.tsv, line 2: column \"sentence\" is empty"),
            (b"sentence\tlabel\na\xff\t1\n", "set.tsv, line 2: byte 2 is not UTF-8, after \"a\""),
            (b"text\tlabel\na\t1\n", "set.tsv, line 1: the header has no column \"sentence\", but \"text\\tlabel\""),
            (b"sentence\tlabel\tlabel\na\t1\t1\n", "set.tsv, line 1: the header has more than one column \"label\""),
            (b"sentence\tlabel\n", "set.tsv holds no examples"),
            (b"", "set.tsv holds no examples"),
        ] {
            assert_eq!(read_bytes(table, &sst2()).unwrap_err(), message);
        }
        assert_eq!(
            read_bytes(b"premise\thypothesis\tgold\na\tb\t-\n", &nli()).unwrap_err(),
            "set.tsv, line 2: label \"-\" is not one of \"entailment\", \"neutral\", \"contradiction\""
        );
        assert_eq!(
            read_bytes(b"premise\thypothesis\tgold\na\t\tneutral\n", &nli()).unwrap_err(),
            "set.tsv, line 2: column \"hypothesis\" is empty"
        );
    }
}
