//! The regular files of a tar archive, one after the other, without unpacking it.
//!
//! A reader of our own, because an archive may come from anywhere: a general one takes the memory that a header asks
//! for, and follows what it says about links and sparse files. This one reads what `tar` writes by default, POSIX
//! ustar and pax (IEEE Std 1003.1, "pax Interchange Format") and GNU's long names, passes over folders, and refuses
//! the rest. A name is only ever a name: no file is made of it.

use std::io::{Error, ErrorKind, Read};

use super::quote;

const BLOCK: usize = 512;

/// The longest pax header or long name.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// A regular file of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub bytes: Vec<u8>,
}

pub(super) struct Archive<R> {
    reader: R,
    /// Where the next header begins, for messages.
    offset: u64,
    max_file_bytes: u64,
}

/// What is wrong with an archive, as a reader's error.
fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

impl<R: Read> Archive<R> {
    /// An archive none of whose files is larger than `max_file_bytes`.
    pub(super) fn new(reader: R, max_file_bytes: u64) -> Archive<R> {
        Archive { reader, offset: 0, max_file_bytes }
    }

    /// The next regular file, or `None` where the archive says that it ends.
    ///
    /// # Errors
    /// At a header that is damaged or asks for what is not read here, at a name that could not be a relative path, and
    /// where the bytes end early.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let at = self.offset;
        self.entry().map_err(|cause| Error::new(cause.kind(), format!("the entry at byte {at}: {cause}")))
    }

    fn entry(&mut self) -> Result<Option<Entry>, Error> {
        let (mut long_name, mut pax_size) = (None, None);
        loop {
            let mut block = [0; BLOCK];
            self.read(&mut block)?;
            if block == [0; BLOCK] {
                return self.rest_is_zero().map(|()| None);
            }
            let header = Header(&block);
            header.check()?;
            let size = match header.kind() {
                b'x' | b'g' | b'L' => header.size()?,
                _ => pax_size.take().map_or_else(|| header.size(), Ok)?,
            };
            match header.kind() {
                b'x' => {
                    for (key, value) in pax_records(&self.content(size, MAX_HEADER_BYTES)?)? {
                        match key.as_str() {
                            "path" => long_name = Some(value),
                            "size" => {
                                let digits = value.bytes().all(|byte| byte.is_ascii_digit());
                                let size = value.parse().ok().filter(|_| digits);
                                pax_size = Some(size.ok_or_else(|| wrong(format!("its size is {}", quote(&value))))?);
                            }
                            key if key.starts_with("GNU.sparse.") => return Err(wrong("it is a sparse file".into())),
                            _ => (),
                        }
                    }
                }
                // Defaults for all that follows: a comment, of a commit for example.
                b'g' => {
                    let records = pax_records(&self.content(size, MAX_HEADER_BYTES)?)?;
                    if records.iter().any(|(key, _)| key == "path" || key == "size") {
                        return Err(wrong("it gives all files one name or size".into()));
                    }
                }
                b'L' => {
                    let mut name = self.content(size, MAX_HEADER_BYTES)?;
                    if name.last() == Some(&0) {
                        name.pop();
                    }
                    long_name = Some(utf8(name)?);
                }
                b'5' => {
                    self.content(size, 0)?;
                    long_name = None;
                }
                b'0' | 0 | b'7' => {
                    let name = long_name.map_or_else(|| header.name(), Ok)?;
                    // Before POSIX, a folder was a file whose name ends so.
                    if name.ends_with('/') {
                        self.content(size, 0)?;
                        long_name = None;
                        continue;
                    }
                    let name = relative(name)?;
                    let bytes = self.content(size, self.max_file_bytes);
                    let bytes =
                        bytes.map_err(|cause| Error::new(cause.kind(), format!("{}: {cause}", quote(&name))))?;
                    return Ok(Some(Entry { name, bytes }));
                }
                other => {
                    let what = match other {
                        b'1' | b'2' | b'K' => "a link",
                        b'3' | b'4' | b'6' => "a device",
                        b'S' => "a sparse file",
                        _ => "of an unknown kind",
                    };
                    return Err(wrong(format!("it is {what}, where only files and folders are read")));
                }
            }
        }
    }

    /// An archive ends with two blocks of zeros, of which some writers leave the second out, and more of them to fill a
    /// tape's record. Anything else may be a second archive behind the first, whose files would be lost in silence.
    fn rest_is_zero(&mut self) -> Result<(), Error> {
        let mut rest = [0; 8 * BLOCK];
        loop {
            match self.reader.read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(read) if rest[..read].iter().any(|&byte| byte != 0) => {
                    return Err(wrong("it is the end, and more follows".into()));
                }
                Err(cause) if cause.kind() != ErrorKind::Interrupted => return Err(cause),
                _ => (),
            }
        }
    }

    /// The content of an entry, which fills whole blocks.
    fn content(&mut self, size: u64, most: u64) -> Result<Vec<u8>, Error> {
        if size > most {
            return Err(wrong(format!("it has {size} bytes, where at most {most} are read")));
        }
        let mut bytes = Vec::new();
        // Memory grows with what is there, not with what the header promises.
        self.reader.by_ref().take(size).read_to_end(&mut bytes)?;
        self.offset += bytes.len() as u64;
        if (bytes.len() as u64) < size {
            return Err(ended());
        }
        let padding = (BLOCK - bytes.len() % BLOCK) % BLOCK;
        self.read(&mut [0; BLOCK][..padding])?;
        Ok(bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.reader.read_exact(buffer).map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => ended(),
            _ => cause,
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::UnexpectedEof, "the archive ends here")
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        wrong(format!("its header holds {}, which is not UTF-8", quote(&String::from_utf8_lossy(error.as_bytes()))))
    })
}

/// A name without a leading `./`, if it is one that a file below a folder can have.
fn relative(name: String) -> Result<String, Error> {
    let trimmed = name.trim_start_matches("./");
    let bad = |part: &str| matches!(part, "" | "." | "..");
    if trimmed.chars().any(char::is_control) || trimmed.split('/').any(bad) {
        return Err(wrong(format!("{} is not the path of a file below a folder", quote(&name))));
    }
    Ok(trimmed.to_owned())
}

/// `LENGTH KEY=VALUE\n`, where the length counts the whole record. Values that are not UTF-8 belong to keys of no
/// interest, or are refused.
fn pax_records(mut bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let bad = || wrong("its pax header is damaged".into());
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(8).position(|&byte| byte == b' ').ok_or_else(bad)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|length| length.parse::<usize>().ok());
        let length = length.filter(|&length| length > space + 1 && length <= bytes.len()).ok_or_else(bad)?;
        let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
        records.push((utf8(record[..equals].to_vec())?, utf8(record[equals + 1..].to_vec())?));
        bytes = &bytes[length..];
    }
    Ok(records)
}

/// One header block: fields at fixed places, numbers in octal digits.
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn kind(&self) -> u8 {
        self.0[156]
    }

    /// A field of text, which ends with it or with a NUL.
    fn text(&self, from: usize, length: usize) -> Result<String, Error> {
        let field = &self.0[from..from + length];
        utf8(field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec())
    }

    fn number(&self, from: usize, length: usize) -> Result<u64, Error> {
        let field = &self.0[from..from + length];
        // GNU's form for numbers that octal digits have no room for.
        if field[0] == 0x80 {
            let (high, low) = field[1..].split_at(length - 9);
            let number = low.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
            return match high.iter().all(|&byte| byte == 0) {
                true => Ok(number),
                false => Err(wrong("a number in its header is too large".into())),
            };
        }
        let digits = String::from_utf8_lossy(field);
        let digits = digits.trim_matches([' ', '\0']);
        let octal = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok().filter(|_| octal) };
        number.ok_or_else(|| wrong(format!("its header has {} where a number belongs", quote(digits))))
    }

    /// Refuses a header that was damaged, or that is none.
    fn check(&self) -> Result<(), Error> {
        let bytes = self.0.iter().enumerate();
        let sum: u64 = bytes.map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte })).sum();
        match self.number(148, 8) {
            Ok(expected) if expected == sum => Ok(()),
            _ => Err(wrong("its header is damaged, or this is no tar archive".into())),
        }
    }

    fn size(&self) -> Result<u64, Error> {
        self.number(124, 12)
    }

    fn name(&self) -> Result<String, Error> {
        let name = self.text(0, 100)?;
        // GNU has other fields where POSIX has the front of a long name.
        let prefix = if &self.0[257..263] == b"ustar\0" { self.text(345, 155)? } else { String::new() };
        Ok(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
    }
}

/// An archive of files as `tar --format=ustar` writes it.
#[cfg(test)]
pub(super) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(tests::header(name.as_bytes(), b'0', content.len() as u64));
        archive.extend(tests::padded(content));
    }
    archive.extend([0; 2 * BLOCK]);
    archive
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn header(name: &[u8], kind: u8, size: u64) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        header[..name.len()].copy_from_slice(name);
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        sum(&mut header);
        header
    }

    fn sum(header: &mut [u8; BLOCK]) {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    pub(super) fn padded(content: &[u8]) -> Vec<u8> {
        let mut content = content.to_vec();
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        content
    }

    fn all(bytes: &[u8]) -> Result<Vec<Entry>, String> {
        let mut archive = Archive::new(bytes, 1000);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next_entry().map_err(|error| error.to_string())? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn one(parts: &[&[u8]]) -> Result<Vec<(String, usize)>, String> {
        let bytes = [parts.concat(), vec![0; 2 * BLOCK]].concat();
        Ok(all(&bytes)?.into_iter().map(|entry| (entry.name, entry.bytes.len())).collect())
    }

    #[test]
    fn files_come_in_order_and_folders_are_passed_over() {
        let bytes = [
            header(b"./", b'5', 0).to_vec(),
            archive(&[("./a/one.md", b"one"), ("two", b""), ("three", &[b'x'; 512])]),
        ]
        .concat();
        let found = all(&bytes).unwrap();
        let found: Vec<_> = found.iter().map(|entry| (entry.name.as_str(), entry.bytes.len())).collect();
        assert_eq!(found, [("a/one.md", 3), ("two", 0), ("three", 512)]);
    }

    #[test]
    fn long_names_come_from_prefix_gnu_and_pax() {
        let mut prefixed = header(b"name", b'0', 0);
        prefixed[345..350].copy_from_slice(b"front");
        sum(&mut prefixed);
        assert_eq!(one(&[&prefixed]).unwrap(), [("front/name".into(), 0)]);

        let long = "d/".repeat(100) + "é";
        let gnu = [header(b"././@LongLink", b'L', 203).to_vec(), padded(format!("{long}\0").as_bytes())].concat();
        assert_eq!(one(&[&gnu, &header(b"cut", b'0', 0)]).unwrap(), [(long.clone(), 0)]);

        let pax = |records: &str| [header(b"pax", b'x', records.len() as u64).to_vec(), padded(records.as_bytes())];
        let records = format!("{} path={long}\n10 size=3\n", long.len() + 10);
        let [head, body] = pax(&records);
        let found = one(&[&head, &body, &header(b"cut", b'0', 999), &padded(b"abc"), &header(b"b", b'0', 0)]);
        assert_eq!(found.unwrap(), [(long, 3), ("b".into(), 0)]);

        for bad in ["x", "3 a\n", "99 path=a\n", "9 path=a ", "6 abc\n", "0 path=a\n", "10 size=x\n", "11 size=-1\n"] {
            let [head, body] = pax(bad);
            assert!(one(&[&head, &body, &header(b"a", b'0', 0)]).is_err(), "{bad}");
        }
        let [head, body] = pax("22 GNU.sparse.major=1\n");
        assert!(one(&[&head, &body]).unwrap_err().contains("sparse"));
    }

    #[test]
    fn hostile_headers_are_errors_that_say_where() {
        for (header, what) in [
            (header(b"a", b'2', 0), "the entry at byte 0: it is a link, where only files and folders are read"),
            (header(b"a", b'3', 0), "it is a device"),
            (header(b"a", b'S', 0), "it is a sparse file"),
            (header(b"a", b'?', 0), "it is of an unknown kind"),
            (header(b"../../a", b'0', 0), "\"../../a\" is not the path of a file below a folder"),
            (header(b"/etc/a", b'0', 0), "\"/etc/a\" is not the path"),
            (header(b"a//b", b'0', 0), "\"a//b\" is not the path"),
            (header(b"", b'0', 0), "\"\" is not the path"),
            (header(b"a\x1b[2J", b'0', 0), "is not the path"),
            (header(b"\xff", b'0', 0), "which is not UTF-8"),
            (header(b"a", b'0', 1001), "\"a\": it has 1001 bytes, where at most 1000 are read"),
            (header(b"a", b'0', 0o77777777777), "where at most 1000 are read"),
            (header(b"a", b'L', 1 << 20), "it has 1048576 bytes, where at most 65536 are read"),
            (header(b"a", b'x', 1 << 20), "where at most 65536 are read"),
            (header(b"a", b'5', 7), "it has 7 bytes, where at most 0 are read"),
        ] {
            let message = one(&[&header]).unwrap_err();
            assert!(message.contains(what), "{message}");
        }
        let mut size = header(b"a", b'0', 0);
        size[124..136].copy_from_slice(b"0000000009z\0");
        sum(&mut size);
        assert!(one(&[&size]).unwrap_err().contains("has \"0000000009z\" where a number belongs"));
        size[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        sum(&mut size);
        assert!(one(&[&size]).unwrap_err().contains("it has 18446744073709551615 bytes"));
        size[125] = 1;
        sum(&mut size);
        assert!(one(&[&size]).unwrap_err().contains("too large"));

        let noise = [7; 2 * BLOCK];
        assert!(all(&noise).unwrap_err().contains("or this is no tar archive"));
        let second = [archive(&[("a", b"b")])[..2 * BLOCK].to_vec(), noise.to_vec()].concat();
        assert!(all(&second).unwrap_err().starts_with("the entry at byte 1024: "));
    }

    #[test]
    fn an_archive_that_ends_early_is_an_error_wherever_it_ends() {
        let bytes = archive(&[("a", b"one"), ("b", &[b'x'; 600])]);
        for end in 0..bytes.len() - 2 * BLOCK + 1 {
            assert!(all(&bytes[..end]).unwrap_err().contains("the archive ends here"), "{end}");
        }
        assert_eq!(all(&bytes[..bytes.len() - BLOCK]).unwrap().len(), 2);
        assert!(all(&[bytes, vec![0; 70 << 10], vec![1]].concat()).unwrap_err().contains("more follows"));
    }

    proptest! {
        #[test]
        fn no_damage_is_a_panic(changes in prop::collection::vec((0usize..3072, any::<u8>()), 1..6), honest in any::<bool>()) {
            let mut bytes = archive(&[("a", b"one"), ("b/c", &[b'x'; 600])]);
            for (at, byte) in changes {
                let len = bytes.len();
                bytes[at % len] = byte;
            }
            if honest {
                // Past the checksum, so that the fields themselves are tried.
                for at in [0, 1024] {
                    let block: &mut [u8; BLOCK] = (&mut bytes[at..at + BLOCK]).try_into().unwrap();
                    sum(block);
                }
            }
            let _ = all(&bytes);
        }
    }
}
