//! Documents to token stores: one to train on, and one of what is held out.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::Path;

use rayon::prelude::*;

use crate::source::{DataError, Document};
use crate::store::{self, StoreError, StoreWriter, TokenStore};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The folder of the documents to train on.
pub const TRAIN: &str = "train";

/// The folder of those held out.
pub const HELD_OUT: &str = "held_out";

/// Bytes of text that are encoded at a time, unless one document has more.
const BATCH_BYTES: usize = 8 << 20;

/// Why documents could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A document could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// One has no ids.
    #[error("document {document:?}: {cause}")]
    Tokenizer { document: String, cause: TokenizerError },
    /// A store could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token that was to end documents is none.
    #[error("the vocabulary has no token {token:?} to end documents with")]
    End { token: String },
    /// Of two documents with one name, it cannot be said which is held out.
    #[error("two documents have the name {name:?}")]
    Twice { name: String },
    /// What was to be held out did not come.
    #[error("there is no document {first:?} to hold out, nor {more} others of those named")]
    Missing { first: String, more: usize },
}

/// How documents are packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackOptions {
    /// The token behind each document.
    pub end: String,
    /// The names of the documents that are held out; each has to come.
    pub held_out: BTreeSet<String>,
}

impl Default for PackOptions {
    fn default() -> PackOptions {
        PackOptions { end: "<eos>".into(), held_out: BTreeSet::new() }
    }
}

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// The documents to train on.
    pub train: TokenStore,
    /// Those held out, if any were.
    pub held_out: Option<TokenStore>,
}

/// The names of every `nth` line of a list, the `nth` being the first of them. A line is a name, or columns separated
/// by tabs of which the last is the name.
///
/// ```
/// # use std::num::NonZeroUsize;
/// let names = lapidary_data::pack::every_nth("120\ta.md\n99\tb.md\n7\tc.md\n", NonZeroUsize::new(2).unwrap());
/// assert_eq!(names.into_iter().collect::<Vec<_>>(), ["b.md"]);
/// ```
pub fn every_nth(list: &str, nth: NonZeroUsize) -> BTreeSet<String> {
    let names = list.lines().map(|line| line.rsplit('\t').next().unwrap_or(line));
    names.skip(nth.get() - 1).step_by(nth.get()).map(str::to_owned).collect()
}

/// Encodes documents and writes them to `folder/train` and, if some are to be held out, `folder/held_out`.
///
/// Texts are encoded as text: a special token that one of them quotes is none. The stores hold the documents in their
/// order, and are the same on any number of threads. They take the place of those that the folder had.
///
/// # Errors
/// When a document cannot be read, encoded or written, two have one name, one that was to be held out does not come,
/// or none is left to train on. Then the folder has the stores that it had before, unless it was the replacing of them
/// that failed.
pub fn pack(
    documents: impl IntoIterator<Item = Result<Document, DataError>>,
    tokenizer: &Tokenizer,
    options: &PackOptions,
    folder: &Path,
) -> Result<Packed, PackError> {
    let end = tokenizer.id(&options.end).ok_or_else(|| PackError::End { token: options.end.clone() })?;
    let mut train = StoreWriter::create(&folder.join(TRAIN), tokenizer, end)?;
    let mut held_out = match options.held_out.is_empty() {
        true => None,
        false => Some(StoreWriter::create(&folder.join(HELD_OUT), tokenizer, end)?),
    };
    let mut write = |batch: Vec<Document>| {
        let ids: Vec<_> = batch.par_iter().map(|document| tokenizer.encode_text(&document.text)).collect();
        for (Document { name, text }, ids) in batch.into_iter().zip(ids) {
            let ids = ids.map_err(|cause| PackError::Tokenizer { document: name.clone(), cause })?;
            let store = match &mut held_out {
                Some(held_out) if options.held_out.contains(&name) => held_out,
                _ => &mut train,
            };
            store.push(&name, &ids, text.len() as u64)?;
        }
        Ok::<_, PackError>(())
    };

    let (mut names, mut batch, mut bytes) = (BTreeSet::new(), Vec::new(), 0);
    for document in documents {
        let document = document?;
        if !names.insert(document.name.clone()) {
            return Err(PackError::Twice { name: document.name });
        }
        bytes += document.text.len();
        batch.push(document);
        if bytes >= BATCH_BYTES {
            write(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    write(batch)?;
    let mut missing = options.held_out.difference(&names);
    if let Some(first) = missing.next() {
        return Err(PackError::Missing { first: first.clone(), more: missing.count() });
    }
    let train = train.finish()?;
    // What another split held out may be among what is trained on now.
    store::remove(&folder.join(HELD_OUT))?;
    Ok(Packed { train, held_out: held_out.map(StoreWriter::finish).transpose()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenizerConfig;
    use crate::tokenizer::Algorithm;

    fn document(name: &str, text: &str) -> Result<Document, DataError> {
        Ok(Document { name: name.into(), text: text.into() })
    }

    fn tokenizer() -> Tokenizer {
        let text = "the tin the thin thing then <eos>".repeat(4);
        Tokenizer::train([Ok::<_, DataError>(text)], &TokenizerConfig::new(Algorithm::Bpe, 264)).unwrap()
    }

    fn options(held_out: &[&str]) -> PackOptions {
        PackOptions { held_out: held_out.iter().map(|name| name.to_string()).collect(), ..PackOptions::default() }
    }

    #[test]
    fn documents_go_where_their_names_say() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let texts = ["then", "", "a <eos> é", "thin", "the end"];
        let names = ["a", "b", "c", "d", "e"];
        let documents = || names.iter().zip(texts).map(|(name, text)| document(name, text));
        let Packed { train, held_out } = pack(documents(), &tokenizer, &options(&["b", "d"]), folder.path()).unwrap();
        let held_out = held_out.unwrap();
        assert_eq!((train.bytes(), held_out.bytes()), (4 + 10 + 7, 4));
        for (store, expected) in [(&train, [0, 2, 4].as_slice()), (&held_out, &[1, 3])] {
            let found: Vec<&str> = store.documents().iter().map(|document| document.name.as_str()).collect();
            assert_eq!(found, expected.iter().map(|&at| names[at]).collect::<Vec<_>>());
            let ids = store.read(0..store.tokens()).unwrap();
            // Only the ends of documents are special, whatever a document quotes.
            let documents: Vec<_> = ids.split(|&id| id == 2).map(|ids| tokenizer.decode(ids).unwrap()).collect();
            let texts: Vec<_> = expected.iter().map(|&at| texts[at]).chain([""]).collect();
            assert_eq!(documents, texts);
            store.check_tokenizer(&tokenizer).unwrap();
            store.verify().unwrap();
        }

        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let again = one.install(|| pack(documents(), &tokenizer, &options(&["b", "d"]), folder.path())).unwrap();
        assert_eq!(again.train.sha256(), train.sha256());
        let all = pack(documents(), &tokenizer, &options(&[]), &folder.path().join("all")).unwrap();
        assert!(all.held_out.is_none() && all.train.documents().len() == 5);
        pack(documents(), &tokenizer, &options(&[]), folder.path()).unwrap();
        assert!(TokenStore::open(&folder.path().join(HELD_OUT)).is_err(), "held out before, trained on now");
    }

    #[test]
    fn what_cannot_be_packed_is_an_error_and_leaves_nothing() {
        let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
        let message = |documents: Vec<Result<Document, DataError>>, options: &PackOptions| {
            let error = pack(documents, &tokenizer, options, folder.path()).unwrap_err().to_string();
            let left = |name| folder.path().join(name).read_dir().map_or(0, |entries| entries.count());
            assert_eq!(left(TRAIN) + left(HELD_OUT), 0, "{error}");
            error.replace(&format!("{}", folder.path().join("").display()), "")
        };
        let two = || vec![document("a", "x"), document("b", "y")];
        assert_eq!(
            message(two().into_iter().chain(two()).collect(), &options(&[])),
            "two documents have the name \"a\""
        );
        assert_eq!(
            message(two(), &options(&["a", "c", "d", "e"])),
            "there is no document \"c\" to hold out, nor 2 others of those named"
        );
        assert_eq!(message(two(), &options(&["a", "b"])), "no document is left for train");
        assert_eq!(message(vec![], &options(&[])), "no document is left for train");
        let broken = Err(DataError::NoDocuments { path: "x.tar".into() });
        assert_eq!(message(vec![document("a", "x"), broken], &options(&[])), "x.tar holds no documents");
        let end = PackOptions { end: "</s>".into(), ..PackOptions::default() };
        assert_eq!(message(two(), &end), "the vocabulary has no token \"</s>\" to end documents with");
    }

    #[test]
    fn lists_name_what_is_held_out() {
        let nth = |list, nth| every_nth(list, NonZeroUsize::new(nth).unwrap()).into_iter().collect::<Vec<_>>();
        assert_eq!(nth("a\nb\nc\nd\ne\n", 2), ["b", "d"]);
        assert_eq!(nth("12\ta/x y.md\r\n7\tb.md", 1), ["a/x y.md", "b.md"]);
        assert!(nth("a\nb\n", 3).is_empty());
    }
}
