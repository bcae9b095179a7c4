//! Text to token ids, by the `tokenizer.json` of a checkpoint folder, and vocabularies [trained](train) on one's own
//! text.

mod plain;
mod spans;
mod tags;
pub mod train;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};
use tokenizers::{PostProcessor, TruncationDirection, TruncationStrategy};

pub use spans::{SpanOptions, SpanSet, SpanWindow};
pub use tags::{TaggedRow, TaggedSet};
pub use train::{Algorithm, TokenizerConfig};

use crate::tag::TagError;
use crate::{Dataset, Encoded, Example, Part, Target};
use plain::PlainText;

/// The file's name in every checkpoint folder.
pub const FILE_NAME: &str = "tokenizer.json";

/// The largest file that is read: 256 MiB, ten times the largest vocabulary in use.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Tokens that stand for padding, by family: BERT's, and SentencePiece's.
const PAD_TOKENS: [&str; 2] = ["[PAD]", "<pad>"];

/// Why there is no tokenizer, or no ids.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The folder has none.
    #[error("cannot read {path}: {cause}; a checkpoint folder needs its tokenizer.json")]
    Read { path: PathBuf, cause: std::io::Error },
    /// The file is there and is not a tokenizer.
    #[error("{path} is not a tokenizer: {what}")]
    Damaged { path: PathBuf, what: String },
    /// It could not be saved.
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: std::io::Error },
    /// The words for a new vocabulary do not make one.
    #[error("word {word:?} cannot be in a vocabulary: {what}")]
    Word { word: String, what: &'static str },
    /// An example has other parts than a tokenizer can join.
    #[error(
        "an example of {texts} texts and {images} pictures: one or two texts and at most one picture can be encoded"
    )]
    Parts { texts: usize, images: usize },
    /// An example has no class.
    #[error("the example has no label")]
    Unlabelled,
    /// Not even the special tokens fit.
    #[error("max_length {max_length} leaves no room for text beside {special} special tokens")]
    Length { max_length: usize, special: usize },
    /// Windows that could not move on over a passage.
    #[error(
        "no windows of max_length {max_length} can be cut with a stride of {stride} and questions of up to \
         {question_length} tokens: beside {special} special tokens and the longest question there has to be room for \
         more than the stride, and for one token of a question"
    )]
    Windows { max_length: usize, stride: usize, question_length: usize, special: usize },
    /// A sentence that has not one tag per word.
    #[error("{tags} tags for {words} words")]
    Tagged { words: usize, tags: usize },
    /// A tag that is not one of the task's.
    #[error(transparent)]
    Tag(TagError),
    /// Texts of unlike lengths make no batch.
    #[error("the tokenizer has no padding token ({} or {}), which batches are filled up with", PAD_TOKENS[0], PAD_TOKENS[1])]
    NoPadding,
    /// The text cannot be written in this vocabulary.
    #[error("cannot tokenize {text:?}: {what}")]
    Encode { text: String, what: String },
    /// One example of a set.
    #[error("example {index}: {cause}")]
    Example { index: usize, cause: Box<TokenizerError> },
    /// An id stands for no token.
    #[error("id {id} is beyond the vocabulary of {vocabulary} tokens")]
    Id { id: u32, vocabulary: usize },
    /// What a new tokenizer should be contradicts itself.
    #[error("no tokenizer can be trained so: {what}")]
    Config { what: String },
    /// One of the texts to train on could not be had. Texts count from 0.
    #[error("training text {index}: {cause}")]
    Text { index: u64, cause: Box<dyn std::error::Error + Send + Sync> },
    /// There is nothing to learn from.
    #[error("there is no text to train a tokenizer on")]
    NoText,
    /// There is more than the trainers count.
    #[error("{what} to train a tokenizer on: a sample of the text gives as good a vocabulary")]
    TooMuchText { what: String },
    /// The text has too few sequences of bytes that repeat.
    #[error("the text gives {found} tokens, special ones and bytes included, and not {wanted}: ask for fewer")]
    Scarce { wanted: usize, found: usize },
    /// The trainer gave up.
    #[error("cannot train the tokenizer: {what}")]
    Train { what: String },
}

/// The ids of one text or pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids with special tokens, `[length]`.
    pub ids: Vec<u32>,
    /// Segments, `[length]`.
    pub types: Vec<u32>,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
}

/// A tokenised set and what it lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedSet {
    /// The rows, in the order of the examples.
    pub rows: Dataset,
    /// How many of them were longer than the limit and were cut.
    pub truncated: usize,
}

/// A Hugging Face tokenizer.
///
/// The truncation and padding that a `tokenizer.json` may ask for are not applied: the length is said at every call,
/// and batches are padded by [`Batch::collate`](crate::Batch::collate). [`save`](Self::save) writes them as they were.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    plain: PlainText,
    file: Vec<u8>,
    pad_id: Option<u32>,
    vocab_size: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json` from a checkpoint folder.
    ///
    /// # Errors
    /// When the file is missing, larger than [`MAX_FILE_BYTES`] or no tokenizer.
    pub fn load(folder: &Path) -> Result<Tokenizer, TokenizerError> {
        let path = folder.join(FILE_NAME);
        let failed = |cause| TokenizerError::Read { path: path.clone(), cause };
        let mut file = Vec::new();
        File::open(&path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut file).map_err(failed)?;
        if file.len() as u64 > MAX_FILE_BYTES {
            let what = format!("it is larger than {MAX_FILE_BYTES} bytes");
            return Err(TokenizerError::Damaged { path, what });
        }
        Tokenizer::from_bytes(file).map_err(|what| TokenizerError::Damaged { path, what })
    }

    /// A tokenizer whose tokens are whole words, with BERT's special tokens and template: `[CLS] a [SEP]` for a text,
    /// `[CLS] a [SEP] b [SEP]` for a pair, the second of type 1.
    ///
    /// Ids 0 to 3 are `[PAD]`, `[UNK]`, `[CLS]` and `[SEP]`; the words follow in their order. Text is lower-cased and
    /// cut at white space and around punctuation; other words become `[UNK]`.
    ///
    /// # Errors
    /// When a word is listed twice or would never be found.
    pub fn from_words(words: &[&str]) -> Result<Tokenizer, TokenizerError> {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
        let mut vocabulary = serde_json::Map::new();
        for (id, token) in special.iter().chain(words).enumerate() {
            if vocabulary.insert(token.to_string(), json!(id)).is_some() {
                return Err(TokenizerError::Word { word: token.to_string(), what: "it is listed twice" });
            }
        }
        let place = |token: &str, type_id: u32| json!({"SpecialToken": {"id": token, "type_id": type_id}});
        let text = |sequence: &str, type_id: u32| json!({"Sequence": {"id": sequence, "type_id": type_id}});
        let template = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
        let added: Vec<_> = (special.iter().enumerate())
            .map(|(id, token)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [place("[CLS]", 0), text("A", 0), place("[SEP]", 0)],
                "pair": [place("[CLS]", 0), text("A", 0), place("[SEP]", 0), text("B", 1), place("[SEP]", 1)],
                "special_tokens": {"[CLS]": template("[CLS]", 2), "[SEP]": template("[SEP]", 3)},
            },
            "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        });
        let tokenizer = Tokenizer::from_bytes(file.to_string().into_bytes())
            .map_err(|what| TokenizerError::Damaged { path: FILE_NAME.into(), what })?;
        for (index, word) in words.iter().enumerate() {
            let found = tokenizer.inner.encode_fast(*word, false);
            if !found.is_ok_and(|found| found.get_ids() == [(special.len() + index) as u32]) {
                let what = "it would never be found: a word is in lower case, without spaces or punctuation inside";
                return Err(TokenizerError::Word { word: word.to_string(), what });
            }
        }
        Ok(tokenizer)
    }

    fn from_bytes(file: Vec<u8>) -> Result<Tokenizer, String> {
        let mut inner = tokenizers::Tokenizer::from_bytes(&file).map_err(|cause| cause.to_string())?;
        let json: Value = serde_json::from_slice(&file).map_err(|cause| cause.to_string())?;
        check_templates(&json["post_processor"])?;
        let padding = inner.get_padding().map(|padding| padding.pad_id);
        let pad_id = padding.or_else(|| PAD_TOKENS.iter().find_map(|token| inner.token_to_id(token)));
        if let Some(pad_id) = pad_id.filter(|id| inner.id_to_token(*id).is_none()) {
            return Err(format!("its padding id {pad_id} is not in its vocabulary"));
        }
        inner.with_padding(None).with_truncation(None).map_err(|cause| cause.to_string())?;
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |last| last as usize + 1);
        // An empty pair is all special tokens, whose ids the file states apart from the vocabulary.
        for probe in [inner.encode_fast("", true), inner.encode_fast(("", ""), true)] {
            let probe = probe.map_err(|cause| cause.to_string())?;
            if let Some(id) = probe.get_ids().iter().find(|&&id| id as usize >= vocab_size) {
                return Err(format!("it adds a special token of id {id}, beyond its vocabulary"));
            }
        }
        let plain = PlainText::new(&inner, &json);
        Ok(Tokenizer { inner, plain, file, pad_id, vocab_size })
    }

    /// The id that fills the rows of a batch.
    ///
    /// # Errors
    /// There is none, as of models that only write.
    pub fn pad_id(&self) -> Result<u32, TokenizerError> {
        self.pad_id.ok_or(TokenizerError::NoPadding)
    }

    /// One more than the largest id: the rows that a model's embedding needs at least.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token, if the vocabulary has it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// SHA-256 of the file in hexadecimal: what was tokenised with one file is worthless with another.
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.file).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The ids of a text or a pair of texts with their special tokens, at most `max_length` of them.
    ///
    /// A text that is too long loses its end; of a pair, the longer text loses first.
    ///
    /// # Errors
    /// When a text has no ids in this vocabulary, or `max_length` has no room for any of it.
    pub fn tokens(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<Tokens, TokenizerError> {
        let failed = |cause: tokenizers::Error| TokenizerError::Encode {
            text: text.chars().take(60).collect(),
            what: cause.to_string(),
        };
        let special = self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair.is_some()));
        if max_length <= special {
            return Err(TokenizerError::Length { max_length, special });
        }
        let first = self.inner.encode_fast(text, false).map_err(failed)?;
        let second = pair.map(|pair| self.inner.encode_fast(pair, false)).transpose().map_err(failed)?;
        let second = second.map(|mut second| {
            second.set_type_ids(vec![1; second.len()]);
            second
        });

        let room = max_length - special;
        let truncated = first.len() + second.as_ref().map_or(0, |second| second.len()) > room;
        let params = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let (mut first, mut second) = truncate_encodings(first, second, &params).map_err(failed)?;
        // What was cut off is kept beside, and would be combined with every piece of the other text.
        first.take_overflowing();
        second.as_mut().map(|second| second.take_overflowing());
        let encoding = self.inner.post_process(first, second, true).map_err(failed)?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec(), truncated })
    }

    /// Tokenises one labelled example; its parts are one text or a pair of them, and at most one picture. The second
    /// value says whether its text was cut.
    ///
    /// # Errors
    /// As [`tokens`](Self::tokens), and for other parts or a missing label.
    pub fn encode(&self, example: &Example, max_length: usize) -> Result<(Encoded, bool), TokenizerError> {
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        for part in &example.parts {
            match part {
                Part::Text(text) => texts.push(text.as_str()),
                Part::Image(image) => images.push(image.clone()),
            }
        }
        let (text, pair) = match (texts.as_slice(), images.len()) {
            ([text], 0 | 1) => (text, None),
            ([text, pair], 0 | 1) => (text, Some(*pair)),
            _ => return Err(TokenizerError::Parts { texts: texts.len(), images: images.len() }),
        };
        let label = example.label.ok_or(TokenizerError::Unlabelled)?;
        let Tokens { ids, types, truncated } = self.tokens(text, pair, max_length)?;
        Ok((Encoded { ids, types, image: images.pop(), target: Target::Class(label) }, truncated))
    }

    /// Tokenises a set on all threads; the result is the same on any number of them.
    ///
    /// # Errors
    /// At the first example that [`encode`](Self::encode) refuses, with its index.
    pub fn encode_all(&self, examples: &[Example], max_length: usize) -> Result<EncodedSet, TokenizerError> {
        let encoded: Vec<_> = examples.par_iter().map(|example| self.encode(example, max_length)).collect();
        let mut set = EncodedSet { rows: Vec::with_capacity(examples.len()), truncated: 0 };
        for (index, row) in encoded.into_iter().enumerate() {
            let (row, truncated) = row.map_err(|cause| TokenizerError::Example { index, cause: Box::new(cause) })?;
            set.truncated += usize::from(truncated);
            set.rows.push(row);
        }
        Ok(set)
    }

    /// The text of some ids, special tokens left out.
    ///
    /// Ids of a byte-level vocabulary that end within a character give U+FFFD for its bytes.
    ///
    /// # Errors
    /// When an id is beyond the vocabulary, or the tokenizer's decoder refuses them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(TokenizerError::Id { id, vocabulary: self.vocab_size });
        }
        let failed = |cause: tokenizers::Error| TokenizerError::Encode {
            text: format!("{:?}", &ids[..ids.len().min(8)]),
            what: cause.to_string(),
        };
        self.inner.decode(ids, true).map_err(failed)
    }

    /// Writes `tokenizer.json` into a folder, byte for byte as it was read; a reader sees the old file or the new one
    /// and never a part.
    ///
    /// # Errors
    /// When the folder cannot be written to; nothing is left behind then.
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        let path = folder.join(FILE_NAME);
        let part = folder.join(format!("{FILE_NAME}.part"));
        let written = File::create(&part)
            .and_then(|mut file| file.write_all(&self.file).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&part, &path));
        written.map_err(|cause| {
            // The write has failed already, and its error is the one to show.
            let _ = std::fs::remove_file(&part);
            TokenizerError::Write { path, cause }
        })
    }
}

/// Refuses templates that name what there is not: `tokenizers` takes them from a file unchecked, and panics at the
/// first text.
fn check_templates(processor: &Value) -> Result<(), String> {
    let mut templates = Vec::new();
    find_templates(processor, &mut templates);
    let template = match templates.as_slice() {
        [] => return Ok(()),
        [template] => template,
        // The second would take the pieces that the first made for the texts.
        _ => return Err("its post-processor has more than one template".into()),
    };
    for form in ["single", "pair"] {
        for piece in template[form].as_array().into_iter().flatten() {
            let special = piece["SpecialToken"]["id"].as_str();
            if let Some(id) = special.filter(|&id| template["special_tokens"].get(id).is_none()) {
                return Err(format!("its template for a {form} names {id:?}, which is not among its special_tokens"));
            }
            if form == "single" && piece["Sequence"]["id"] == "B" {
                return Err("its template for a single text names a second one".into());
            }
        }
    }
    Ok(())
}

/// The templates in a post-processor, which may be a sequence of them. They are known by their fields, because
/// `tokenizers` takes one whose type is missing too.
fn find_templates<'a>(processor: &'a Value, found: &mut Vec<&'a Value>) {
    if processor.get("single").is_some() || processor.get("pair").is_some() {
        found.push(processor);
    }
    for inner in processor["processors"].as_array().into_iter().flatten() {
        find_templates(inner, found);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Picture, SpanAnswer, SpanQuestion, TagSet, TaggedSentence};

    const WORDS: [&str; 5] = ["a", "red", "circle", ".", "one"];

    fn words() -> Tokenizer {
        Tokenizer::from_words(&WORDS).unwrap()
    }

    fn load(json: &[u8]) -> Result<Tokenizer, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), json).unwrap();
        let prefix = format!("{}", folder.path().join("").display());
        Tokenizer::load(folder.path()).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    fn text_example(texts: &[&str]) -> Example {
        Example { parts: texts.iter().map(|text| Part::Text(text.to_string())).collect(), label: Some(1) }
    }

    #[test]
    fn words_and_pairs_have_berts_template() {
        let tokenizer = words();
        let tokens = tokenizer.tokens("A red circle.", None, 16).unwrap();
        assert_eq!(tokens, Tokens { ids: vec![2, 4, 5, 6, 7, 3], types: vec![0; 6], truncated: false });
        let tokens = tokenizer.tokens("red  circle", Some("a purple one"), 16).unwrap();
        assert_eq!(tokens.ids, [2, 5, 6, 3, 4, 1, 8, 3]);
        assert_eq!(tokens.types, [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!((tokenizer.pad_id().unwrap(), tokenizer.vocab_size(), tokenizer.id("circle")), (0, 9, Some(6)));
        assert_eq!(tokenizer.decode(&tokens.ids).unwrap(), "red circle a one");
    }

    #[test]
    fn long_texts_are_cut_and_counted() {
        let tokenizer = words();
        let tokens = tokenizer.tokens("a red circle one", None, 4).unwrap();
        assert_eq!((tokens.ids, tokens.truncated), (vec![2, 4, 5, 3], true));
        assert!(!tokenizer.tokens("a red circle one", None, 6).unwrap().truncated);
        // Of a pair, the longer text is cut first.
        let tokens = tokenizer.tokens("a red circle one", Some("red"), 6).unwrap();
        assert_eq!((tokens.ids, tokens.types), (vec![2, 4, 5, 3, 5, 3], vec![0, 0, 0, 0, 1, 1]));

        let set = [text_example(&["a"]), text_example(&["a a a a"]), text_example(&["a a", "a a a"])];
        let set = tokenizer.encode_all(&set, 5).unwrap();
        assert_eq!(set.truncated, 2);
        assert_eq!(set.rows.iter().map(|row| row.ids.len()).collect::<Vec<_>>(), [3, 5, 5]);
    }

    #[test]
    fn a_length_without_room_is_an_error() {
        for (pair, special) in [(None, 2), (Some("a"), 3)] {
            for max_length in 0..=special {
                let error = words().tokens("a", pair, max_length).unwrap_err();
                assert!(matches!(error, TokenizerError::Length { .. }), "{error}");
            }
        }
    }

    #[test]
    fn very_long_pairs_are_cut_quickly() {
        let text = "red ".repeat(20_000);
        assert_eq!(words().tokens(&text, Some(&text), 5).unwrap().ids, [2, 5, 3, 5, 3]);
    }

    #[test]
    fn other_parts_and_missing_labels_are_errors() {
        let picture = Part::Image(Arc::new(Picture { width: 1, height: 1, rgb: vec![0; 3] }));
        let with = |parts: Vec<Part>| words().encode(&Example { parts, label: Some(0) }, 9);
        let text = || Part::Text("a".into());
        assert!(with(vec![picture.clone(), text(), text()]).unwrap().0.image.is_some());
        for parts in [vec![], vec![picture.clone()], vec![text(); 3], vec![picture.clone(), picture, text()]] {
            assert!(matches!(with(parts).unwrap_err(), TokenizerError::Parts { .. }));
        }
        let set = [text_example(&["a"]), Example { label: None, ..text_example(&["a"]) }];
        let error = words().encode_all(&set, 9).unwrap_err();
        assert_eq!(error.to_string(), "example 1: the example has no label");
    }

    #[test]
    fn saved_and_loaded_it_is_the_same() {
        let (tokenizer, folder) = (words(), tempfile::tempdir().unwrap());
        tokenizer.save(folder.path()).unwrap();
        let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE_NAME]);
        let loaded = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(loaded.file, tokenizer.file);
        assert_eq!(loaded.tokens("a red", Some("one"), 9).unwrap(), tokenizer.tokens("a red", Some("one"), 9).unwrap());

        let error = tokenizer.save(&folder.path().join("none")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_not_applied() {
        let mut json: Value = serde_json::from_slice(&words().file).unwrap();
        json["truncation"] = json!({"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
        json["padding"] = json!({"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
                                 "pad_id": 1, "pad_type_id": 0, "pad_token": "[UNK]"});
        let tokenizer = load(json.to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.tokens("a red circle", None, 9).unwrap().ids, [2, 4, 5, 6, 3]);
        assert_eq!(tokenizer.pad_id().unwrap(), 1, "the file's own padding id");
        assert_eq!(tokenizer.file, json.to_string().as_bytes());
    }

    #[test]
    fn damaged_files_are_errors() {
        let missing = Tokenizer::load(Path::new("no such folder")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read no such folder"), "{missing}");
        assert!(missing.ends_with("a checkpoint folder needs its tokenizer.json"), "{missing}");

        let good = words().file;
        for bad in [&b""[..], b"{}", b"[]", b"null", b"\xff\xfe", b"{\"version\":\"2.0\"}"] {
            let message = load(bad).unwrap_err();
            assert!(message.starts_with("tokenizer.json is not a tokenizer: "), "{message}");
        }
        for end in (0..good.len()).step_by(7) {
            assert!(load(&good[..end]).is_err(), "cut at {end}");
        }
    }

    /// Every place of a JSON value, as pointers.
    fn places(value: &Value, at: String, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| places(value, format!("{at}/{key}"), found));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(index, value)| places(value, format!("{at}/{index}"), found));
            }
            _ => (),
        }
        found.push(at);
    }

    #[test]
    fn hostile_files_are_errors_and_never_panics() {
        let good: Value = serde_json::from_slice(&words().file).unwrap();
        let mut pointers = Vec::new();
        places(&good, String::new(), &mut pointers);
        let strange =
            [json!(null), json!(-1), json!(7), json!(u32::MAX), json!(u64::MAX), json!(""), json!([]), json!({})];
        let answers = vec![SpanAnswer { text: "red".into(), start_byte: 2 }];
        let passage = "a red circle. one purple".into();
        let questions = [SpanQuestion { id: "1".into(), question: "one?".into(), passage, answers }];
        let options = SpanOptions { max_length: 9, stride: 1, question_length: 2 };
        let words: Vec<String> = ["a", "purple", "circle.", ""].map(String::from).to_vec();
        let sentences = [TaggedSentence { tags: vec!["O".into(); words.len()], words }];
        let tags = TagSet::collect(&sentences).unwrap();
        let (mut refused, mut loaded) = (0, 0);
        for (pointer, value) in pointers.iter().flat_map(|pointer| strange.iter().map(move |value| (pointer, value))) {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = value.clone();
            match Tokenizer::from_bytes(bad.to_string().into_bytes()) {
                Err(_) => refused += 1,
                Ok(tokenizer) => {
                    loaded += 1;
                    for (pair, max_length) in [(None, 3), (Some("one purple a a"), 5), (Some("one"), 64)] {
                        let _ = tokenizer.tokens("a red circle.", pair, max_length);
                    }
                    let _ = tokenizer.decode(&[0, 5, 99, u32::MAX]);
                    let _ = tokenizer.span_windows(&questions, &options);
                    let _ = tokenizer.encode_tagged(&sentences, &tags, 4);
                }
            }
        }
        assert!(refused > 100 && loaded > 10, "{refused} {loaded}");
    }

    #[test]
    fn templates_that_name_what_there_is_not_are_refused() {
        let with = |pointer: &str, value: Value| {
            let mut json: Value = serde_json::from_slice(&words().file).unwrap();
            *json.pointer_mut(pointer).unwrap() = value;
            json
        };
        let repeated = |json: Value, times: usize| {
            let mut outer = json.clone();
            outer["post_processor"] = json!({"type": "Sequence", "processors": vec![&json["post_processor"]; times]});
            outer
        };
        let nested = |json: Value| repeated(json, 1);
        let missing = with("/post_processor/special_tokens", json!({}));
        let second = with("/post_processor/single/1/Sequence/id", json!("B"));
        let beyond = with("/post_processor/special_tokens/[SEP]/ids", json!([99]));
        for (json, what) in [
            (missing.clone(), "not among its special_tokens"),
            (nested(missing), "not among its special_tokens"),
            (second.clone(), "names a second one"),
            (nested(second), "names a second one"),
            (beyond, "special token of id 99, beyond its vocabulary"),
        ] {
            let message = load(json.to_string().as_bytes()).unwrap_err();
            assert!(message.contains(what), "{message}");
        }
        let good = with("/version", json!("1.0"));
        assert!(load(nested(good.clone()).to_string().as_bytes()).is_ok());
        let message = load(repeated(good, 2).to_string().as_bytes()).unwrap_err();
        assert!(message.contains("more than one template"), "{message}");
    }

    #[test]
    fn a_padding_token_is_needed_for_batches() {
        let mut json: Value = serde_json::from_slice(&words().file).unwrap();
        json["added_tokens"] = json!([]);
        json["model"]["vocab"] = json!({"[UNK]": 1, "[CLS]": 2, "[SEP]": 3});
        let message = load(json.to_string().as_bytes()).unwrap().pad_id().unwrap_err().to_string();
        assert!(message.contains("has no padding token ([PAD] or <pad>)"), "{message}");
        json["padding"] = json!({"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
                                 "pad_id": 9, "pad_type_id": 0, "pad_token": "[PAD]"});
        let message = load(json.to_string().as_bytes()).unwrap_err();
        assert!(message.contains("padding id 9 is not in its vocabulary"), "{message}");
    }

    #[test]
    fn words_that_would_never_be_found_are_refused() {
        for (word, what) in [
            ("", "would never be found"),
            ("Red", "would never be found"),
            ("red one", "would never be found"),
            ("it's", "would never be found"),
            ("a", "is listed twice"),
            ("[PAD]", "is listed twice"),
        ] {
            let error = Tokenizer::from_words(&["a", word]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
