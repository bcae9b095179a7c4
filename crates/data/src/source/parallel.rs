//! Two text files side by side: line `i` of one is written from line `i` of the other.

use std::path::Path;

use super::DataError;
use super::lines::Lines;
use crate::Pair;

/// Reads pairs, each file compressed if its name ends in `.zst`.
///
/// # Errors
/// At the first line that is empty or not UTF-8; when the files have different numbers of lines; for files without
/// lines.
pub fn read(sources: &Path, targets: &Path) -> Result<Vec<Pair>, DataError> {
    let mut pairs = Vec::new();
    let (mut source_lines, mut target_lines) = (Lines::open(sources)?, Lines::open(targets)?);
    loop {
        match (source_lines.next_line()?, target_lines.next_line()?) {
            (Some(source), Some(target)) => {
                let pair = Pair::new(source, [target]);
                let empty = if source.trim().is_empty() { &source_lines } else { &target_lines };
                pairs.push(pair.map_err(|what| empty.wrong(what))?);
            }
            (None, None) if pairs.is_empty() => return Err(source_lines.empty()),
            (None, None) => return Ok(pairs),
            _ => break,
        }
    }
    while source_lines.next_line()?.is_some() {}
    while target_lines.next_line()?.is_some() {}
    Err(DataError::Unequal {
        sources: sources.to_path_buf(),
        source_lines: source_lines.line(),
        targets: targets.to_path_buf(),
        target_lines: target_lines.line(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_texts(sources: &str, targets: &str) -> Result<Vec<Pair>, String> {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("src.txt"), folder.path().join("tgt.txt.zst"));
        std::fs::write(&first, sources).unwrap();
        std::fs::write(&second, zstd::encode_all(targets.as_bytes(), 3).unwrap()).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        read(&first, &second).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn lines_belong_to_lines() {
        let pairs = read_texts("a . \nb\r\na .\n", "1\n2\n3").unwrap();
        let found: Vec<_> = pairs.iter().map(|pair| (pair.source.as_str(), pair.targets[0].as_str())).collect();
        assert_eq!(found, [("a .", "1"), ("b", "2"), ("a .", "3")]);
    }

    #[test]
    fn every_way_to_be_wrong_is_named() {
        let unequal = "line by line they must belong together";
        for (sources, targets, message) in [
            ("", "", "src.txt holds no examples"),
            ("a\n \n", "1\n2\n", "src.txt, line 2: the source is empty"),
            ("a\nb\n", "\n2\n", "tgt.txt.zst, line 1: the target is empty"),
            ("a\nb\nc\n", "1\n", &format!("src.txt has 3 lines and tgt.txt.zst 1: {unequal}")),
            ("", "1\n2\n", &format!("src.txt has 0 lines and tgt.txt.zst 2: {unequal}")),
        ] {
            assert_eq!(read_texts(sources, targets).unwrap_err(), message);
        }
    }
}
