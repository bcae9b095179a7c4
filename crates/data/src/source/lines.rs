//! The lines of a text file, plain or Zstandard, one at a time and within stated bounds.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{DataError, is_zst, quote};

/// The most text that one file may hold once decompressed: 4 GiB. A few kilobytes of Zstandard can ask for any amount.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

/// The longest line: 16 MiB.
pub const MAX_LINE_BYTES: u64 = 16 << 20;

/// Zstandard's window that is allowed, as a power of two: 128 MiB, what `zstd --long` makes without a number.
const MAX_WINDOW_LOG: u32 = 27;

/// The bytes of a file, decompressed as they are read if its name ends in `.zst`.
pub(super) fn bytes(path: &Path) -> Result<Box<dyn BufRead + Send>, DataError> {
    let failed = |cause| DataError::Open { path: path.to_path_buf(), cause };
    let file = File::open(path).map_err(failed)?;
    if !is_zst(path) {
        return Ok(Box::new(BufReader::new(file)));
    }
    let mut decoder = zstd::Decoder::new(file).map_err(failed)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(failed)?;
    Ok(Box::new(BufReader::new(decoder)))
}

pub(super) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    buffer: Vec<u8>,
    line: u64,
    bytes: u64,
    max_file_bytes: u64,
    max_line_bytes: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Lines, DataError> {
        Lines::open_within(path, MAX_FILE_BYTES, MAX_LINE_BYTES)
    }

    pub(super) fn open_within(path: &Path, max_file_bytes: u64, max_line_bytes: u64) -> Result<Lines, DataError> {
        let reader = bytes(path)?;
        let path = path.to_path_buf();
        Ok(Lines { path, reader, buffer: Vec::new(), line: 0, bytes: 0, max_file_bytes, max_line_bytes })
    }

    /// The next line without its end (`\n` or `\r\n`), or `None` after the last.
    ///
    /// A byte order mark at the head of the file is skipped.
    pub(super) fn next_line(&mut self) -> Result<Option<&str>, DataError> {
        self.buffer.clear();
        // One byte more than may be, so that a line of the greatest length is told from a longer one.
        let allowed = self.max_line_bytes.min(self.max_file_bytes - self.bytes) + 1;
        let read = self.reader.by_ref().take(allowed).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|cause| self.stopped(cause))? as u64;
        if read == 0 {
            return Ok(None);
        }
        if self.bytes + read > self.max_file_bytes {
            let what = format!("the file holds more than {} bytes of text", self.max_file_bytes);
            return Err(self.stopped(Error::new(ErrorKind::FileTooLarge, what)));
        }
        self.line += 1;
        self.bytes += read;
        if read > self.max_line_bytes {
            return Err(self.wrong(format!("the line is longer than {} bytes", self.max_line_bytes)));
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(text) if self.line == 1 => Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(text))),
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let good = String::from_utf8_lossy(&self.buffer[..error.valid_up_to()]);
                Err(self.wrong(format!("byte {} is not UTF-8, after {}", error.valid_up_to() + 1, quote(&good))))
            }
        }
    }

    /// The number of the line that was read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// An error in the line that was read last.
    pub(super) fn wrong(&self, what: String) -> DataError {
        DataError::Row { path: self.path.clone(), line: self.line, what }
    }

    /// The error of a file that has no rows.
    pub(super) fn empty(&self) -> DataError {
        DataError::Empty { path: self.path.clone() }
    }

    fn stopped(&self, cause: Error) -> DataError {
        DataError::Read { path: self.path.clone(), line: self.line, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn write(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn all(mut lines: Lines) -> Result<Vec<String>, DataError> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line()? {
            found.push(line.to_owned());
        }
        Ok(found)
    }

    #[test]
    fn plain_and_compressed_give_the_same_lines() {
        let folder = folder();
        let text = "\u{feff}one\r\ntwo\n\nfour \u{feff}";
        let plain = write(&folder, "a.tsv", text.as_bytes());
        // Two frames, as `cat a.zst b.zst` makes them.
        let mut frames = zstd::encode_all(&text.as_bytes()[..9], 3).unwrap();
        frames.extend(zstd::encode_all(&text.as_bytes()[9..], 3).unwrap());
        let packed = write(&folder, "a.tsv.zst", &frames);
        for path in [plain, packed] {
            assert_eq!(all(Lines::open(&path).unwrap()).unwrap(), ["one", "two", "", "four \u{feff}"]);
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_errors() {
        let folder = folder();
        let missing = folder.path().join("none.tsv");
        assert!(Lines::open(&missing).err().unwrap().to_string().starts_with("cannot open "));
        let message = Lines::open(folder.path()).and_then(all).unwrap_err().to_string();
        assert!(message.contains("directory"), "{message}");
    }

    #[test]
    fn truncated_and_damaged_frames_are_errors() {
        let folder = folder();
        let text: String = (0..5000).map(|i| format!("row {}\n", i * i)).collect();
        let packed = zstd::encode_all(text.as_bytes(), 3).unwrap();
        let cut = write(&folder, "cut.zst", &packed[..packed.len() - 5]);
        let noise = write(&folder, "noise.zst", b"sentence\tlabel\n");
        let mut tail = packed.clone();
        tail.extend_from_slice(b"trailing bytes");
        let tail = write(&folder, "tail.zst", &tail);
        for path in [cut, noise, tail] {
            let message = Lines::open(&path).and_then(all).unwrap_err().to_string();
            assert!(message.contains("cannot read on after line"), "{message}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_name_the_line() {
        let folder = folder();
        let path = write(&folder, "a.tsv", b"good\nbad \xff\n");
        let message = all(Lines::open(&path).unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("a.tsv, line 2: byte 5 is not UTF-8, after \"bad \""), "{message}");
    }

    #[test]
    fn lines_and_files_are_bounded() {
        let folder = folder();
        let path = write(&folder, "a.tsv", b"1234567\n1234567\n");
        assert_eq!(all(Lines::open_within(&path, 16, 8).unwrap()).unwrap().len(), 2);
        let message = all(Lines::open_within(&path, 16, 7).unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("line 1: the line is longer than 7 bytes"), "{message}");
        let message = all(Lines::open_within(&path, 15, 8).unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("after line 1: the file holds more than 15 bytes of text"), "{message}");
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_bound() {
        let folder = folder();
        let bomb = zstd::encode_all(std::io::repeat(b'\n').take(64 << 20), 3).unwrap();
        assert!(bomb.len() < 1 << 16);
        let path = write(&folder, "bomb.zst", &bomb);
        assert!(all(Lines::open_within(&path, 1 << 20, 16).unwrap()).is_err());
    }
}
