//! Token ids on disk: tokenised once, read by position, never held whole.
//!
//! A store is a folder of two files. `tokens.bin` has the ids of all documents one after the other, each document
//! closed by the id that ends it, as little-endian u16, or u32 where the vocabulary has more than 65,536 tokens.
//! `tokens.json` says how many there are, by which tokenizer, and where each document begins. The second is written
//! last: a folder without it holds no store.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Tokenizer;

/// The file of ids.
pub const TOKENS_NAME: &str = "tokens.bin";

/// The file that describes them.
pub const HEADER_NAME: &str = "tokens.json";

/// The largest header that is read: 1 GiB, some ten million documents.
pub const MAX_HEADER_BYTES: u64 = 1 << 30;

const FORMAT: &str = "lapidary-tokens";
const VERSION: u32 = 1;

/// Why there is no store, or no ids from it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is missing, or may not be read.
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    /// It could not be written.
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: io::Error },
    /// It is not what was written.
    #[error("{path} is damaged: {what}; pack the text again")]
    Damaged { path: PathBuf, what: String },
    /// There is nothing to write.
    #[error("no document is left for {path}")]
    Empty { path: PathBuf },
    /// An id cannot be stored.
    #[error("document {document:?} has the id {id}, beyond the vocabulary of {vocabulary} tokens")]
    Id { document: String, id: u32, vocabulary: usize },
    /// Its ids mean something else to this tokenizer.
    #[error("{path} was made by another tokenizer (SHA-256 {found}, not {expected}); pack the text again")]
    Tokenizer { path: PathBuf, found: String, expected: String },
    /// These positions are not in it.
    #[error("{path} has {tokens} tokens, and not those of {start}..{end}")]
    Range { path: PathBuf, tokens: u64, start: u64, end: u64 },
    /// It is too short to draw from.
    #[error("windows of {length} tokens cannot be drawn from {path}, which has {tokens}")]
    Window { path: PathBuf, length: usize, tokens: u64 },
}

/// Where one document lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// The document's name.
    pub name: String,
    /// The position of its first token. Its last is the one that ends it, before the next document's first.
    pub offset: u64,
    /// Bytes of its text in UTF-8: what a loss in bits per byte is divided by.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
    /// Bytes of an id, 2 or 4.
    width: u32,
    tokens: u64,
    vocabulary: usize,
    /// The id that ends each document.
    end: u32,
    tokenizer_sha256: String,
    tokens_sha256: String,
    documents: Vec<Extent>,
}

/// A store that was written completely.
#[derive(Debug)]
pub struct TokenStore {
    path: PathBuf,
    file: File,
    header: Header,
}

impl TokenStore {
    /// Opens the store in a folder. Its ids stay on disk; [`verify`](Self::verify) reads them all.
    ///
    /// # Errors
    /// When a file is missing, the header is damaged or larger than [`MAX_HEADER_BYTES`], or the ids are not as many
    /// as it says.
    pub fn open(folder: &Path) -> Result<TokenStore, StoreError> {
        let path = folder.join(HEADER_NAME);
        let failed = |cause| StoreError::Read { path: path.clone(), cause };
        let mut json = Vec::new();
        File::open(&path).map_err(failed)?.take(MAX_HEADER_BYTES + 1).read_to_end(&mut json).map_err(failed)?;
        let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
        if json.len() as u64 > MAX_HEADER_BYTES {
            return Err(damaged(format!("it is larger than {MAX_HEADER_BYTES} bytes")));
        }
        let header: Header = serde_json::from_slice(&json).map_err(|cause| damaged(cause.to_string()))?;
        header.check().map_err(damaged)?;

        let path = folder.join(TOKENS_NAME);
        let failed = |cause| StoreError::Read { path: path.clone(), cause };
        let file = File::open(&path).map_err(failed)?;
        let (found, expected) =
            (file.metadata().map_err(failed)?.len(), header.tokens.checked_mul(header.width.into()));
        if Some(found) != expected {
            let what = format!("it has {found} bytes, where {} tokens of {} are due", header.tokens, header.width);
            return Err(StoreError::Damaged { path, what });
        }
        Ok(TokenStore { path, file, header })
    }

    /// The number of tokens, the ends of documents included.
    pub fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// The number of bytes of text that they stand for.
    pub fn bytes(&self) -> u64 {
        self.header.documents.iter().map(|document| document.bytes).sum()
    }

    /// The documents in their order.
    pub fn documents(&self) -> &[Extent] {
        &self.header.documents
    }

    /// The number of tokens of the vocabulary, below which all ids are.
    pub fn vocabulary(&self) -> usize {
        self.header.vocabulary
    }

    /// The id that ends each document.
    pub fn end(&self) -> u32 {
        self.header.end
    }

    /// SHA-256 of the ids, by which a run can say what it was trained on.
    pub fn sha256(&self) -> &str {
        &self.header.tokens_sha256
    }

    /// Refuses another tokenizer than the one that the store was made with.
    ///
    /// # Errors
    /// When it is another.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), StoreError> {
        let (found, expected) = (self.header.tokenizer_sha256.clone(), tokenizer.sha256());
        match found == expected {
            true => Ok(()),
            false => Err(StoreError::Tokenizer { path: self.path.clone(), found, expected }),
        }
    }

    /// Reads the ids at some positions.
    ///
    /// # Errors
    /// When the positions are not in the store, the file cannot be read, or an id is beyond the vocabulary.
    pub fn read(&self, positions: Range<u64>) -> Result<Vec<u32>, StoreError> {
        let (start, end) = (positions.start, positions.end);
        let outside = || StoreError::Range { path: self.path.clone(), tokens: self.tokens(), start, end };
        if start > end || end > self.tokens() {
            return Err(outside());
        }
        let width = self.header.width as usize;
        let length = usize::try_from(end - start).ok().and_then(|tokens| tokens.checked_mul(width));
        let mut bytes = vec![0; length.ok_or_else(outside)?];
        // Within the file's size, which was checked.
        let failed = |cause| StoreError::Read { path: self.path.clone(), cause };
        self.read_at(&mut bytes, start * width as u64).map_err(failed)?;
        let ids: Vec<u32> = match width {
            2 => bytes.as_chunks().0.iter().map(|id| u16::from_le_bytes(*id).into()).collect(),
            _ => bytes.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect(),
        };
        match ids.iter().position(|&id| id as usize >= self.header.vocabulary) {
            None => Ok(ids),
            Some(at) => {
                let place = start + at as u64;
                Err(self.damaged(format!("id {} at position {place} is beyond its vocabulary", ids[at])))
            }
        }
    }

    /// Positions of `length` tokens each, one behind the other, that cover the store; the last has what is left. In
    /// this order held-out text is scored.
    ///
    /// # Panics
    /// When `length` is 0.
    pub fn spans(&self, length: usize) -> impl Iterator<Item = Range<u64>> + use<> {
        assert!(length > 0, "a span has tokens");
        let tokens = self.tokens();
        (0..tokens).step_by(length).map(move |start| start..tokens.min(start.saturating_add(length as u64)))
    }

    /// Reads all ids and compares them with the checksum that was written with them.
    ///
    /// # Errors
    /// When they differ, or cannot be read.
    pub fn verify(&self) -> Result<(), StoreError> {
        const CHUNK: usize = 1 << 19;
        let mut hash = Sha256::new();
        for span in self.spans(CHUNK) {
            let ids = self.read(span)?;
            hash.update(encode(&ids, self.header.width));
        }
        match hex(hash) == self.header.tokens_sha256 {
            true => Ok(()),
            false => Err(self.damaged("its checksum is wrong".into())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), what }
    }

    #[cfg(unix)]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)
    }

    /// Through a handle of its own, since moving the place of a shared one would disturb other threads.
    #[cfg(not(unix))]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
        file.read_exact(bytes)
    }
}

impl Header {
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT || self.version != VERSION {
            return Err(format!("it is {:?} of version {}, not {FORMAT:?} of {VERSION}", self.format, self.version));
        }
        if self.width != width(self.vocabulary) {
            return Err(format!("ids of {} bytes for a vocabulary of {}", self.width, self.vocabulary));
        }
        if self.end as usize >= self.vocabulary {
            return Err(format!("the id {} that ends documents is beyond its vocabulary", self.end));
        }
        let starts = self.documents.iter().map(|document| document.offset);
        let in_order = starts.clone().zip(starts.clone().skip(1).chain([self.tokens])).all(|(start, end)| start < end);
        if starts.clone().next() != Some(0) || !in_order {
            return Err("its documents do not follow one another".into());
        }
        let bytes = self.documents.iter().try_fold(0u64, |sum, document| sum.checked_add(document.bytes));
        bytes.map(|_| ()).ok_or_else(|| "its documents have too many bytes".into())
    }
}

/// Bytes of an id.
fn width(vocabulary: usize) -> u32 {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

fn encode(ids: &[u32], width: u32) -> Vec<u8> {
    match width {
        2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
        _ => ids.iter().flat_map(|&id| id.to_le_bytes()).collect(),
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store on its way to disk. Dropped before it is finished, it leaves nothing behind.
pub struct StoreWriter {
    folder: PathBuf,
    file: Option<BufWriter<File>>,
    hash: Sha256,
    header: Header,
}

impl StoreWriter {
    /// Begins a store in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder or file cannot be made.
    ///
    /// # Panics
    /// When `end` is not an id of the tokenizer.
    pub fn create(folder: &Path, tokenizer: &Tokenizer, end: u32) -> Result<StoreWriter, StoreError> {
        let vocabulary = tokenizer.vocab_size();
        assert!((end as usize) < vocabulary, "documents end with a token of the vocabulary");
        let path = part(folder, TOKENS_NAME);
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
        let file = file.map_err(|cause| StoreError::Write { path, cause })?;
        let header = Header {
            format: FORMAT.into(),
            version: VERSION,
            width: width(vocabulary),
            tokens: 0,
            vocabulary,
            end,
            tokenizer_sha256: tokenizer.sha256(),
            tokens_sha256: String::new(),
            documents: Vec::new(),
        };
        Ok(StoreWriter { folder: folder.into(), file: Some(BufWriter::new(file)), hash: Sha256::new(), header })
    }

    /// Adds a document of `bytes` bytes of text, and the token that ends it.
    ///
    /// # Errors
    /// When an id is beyond the vocabulary, or the disk is full.
    pub fn push(&mut self, name: &str, ids: &[u32], bytes: u64) -> Result<(), StoreError> {
        let vocabulary = self.header.vocabulary;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            return Err(StoreError::Id { document: name.into(), id, vocabulary });
        }
        self.header.documents.push(Extent { name: name.into(), offset: self.header.tokens, bytes });
        for ids in [ids, &[self.header.end]] {
            let encoded = encode(ids, self.header.width);
            self.hash.update(&encoded);
            if let Some(file) = &mut self.file {
                let path = || part(&self.folder, TOKENS_NAME);
                file.write_all(&encoded).map_err(|cause| StoreError::Write { path: path(), cause })?;
            }
            self.header.tokens += ids.len() as u64;
        }
        Ok(())
    }

    /// Puts the store in place of what the folder held, and opens it.
    ///
    /// # Errors
    /// When no document was added, or the files cannot be written.
    pub fn finish(mut self) -> Result<TokenStore, StoreError> {
        if self.header.documents.is_empty() {
            return Err(StoreError::Empty { path: self.folder.clone() });
        }
        self.header.tokens_sha256 = hex(self.hash.clone());
        let (tokens, header) = (self.folder.join(TOKENS_NAME), self.folder.join(HEADER_NAME));
        let file = self.file.take();
        let written = (|| {
            if let Some(file) = file {
                file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            }
            let mut json = File::create(part(&self.folder, HEADER_NAME))?;
            json.write_all(format!("{}\n", serde_json::to_string_pretty(&self.header)?).as_bytes())?;
            json.sync_all()?;
            // An old header with new ids would be a store that is neither.
            match fs::remove_file(&header) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
                _ => (),
            }
            fs::rename(part(&self.folder, TOKENS_NAME), &tokens)?;
            fs::rename(part(&self.folder, HEADER_NAME), &header)
        })();
        written.map_err(|cause: io::Error| StoreError::Write { path: tokens, cause })?;
        TokenStore::open(&self.folder)
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        // Whatever ended the writing is the error to show. What was finished has other names by now.
        for name in [TOKENS_NAME, HEADER_NAME] {
            let _ = fs::remove_file(part(&self.folder, name));
        }
    }
}

/// Removes the store of a folder, if there is one.
pub(crate) fn remove(folder: &Path) -> Result<(), StoreError> {
    for name in [HEADER_NAME, TOKENS_NAME] {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(StoreError::Write { path, cause }),
            _ => (),
        }
    }
    Ok(())
}

fn part(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.part"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::Windows;

    /// A tokenizer of as many words as make a vocabulary of this size.
    pub(crate) fn words(vocabulary: usize) -> Tokenizer {
        let words: Vec<String> = (4..vocabulary).map(|word| format!("w{word}")).collect();
        Tokenizer::from_words(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    }

    pub(crate) fn store(folder: &Path, tokenizer: &Tokenizer, documents: &[&[u32]]) -> TokenStore {
        let mut writer = StoreWriter::create(folder, tokenizer, 3).unwrap();
        for (index, ids) in documents.iter().enumerate() {
            writer.push(&format!("d{index}"), ids, 10 * ids.len() as u64).unwrap();
        }
        writer.finish().unwrap()
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn message(error: StoreError, folder: &Path) -> String {
        error.to_string().replace(&format!("{}", folder.join("").display()), "")
    }

    #[test]
    fn what_was_written_is_read_by_position() {
        for (vocabulary, width) in [(300, 2), (1 << 16, 2), ((1 << 16) + 1, 4)] {
            let (folder, tokenizer) = (tempfile::tempdir().unwrap(), words(vocabulary));
            let last = vocabulary as u32 - 1;
            let store = store(&folder.path().join("new"), &tokenizer, &[&[last, 5, 6], &[], &[258]]);
            assert_eq!((store.tokens(), store.bytes(), store.end(), store.vocabulary()), (7, 40, 3, vocabulary));
            let offsets: Vec<_> = store.documents().iter().map(|document| document.offset).collect();
            assert_eq!(offsets, [0, 4, 5]);
            assert_eq!(store.read(0..7).unwrap(), [last, 5, 6, 3, 3, 258, 3]);
            assert_eq!(store.read(4..6).unwrap(), [3, 258]);
            assert!(store.read(7..7).unwrap().is_empty());
            assert_eq!(store.spans(3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
            for (start, end) in [(7, 8), (0, u64::MAX), (u64::MAX, u64::MAX), (5, 4)] {
                assert!(matches!(store.read(start..end), Err(StoreError::Range { .. })), "{start} {end}");
            }
            store.verify().unwrap();
            store.check_tokenizer(&tokenizer).unwrap();
            assert!(matches!(store.check_tokenizer(&words(9)), Err(StoreError::Tokenizer { .. })));
            let bytes = fs::read(folder.path().join("new").join(TOKENS_NAME)).unwrap();
            assert_eq!((bytes.len(), bytes[10 * width / 2], bytes[10 * width / 2 + 1]), (7 * width, 2, 1));
            assert_eq!(files(&folder.path().join("new")), [TOKENS_NAME, HEADER_NAME]);
        }
    }

    #[test]
    fn an_unfinished_store_leaves_what_was_there() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), words(9));
        let kept = store(folder.path(), &tokenizer, &[&[4]]);
        let mut writer = StoreWriter::create(folder.path(), &tokenizer, 3).unwrap();
        let error = writer.push("far", &[8, 9], 1).unwrap_err();
        assert_eq!(error.to_string(), "document \"far\" has the id 9, beyond the vocabulary of 9 tokens");
        drop(writer);
        let nothing = StoreWriter::create(folder.path(), &tokenizer, 3).unwrap().finish();
        assert!(matches!(nothing, Err(StoreError::Empty { .. })));
        assert_eq!(files(folder.path()), [TOKENS_NAME, HEADER_NAME]);
        assert_eq!(TokenStore::open(folder.path()).unwrap().header, kept.header);
        let error = StoreWriter::create(&folder.path().join(HEADER_NAME), &tokenizer, 3).err().unwrap();
        assert!(matches!(error, StoreError::Write { .. }));
    }

    #[test]
    fn damage_is_found() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), words(9));
        store(folder.path(), &tokenizer, &[&[4, 5], &[6]]);
        let (tokens, header) = (folder.path().join(TOKENS_NAME), folder.path().join(HEADER_NAME));
        let (bytes, json) = (fs::read(&tokens).unwrap(), fs::read(&header).unwrap());

        fs::write(&tokens, &bytes[..9]).unwrap();
        let error = message(TokenStore::open(folder.path()).unwrap_err(), folder.path());
        assert_eq!(error, "tokens.bin is damaged: it has 9 bytes, where 5 tokens of 2 are due; pack the text again");
        let mut wrong = bytes.clone();
        wrong[2] = 7;
        fs::write(&tokens, &wrong).unwrap();
        let store = TokenStore::open(folder.path()).unwrap();
        assert_eq!(store.read(1..2).unwrap(), [7]);
        assert!(message(store.verify().unwrap_err(), folder.path()).contains("its checksum is wrong"));
        wrong[3] = 7;
        fs::write(&tokens, &wrong).unwrap();
        let error = message(TokenStore::open(folder.path()).unwrap().read(0..3).unwrap_err(), folder.path());
        assert!(error.contains("id 1799 at position 1 is beyond its vocabulary"), "{error}");
        // Cut off while it is open.
        let store = TokenStore::open(folder.path()).unwrap();
        fs::write(&tokens, &bytes[..4]).unwrap();
        assert!(matches!(store.read(0..5), Err(StoreError::Read { .. })));
        fs::remove_file(&tokens).unwrap();
        assert!(matches!(TokenStore::open(folder.path()), Err(StoreError::Read { .. })));
        fs::write(&tokens, &bytes).unwrap();
        TokenStore::open(folder.path()).unwrap().verify().unwrap();

        for end in 0..json.len() - 1 {
            fs::write(&header, &json[..end]).unwrap();
            assert!(matches!(TokenStore::open(folder.path()), Err(StoreError::Damaged { .. })), "{end}");
        }
        let good: Value = serde_json::from_slice(&json).unwrap();
        let strange = [json!(null), json!(-1), json!(0), json!(7), json!(u64::MAX), json!("x"), json!([]), json!({})];
        for key in good.as_object().unwrap().keys() {
            for value in &strange {
                let mut bad = good.clone();
                bad[key] = value.clone();
                fs::write(&header, bad.to_string()).unwrap();
                let found = TokenStore::open(folder.path()).and_then(|store| store.verify());
                // The other id that ends documents, and another tokenizer, are noticed by those who have one.
                let harmless = bad == good || (key == "end" && *value != json!(null)) || key == "tokenizer_sha256";
                assert!(found.is_err() || harmless || key == "vocabulary", "{key} {value}");
            }
        }
        for (place, value) in [("/documents/1/offset", 0), ("/documents/1/offset", 5), ("/documents/0/offset", 1)] {
            let mut bad = good.clone();
            *bad.pointer_mut(place).unwrap() = json!(value);
            fs::write(&header, bad.to_string()).unwrap();
            let error = message(TokenStore::open(folder.path()).unwrap_err(), folder.path());
            assert!(error.contains("its documents do not follow one another"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn documents_come_back(documents in prop::collection::vec(prop::collection::vec(0u32..9, 0..20), 1..20)) {
            let folder = tempfile::tempdir().unwrap();
            let parts: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
            let store = store(folder.path(), &words(9), &parts);
            let ends = store.documents().iter().map(|document| document.offset).skip(1).chain([store.tokens()]);
            for ((extent, end), ids) in store.documents().iter().zip(ends).zip(&documents) {
                prop_assert_eq!(&store.read(extent.offset..end - 1).unwrap(), ids);
                prop_assert_eq!(store.read(end - 1..end).unwrap(), [3]);
            }
        }
    }

    #[test]
    fn windows_are_a_function_of_seed_step_and_row() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<u32> = (0..96).map(|at| 4 + at % 5).collect();
        let store = store(folder.path(), &words(9), &[&ids, &[]]);
        let windows = |length, seed| Windows::new(&store, std::num::NonZeroUsize::new(length).unwrap(), seed);
        let eight = windows(8, 1).unwrap();
        let batch = eight.batch(3, 4).unwrap();
        for row in 0..4 {
            let start = eight.start(3, row);
            assert_eq!(eight.window(3, row).unwrap(), store.read(start..start + 8).unwrap());
            assert_eq!(batch[8 * row as usize..][..8], eight.window(3, row).unwrap());
        }
        let starts = |windows: &Windows| -> Vec<u64> {
            (0..50).flat_map(|step| (0..20).map(move |row| (step, row))).map(|(s, r)| windows.start(s, r)).collect()
        };
        let first = starts(&eight);
        assert_eq!(first, starts(&windows(8, 1).unwrap()));
        assert_ne!(first, starts(&windows(8, 2).unwrap()));
        // All 91 positions are drawn, about equally often, and neither steps nor rows repeat one another.
        let counts = (0..91).map(|at| first.iter().filter(|&&start| start == at).count());
        assert!(counts.clone().all(|count| (1..30).contains(&count)), "{:?}", counts.collect::<Vec<_>>());
        assert!(first.iter().all(|&start| start <= 90));
        assert_ne!(first[..20], first[20..40]);
        // What seeds mean may not change: a run that is taken up again has to go on with the same windows.
        assert_eq!(first[..6], [27, 78, 24, 51, 89, 68]);

        assert_eq!(windows(98, 1).unwrap().start(9, 9), 0);
        let error = message(windows(99, 1).unwrap_err(), folder.path());
        assert_eq!(error, "windows of 99 tokens cannot be drawn from tokens.bin, which has 98");
    }
}
