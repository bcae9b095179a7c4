//! Plain text for pretraining, one document after the other and never more than one in memory.
//!
//! A file of text is one document, a line of JSON Lines is one, a file in a tar archive is one. Each has a name, by
//! which some of them can be held out.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::lines::{self, Lines, MAX_LINE_BYTES};
use super::tar::Archive;
use super::{DataError, is_zst, jsonl};

/// The largest document: 256 MiB. More text comes as several documents.
pub const MAX_DOCUMENT_BYTES: u64 = 256 << 20;

/// The most text that a file of JSON Lines may hold once decompressed: 1 TiB.
const MAX_JSONL_BYTES: u64 = 1 << 40;

/// The key of a document's text in JSON Lines, unless [another](TextSource::field) is named.
const FIELD: &str = "text";

/// One text, as it stood in its file; only a byte order mark at its head is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it is called: the name of its file, the path in its archive, or `FILE:LINE` for JSON Lines. In a folder,
    /// its file is named by the path below the folder, and a file of an archive is `ARCHIVE/PATH`.
    pub name: String,
    /// The text, which may be empty.
    pub text: String,
}

/// The documents of a file or of all files below a folder, in order.
///
/// `.txt` and `.md` are text, `.jsonl` has an object with a text a line, `.tar` holds files of text whatever their
/// names; each may be compressed (`.zst`), with a window of up to 128 MiB as `zstd --long` makes it. A folder's files
/// come in the order of their names, byte by byte, the same on every system.
///
/// After an error there are no more documents.
pub struct TextSource {
    path: PathBuf,
    field: String,
    waiting: VecDeque<TextFile>,
    current: Option<Reader>,
    found: bool,
    ended: bool,
}

/// A file and what its documents are called after.
struct TextFile {
    path: PathBuf,
    name: String,
    in_folder: bool,
}

/// A file that has more than one document.
enum Reader {
    Lines { lines: Lines, name: String },
    Archive { archive: Archive<Box<dyn BufRead + Send>>, path: PathBuf, prefix: String },
}

impl TextSource {
    /// Opens a file or a folder; a folder is listed, and its files are opened one after the other.
    ///
    /// # Errors
    /// When it cannot be read or has no file, and for any file whose name says no format: none is passed over.
    pub fn open(path: &Path) -> Result<TextSource, DataError> {
        let failed = |cause| DataError::Open { path: path.to_path_buf(), cause };
        let waiting = match fs::metadata(path).map_err(failed)?.is_dir() {
            true => list(path)?,
            false => {
                let name = path.file_name().unwrap_or_default();
                let name = name.to_str().ok_or_else(|| DataError::TextFormat { path: path.to_path_buf() })?;
                VecDeque::from([TextFile { path: path.to_path_buf(), name: name.into(), in_folder: false }])
            }
        };
        for file in &waiting {
            Format::of(&file.path)?;
        }
        let path = path.to_path_buf();
        Ok(TextSource { path, field: FIELD.into(), waiting, current: None, found: false, ended: false })
    }

    /// The same, with the text of JSON Lines under another key than `text`.
    pub fn field(self, field: &str) -> TextSource {
        TextSource { field: field.into(), ..self }
    }

    fn next_document(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            if let Some(reader) = &mut self.current {
                if let Some(document) = reader.next_document(&self.field)? {
                    return Ok(Some(document));
                }
                self.current = None;
            }
            let Some(TextFile { path, name, in_folder }) = self.waiting.pop_front() else {
                return Ok(None);
            };
            self.current = Some(match Format::of(&path)? {
                Format::Text => return Ok(Some(whole(&path, name)?)),
                Format::Lines => {
                    Reader::Lines { lines: Lines::open_within(&path, MAX_JSONL_BYTES, MAX_LINE_BYTES)?, name }
                }
                Format::Archive => {
                    let archive = Archive::new(lines::bytes(&path)?, MAX_DOCUMENT_BYTES);
                    Reader::Archive { archive, path, prefix: if in_folder { name + "/" } else { String::new() } }
                }
            });
        }
    }
}

impl Iterator for TextSource {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let document = match self.next_document() {
            Ok(None) if !self.found => Err(DataError::NoDocuments { path: self.path.clone() }),
            found => found,
        };
        self.found = true;
        self.ended = !matches!(document, Ok(Some(_)));
        document.transpose()
    }
}

impl Reader {
    fn next_document(&mut self, field: &str) -> Result<Option<Document>, DataError> {
        match self {
            Reader::Lines { lines, name } => {
                let Some(line) = lines.next_line()? else {
                    return Ok(None);
                };
                let text = jsonl::text(line, field).map_err(|what| lines.wrong(what))?;
                Ok(Some(Document { name: format!("{name}:{}", lines.line()), text }))
            }
            Reader::Archive { archive, path, prefix } => {
                let entry = archive.next_entry();
                let entry = entry.map_err(|cause| DataError::Text { path: path.clone(), cause })?;
                entry.map(|entry| decoded(path, format!("{prefix}{}", entry.name), entry.bytes)).transpose()
            }
        }
    }
}

/// What a file holds, by its name.
enum Format {
    Text,
    Lines,
    Archive,
}

impl Format {
    fn of(path: &Path) -> Result<Format, DataError> {
        let plain = if is_zst(path) { path.with_extension("") } else { path.to_path_buf() };
        match plain.extension().and_then(|extension| extension.to_str()) {
            Some("txt" | "md") => Ok(Format::Text),
            Some("jsonl") => Ok(Format::Lines),
            Some("tar") => Ok(Format::Archive),
            _ => Err(DataError::TextFormat { path: path.to_path_buf() }),
        }
    }
}

/// All files below a folder, in the order of their paths.
fn list(root: &Path) -> Result<VecDeque<TextFile>, DataError> {
    let mut files = Vec::new();
    let mut folders = vec![(root.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        let failed = |cause| DataError::Open { path: folder.clone(), cause };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let failed = |cause| DataError::Open { path: path.clone(), cause };
            let refused = |what: &str| failed(Error::new(ErrorKind::InvalidInput, what));
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| refused("its name is not UTF-8"))?;
            let name = format!("{prefix}{name}");
            // A link to a file is as good as the file; links to folders can go in a circle.
            let is_link = entry.file_type().map_err(failed)?.is_symlink();
            match fs::metadata(&path).map_err(failed)? {
                kind if kind.is_file() => files.push(TextFile { path, name, in_folder: true }),
                kind if kind.is_dir() && !is_link => folders.push((path, name + "/")),
                kind if kind.is_dir() => return Err(refused("it is a link to a folder")),
                _ => return Err(refused("it is no regular file")),
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files.into())
}

/// A file of text as one document.
fn whole(path: &Path, name: String) -> Result<Document, DataError> {
    let failed = |cause| DataError::Text { path: path.to_path_buf(), cause };
    let mut bytes = Vec::new();
    lines::bytes(path)?.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        let what =
            format!("it holds more than {MAX_DOCUMENT_BYTES} bytes: divide it into documents, as .jsonl or .tar");
        return Err(failed(Error::new(ErrorKind::FileTooLarge, what)));
    }
    decoded(path, name, bytes)
}

fn decoded(path: &Path, name: String, bytes: Vec<u8>) -> Result<Document, DataError> {
    let mut text = String::from_utf8(bytes).map_err(|error| DataError::NotText {
        path: path.to_path_buf(),
        document: name.clone(),
        offset: error.utf8_error().valid_up_to() as u64,
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(Document { name, text })
}

#[cfg(test)]
mod tests {
    use super::super::tar::archive;
    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let packed = name.ends_with(".zst").then(|| zstd::encode_all(bytes, 3).unwrap());
        fs::write(&path, packed.as_deref().unwrap_or(bytes)).unwrap();
        path
    }

    fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
        let prefix = format!("{}", path.parent().unwrap().join("").display());
        let documents = TextSource::open(path).and_then(|source| source.collect::<Result<Vec<_>, _>>());
        let documents = documents.map_err(|error| error.to_string().replace(&prefix, ""))?;
        Ok(documents.into_iter().map(|document| (document.name, document.text)).collect())
    }

    fn owned(documents: &[(&str, &str)]) -> Vec<(String, String)> {
        documents.iter().map(|&(name, text)| (name.into(), text.into())).collect()
    }

    #[test]
    fn each_format_gives_its_documents_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let tar = archive(&[("b/one.md", b"\xef\xbb\xbfone\r\n"), ("a", b"")]);
        for (name, bytes, expected) in [
            ("a.txt", &b"\xef\xbb\xbfa\0\r\nb"[..], owned(&[("a.txt", "a\0\r\nb")])),
            ("a.md", b"", owned(&[("a.md", "")])),
            (
                "a.jsonl",
                b"{\"text\": \"x\\ny\"}\n{\"id\": 1, \"text\": \"\"}",
                owned(&[("a.jsonl:1", "x\ny"), ("a.jsonl:2", "")]),
            ),
            ("a.tar", &tar, owned(&[("b/one.md", "one\r\n"), ("a", "")])),
        ] {
            assert_eq!(read(&write(folder.path(), name, bytes)).unwrap(), expected);
            let packed = format!("{name}.zst");
            let expected: Vec<_> =
                expected.into_iter().map(|(found, text)| (found.replace(name, &packed), text)).collect();
            assert_eq!(read(&write(folder.path(), &packed, bytes)).unwrap(), expected);
        }
    }

    #[test]
    fn a_folder_gives_all_below_it_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("text");
        write(&root, "b.txt", b"1");
        write(&root, "a/z.tar.zst", &archive(&[("x/y", b"2")]));
        write(&root, "a/b/c.jsonl.zst", b"{\"text\": \"3\"}\n");
        write(&root, "B.md", b"4");
        let expected = [("B.md", "4"), ("a/b/c.jsonl.zst:1", "3"), ("a/z.tar.zst/x/y", "2"), ("b.txt", "1")];
        assert_eq!(read(&root).unwrap(), owned(&expected));

        write(&root, "a/table.csv", b"5");
        assert!(
            read(&root).unwrap_err().ends_with(
                "table.csv: its name must end in .txt, .md, .jsonl or .tar, or in one of them with .zst added"
            )
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("text");
        let file = write(&root, "a.txt", b"1");
        std::os::unix::fs::symlink(&file, root.join("b.txt")).unwrap();
        assert_eq!(read(&root).unwrap().len(), 2);
        std::os::unix::fs::symlink(&root, root.join("circle")).unwrap();
        assert_eq!(read(&root).unwrap_err(), "cannot open text/circle: it is a link to a folder");
    }

    #[test]
    fn what_is_not_text_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, message) in [
            ("a.txt", &b"good \xff"[..], "a.txt, document \"a.txt\": the byte at offset 5 is not UTF-8"),
            ("b.txt", b"good \xe2\x82", "b.txt, document \"b.txt\": the byte at offset 5 is not UTF-8"),
            (
                "a.tar.zst",
                &archive(&[("x", b"1"), ("y", b"\xc0")]),
                "a.tar.zst, document \"y\": the byte at offset 0 is not UTF-8",
            ),
            (
                "a.jsonl",
                b"{\"text\": \"1\"}\n{\"text\": \"\xff\"}",
                "a.jsonl, line 2: byte 11 is not UTF-8, after \"{\\\"text\\\": \\\"\"",
            ),
            ("b.jsonl", b"{\"content\": \"1\"}", "b.jsonl, line 1: there is no key \"text\""),
            ("c.jsonl", b"{\"text\": 1}", "c.jsonl, line 1: \"text\" is not a string but \"1\""),
            ("b.tar", b"no archive", "cannot read b.tar: the entry at byte 0: the archive ends here"),
            (
                "c.tar",
                &archive(&[("x", b"1")])[..512],
                "cannot read c.tar: the entry at byte 0: \"x\": the archive ends here",
            ),
            ("d.tar", &archive(&[]), "d.tar holds no documents"),
            ("d.jsonl", b"", "d.jsonl holds no documents"),
        ] {
            assert_eq!(read(&write(folder.path(), name, bytes)).unwrap_err(), message);
        }
        let path = folder.path().join("noise.txt.zst");
        fs::write(&path, b"not compressed").unwrap();
        assert!(read(&path).unwrap_err().starts_with("cannot read noise.txt.zst: "));
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert_eq!(read(&folder.path().join("empty")).unwrap_err(), "empty holds no documents");
        assert!(read(&folder.path().join("none.txt")).unwrap_err().starts_with("cannot open none.txt"));
    }

    #[test]
    fn after_an_error_there_is_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "a.jsonl", b"{\"text\": \"1\"}\n[]\n{\"text\": \"2\"}\n");
        let found: Vec<_> = TextSource::open(&path).unwrap().map(|document| document.is_ok()).collect();
        assert_eq!(found, [true, false]);
        let path = write(folder.path(), "b.jsonl", b"{\"body\": \"1\"}\n");
        let document = TextSource::open(&path).unwrap().field("body").next().unwrap().unwrap();
        assert_eq!(document, Document { name: "b.jsonl:1".into(), text: "1".into() });
    }

    #[test]
    fn long_windows_are_read_and_longer_ones_refused() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        for (log, readable) in [(27, true), (28, false)] {
            let path = folder.path().join(format!("{log}.txt.zst"));
            let mut encoder = zstd::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap();
            encoder.long_distance_matching(true).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"text").unwrap();
            encoder.finish().unwrap();
            assert_eq!(read(&path).is_ok(), readable, "{log}: {:?}", read(&path));
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bomb.txt.zst");
        fs::write(&path, zstd::encode_all(std::io::repeat(b'a').take(MAX_DOCUMENT_BYTES + 1), 1).unwrap()).unwrap();
        assert!(read(&path).unwrap_err().contains("divide it into documents"));
    }
}
