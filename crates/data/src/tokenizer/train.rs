//! Vocabularies of one's own: byte-level BPE and unigram, trained on a user's text.
//!
//! Both are made of bytes. The text is cut into words by the regex of GPT-2, each byte of a word becomes one of 256
//! printable characters (Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.2),
//! and the trainer joins these. All 256 are in every vocabulary, so no text is unknown, and every text comes back as
//! it was. BPE joins the most frequent pair again and again (Sennrich, Haddow and Birch, "Neural machine translation
//! of rare words with subword units", 2016, algorithm 1); unigram begins with all frequent pieces and drops those that
//! the likelihood of the text misses least (Kudo, "Subword regularization", 2018, section 3.2).
//!
//! The same text gives the same file, byte for byte, in whatever order the trainers' hash tables are walked and on
//! whatever number of threads. (Scores of a unigram are sums of logarithms: those may differ in their last digits
//! between mathematical libraries.)

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::plain::pieces;
use super::{Tokenizer, TokenizerError};

/// The special tokens of a vocabulary that names none: padding, beginning and end of a document, and what stands
/// between two parts of an example. Their ids are 0 to 3.
pub const SPECIAL: [&str; 4] = ["<pad>", "<bos>", "<eos>", "<sep>"];

/// The largest vocabulary.
pub const MAX_VOCABULARY: usize = 1 << 20;

/// The most text that is counted: the trainers count in 31 bits.
pub const MAX_TRAINING_BYTES: u64 = i32::MAX as u64;

/// The most different words.
pub const MAX_WORDS: usize = 1 << 24;

/// Bytes of a word that are learned together. A longer one, such as a picture in base64, is learned in parts of this
/// length, because the trainers' work grows with the square of it; it is encoded whole.
const WORD_BYTES: usize = 256;

/// Bytes of text that are cut into words at a time.
const BATCH_BYTES: usize = 8 << 20;

/// A pair or piece that stands but once in all of the text is not worth a token.
const MIN_FREQUENCY: u64 = 2;

/// How a vocabulary is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// Byte-pair encoding.
    #[default]
    Bpe,
    /// A unigram language model.
    Unigram,
}

/// What tokenizer to train.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// How its vocabulary is found.
    pub algorithm: Algorithm,
    /// Tokens in all: the special ones, the 256 bytes, and what is learned.
    pub vocabulary: usize,
    /// Special tokens, whose ids count from 0. `<pad>` has to be among them.
    ///
    /// Each is `<`, printable ASCII with at least one letter or digit, and `>`. No word of a text has both, so no
    /// text, however it is encoded, can come to have the id of a special token.
    #[serde(default = "default_special")]
    pub special: Vec<String>,
}

fn default_special() -> Vec<String> {
    SPECIAL.map(String::from).to_vec()
}

impl TokenizerConfig {
    /// A vocabulary with the usual [special tokens](SPECIAL).
    pub fn new(algorithm: Algorithm, vocabulary: usize) -> TokenizerConfig {
        TokenizerConfig { algorithm, vocabulary, special: default_special() }
    }

    fn check(&self) -> Result<(), TokenizerError> {
        let fail = |what: String| Err(TokenizerError::Config { what });
        for (at, token) in self.special.iter().enumerate() {
            let inside = token.strip_prefix('<').and_then(|token| token.strip_suffix('>')).unwrap_or("");
            let printable = token.len() <= 64 && inside.bytes().all(|byte| byte.is_ascii_graphic());
            if !printable || !inside.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
                return fail(format!(
                    "special token {token:?} is not of the form <name>, in printable ASCII without spaces, of at most \
                     64 characters, a letter or digit among them"
                ));
            }
            if self.special[..at].contains(token) {
                return fail(format!("special token {token:?} is listed twice"));
            }
        }
        if !self.special.iter().any(|token| token == "<pad>") {
            return fail("<pad> has to be among the special tokens".into());
        }
        // The unigram trainer cannot stop at the bytes alone.
        let least = self.special.len() + 256 + usize::from(self.algorithm == Algorithm::Unigram);
        if !(least..=MAX_VOCABULARY).contains(&self.vocabulary) {
            return fail(format!(
                "a vocabulary of {}, where {} special tokens and 256 bytes leave {least} to {MAX_VOCABULARY}",
                self.vocabulary,
                self.special.len()
            ));
        }
        Ok(())
    }
}

impl Tokenizer {
    /// Trains a vocabulary on texts, each of them read once and none of them kept.
    ///
    /// A vocabulary has exactly the size that was asked for, or there is an error that says how large it could be.
    ///
    /// # Errors
    /// When the config contradicts itself, a text cannot be had, there is none, there is more than
    /// [`MAX_TRAINING_BYTES`] or [`MAX_WORDS`], or it does not fill the vocabulary.
    pub fn train<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        texts: impl IntoIterator<Item = Result<String, E>>,
        config: &TokenizerConfig,
    ) -> Result<Tokenizer, TokenizerError> {
        config.check()?;
        let words = count_words(texts)?;
        let special: Vec<_> = config.special.iter().map(|token| AddedToken::from(token.as_str(), true)).collect();
        let model = match config.algorithm {
            Algorithm::Bpe => bpe(&words, config.vocabulary, &special)?,
            Algorithm::Unigram => unigram(words, config.vocabulary, &special)?,
        };
        let tokenizer =
            Tokenizer::from_bytes(file(model, &config.special)).map_err(|what| TokenizerError::Train { what })?;
        match tokenizer.vocab_size() {
            found if found == config.vocabulary => Ok(tokenizer),
            found => Err(TokenizerError::Scarce { wanted: config.vocabulary, found }),
        }
    }
}

/// Words in the printable characters of their bytes, in order, with the number of times that each was seen.
fn count_words<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    texts: impl IntoIterator<Item = Result<String, E>>,
) -> Result<BTreeMap<String, u32>, TokenizerError> {
    let mut words = HashMap::new();
    let (mut batch, mut batch_bytes, mut bytes) = (Vec::new(), 0, 0);
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.map_err(|cause| TokenizerError::Text { index: index as u64, cause: cause.into() })?;
        batch_bytes += text.len();
        bytes += text.len() as u64;
        batch.push(text);
        if bytes > MAX_TRAINING_BYTES {
            return Err(TokenizerError::TooMuchText {
                what: format!("there are more than {MAX_TRAINING_BYTES} bytes"),
            });
        }
        if batch_bytes >= BATCH_BYTES {
            add(&mut words, count_batch(&batch)?);
            (batch, batch_bytes) = (Vec::new(), 0);
        }
        if words.len() > MAX_WORDS {
            return Err(TokenizerError::TooMuchText {
                what: format!("there are more than {MAX_WORDS} different words"),
            });
        }
    }
    add(&mut words, count_batch(&batch)?);
    match words.is_empty() {
        true => Err(TokenizerError::NoText),
        false => Ok(words.into_iter().collect()),
    }
}

fn count_batch(texts: &[String]) -> Result<HashMap<String, u32>, TokenizerError> {
    let pieces: Vec<&str> = texts.iter().flat_map(|text| pieces(text, 64 << 10)).collect();
    let counted = pieces.par_iter().map(|piece| count_piece(piece)).try_reduce(HashMap::new, |mut left, right| {
        add(&mut left, right);
        Ok(left)
    });
    counted.map_err(|cause| TokenizerError::Train { what: cause.to_string() })
}

fn count_piece(text: &str) -> tokenizers::Result<HashMap<String, u32>> {
    let mut words = PreTokenizedString::from(text);
    ByteLevel::new(false, true, true).pre_tokenize(&mut words)?;
    let mut counts = HashMap::new();
    for (mut word, ..) in words.get_splits(OffsetReferential::Original, OffsetType::None) {
        while let Some((end, _)) = word.char_indices().nth(WORD_BYTES) {
            *counts.entry(word[..end].to_owned()).or_default() += 1;
            word = &word[end..];
        }
        if !word.is_empty() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Sums are exact, so the order in which threads are done does not matter.
fn add(into: &mut HashMap<String, u32>, counts: HashMap<String, u32>) {
    for (word, count) in counts {
        *into.entry(word).or_default() += count;
    }
}

/// The 256 characters that stand for bytes.
fn bytes() -> impl Iterator<Item = char> {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    alphabet.into_iter()
}

fn bpe(words: &BTreeMap<String, u32>, vocabulary: usize, special: &[AddedToken]) -> Result<Value, TokenizerError> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(MIN_FREQUENCY)
        .special_tokens(special.to_vec())
        .initial_alphabet(bytes().collect())
        .show_progress(false)
        .build();
    // The trainer takes texts and a function that cuts them into words. The words are cut and counted already, so a
    // "text" is a word with its number, a large number in parts; no word has a space in it.
    const REPEATS: u32 = 1 << 12;
    let repeated = words.iter().flat_map(|(word, &count)| {
        let parts = (0..count.div_ceil(REPEATS)).map(move |part| REPEATS.min(count - part * REPEATS));
        parts.map(move |count| format!("{count} {word}"))
    });
    let repeat = |text: &str| {
        let (count, word) = text.split_once(' ').ok_or("a word without its number")?;
        Ok(vec![word.to_owned(); count.parse()?])
    };
    let mut model = BPE::default();
    let trained = trainer.feed(repeated, repeat).and_then(|()| trainer.train(&mut model));
    trained.map_err(|cause| TokenizerError::Train { what: cause.to_string() })?;
    serde_json::to_value(&model).map_err(|cause| TokenizerError::Train { what: cause.to_string() })
}

fn unigram(words: BTreeMap<String, u32>, vocabulary: usize, special: &[AddedToken]) -> Result<Value, TokenizerError> {
    let failed = |what: String| TokenizerError::Train { what };
    let trainer = UnigramTrainer::builder()
        .vocab_size(vocabulary as u32)
        .special_tokens(special.to_vec())
        .show_progress(false)
        .build()
        .map_err(|cause| failed(cause.to_string()))?;
    // Each byte once more, as a word of its own: then none is ever dropped, and its score comes from counting. The
    // trainer would put dropped ones back with scores that depend on the order of a hash table.
    let words = words.into_iter().chain(bytes().map(|byte| (byte.to_string(), 1))).collect();
    // On one thread, since sums of floats depend on how threads divide them.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|cause| failed(cause.to_string()))?;
    let mut model = Unigram::default();
    pool.install(|| trainer.do_train(words, &mut model)).map_err(|cause| failed(cause.to_string()))?;

    // Pieces of equal score are in the order of a hash table.
    let mut pieces: Vec<&(String, f64)> = model.iter().skip(special.len()).collect();
    pieces.sort_by(|(a, score_a), (b, score_b)| score_b.total_cmp(score_a).then_with(|| a.cmp(b)));
    let special = model.iter().take(special.len());
    let vocabulary: Vec<_> = special.chain(pieces).collect();
    Ok(json!({"type": "Unigram", "unk_id": null, "vocab": vocabulary, "byte_fallback": false}))
}

/// A `tokenizer.json`, whose special tokens are the first of the model.
fn file(model: Value, special: &[String]) -> Vec<u8> {
    let added: Vec<_> = (special.iter().enumerate())
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": model,
    });
    format!("{file:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Text of a made-up language, in which some words and syllables are frequent.
    fn text(documents: u64) -> Vec<String> {
        const SYLLABLES: [&str; 12] = ["ka", "lo", "mi", "ren", "tu", "é", "shi", "or", "ab", "nn", "ü", "the"];
        let document = |index| {
            let mut stream = lapidary_kernels::rng::Stream::new(7, index);
            let mut document = String::new();
            for _ in 0..200 {
                // Small numbers are frequent.
                let word = stream.below(400).min(stream.below(400));
                (0..1 + word % 4).for_each(|at| document += SYLLABLES[(word >> at) % 12]);
                document += [" ", " ", " ", ", ", ".\n", " 12 "][stream.below(6)];
            }
            document
        };
        (0..documents).map(document).collect()
    }

    fn train(texts: &[String], config: &TokenizerConfig) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::train(texts.iter().map(|text| Ok::<_, Infallible>(text.clone())), config)
    }

    fn both(vocabulary: usize) -> [Tokenizer; 2] {
        [Algorithm::Bpe, Algorithm::Unigram]
            .map(|algorithm| train(&text(30), &TokenizerConfig::new(algorithm, vocabulary)).unwrap())
    }

    #[test]
    fn a_vocabulary_has_the_size_that_was_asked_for_and_special_tokens_first() {
        for tokenizer in both(330) {
            assert_eq!(tokenizer.vocab_size(), 330);
            assert_eq!(SPECIAL.map(|token| tokenizer.id(token)), [Some(0), Some(1), Some(2), Some(3)]);
            assert_eq!(tokenizer.pad_id().unwrap(), 0);
            let (sample, bytes) = (&text(31)[30], text(31)[30].len());
            let ids = tokenizer.encode_text(sample).unwrap();
            assert!(ids.len() * 2 < bytes, "{} tokens for {bytes} bytes: nothing was learned", ids.len());
        }
    }

    #[test]
    fn special_tokens_in_a_users_text_are_text() {
        for tokenizer in both(300) {
            let text = "a<eos>b <pad><pad> <bos>";
            let ids = tokenizer.encode_text(text).unwrap();
            assert!(ids.iter().all(|&id| id >= 4), "{ids:?}");
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);

            let meant = tokenizer.encode_with_special(text).unwrap();
            assert_eq!(meant.iter().filter(|&&id| id < 4).copied().collect::<Vec<_>>(), [2, 0, 0, 1]);
            assert_eq!(tokenizer.decode(&meant).unwrap(), "ab  ");
        }
    }

    /// Were the special tokens the most frequent words of the text, they would still be no words.
    #[test]
    fn special_tokens_in_the_training_text_are_not_learned() {
        let texts = ["<eos><UNK>hello<eos> <eos> <hello>".repeat(50) + &text(1)[0]];
        for algorithm in [Algorithm::Bpe, Algorithm::Unigram] {
            let mut config = TokenizerConfig::new(algorithm, 275);
            config.special.push("<hello>".into());
            let tokenizer = train(&texts, &config).unwrap();
            let ids = tokenizer.encode_text(&texts[0]).unwrap();
            assert!(ids.iter().all(|&id| id > 4));
            assert_eq!(tokenizer.decode(&ids).unwrap(), texts[0]);
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(
            text in prop_oneof![
                any::<String>(),
                r"[ \n\t\x00\r'a-c1<>|é\u{301}\u{200d}\u{a0}\u{feff}\u{fffd}\u{10ffff}😀👩🏽]{0,60}",
                "(<pad>|<eos>|<0x00>|<UNK>|Ġ|▁| |a){0,20}",
            ],
        ) {
            use std::sync::OnceLock;
            static BOTH: OnceLock<[Tokenizer; 2]> = OnceLock::new();
            for tokenizer in BOTH.get_or_init(|| both(300)) {
                let ids = tokenizer.encode_text(&text).unwrap();
                prop_assert!(ids.iter().all(|id| (4..300).contains(id)));
                prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_str());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn whatever_the_text_is_training_ends(
            texts in prop::collection::vec(prop_oneof![any::<String>(), "[ab]{0,300}", "(<UNK>| |\0|aa){0,40}"], 0..5),
            vocabulary in 0usize..300,
        ) {
            for algorithm in [Algorithm::Bpe, Algorithm::Unigram] {
                match train(&texts, &TokenizerConfig::new(algorithm, vocabulary)) {
                    Ok(tokenizer) => {
                        prop_assert_eq!(tokenizer.vocab_size(), vocabulary);
                        for text in &texts {
                            let ids = tokenizer.encode_text(text).unwrap();
                            prop_assert_eq!(&tokenizer.decode(&ids).unwrap(), text);
                        }
                    }
                    Err(TokenizerError::Config { .. }) => prop_assert!(vocabulary <= 260),
                    Err(TokenizerError::NoText) => prop_assert!(texts.concat().is_empty()),
                    Err(TokenizerError::Scarce { found, .. }) => prop_assert!(found < vocabulary),
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
            }
        }
    }

    #[test]
    fn long_words_and_white_space_are_learned_and_encoded() {
        let texts = ["ab".repeat(100_000), " ".repeat(300_000), format!("{}x", "\n".repeat(3_000_000)), "é".repeat(90)];
        for algorithm in [Algorithm::Bpe, Algorithm::Unigram] {
            let tokenizer = train(&texts, &TokenizerConfig::new(algorithm, 262)).unwrap();
            for text in &texts {
                let ids = tokenizer.encode_text(text).unwrap();
                assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
            }
        }
    }

    #[test]
    fn a_text_in_pieces_has_the_ids_of_the_whole() {
        for tokenizer in both(300) {
            let text = text(40).concat() + &" \n".repeat(50_000) + "'s end";
            assert!(pieces(&text, 64 << 10).count() > 1);
            assert_eq!(tokenizer.encode_text(&text).unwrap(), tokenizer.encode_with_special(&text).unwrap());
        }
    }

    #[test]
    fn the_same_text_gives_the_same_file() {
        // Few letters make many tokens that arise in two ways, where the order of a queue could show.
        let mut stream = lapidary_kernels::rng::Stream::new(1, 0);
        let mut words = |count: usize| {
            let word = |stream: &mut lapidary_kernels::rng::Stream| {
                (0..3 + stream.below(30)).map(|_| ['a', 'b'][stream.below(2)]).collect::<String>()
            };
            (0..count).map(|_| word(&mut stream)).collect::<Vec<_>>().join(" ")
        };
        let texts = [words(300), text(10).concat()];
        for algorithm in [Algorithm::Bpe, Algorithm::Unigram] {
            let config = TokenizerConfig::new(algorithm, 420);
            let first = train(&texts, &config).unwrap();
            for _ in 0..3 {
                assert!(train(&texts, &config).unwrap().file == first.file);
            }
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert!(one.install(|| train(&texts, &config)).unwrap().file == first.file);
        }
    }

    #[test]
    fn what_cannot_be_trained_is_said() {
        let message = |texts: &[String], config: &TokenizerConfig| train(texts, config).unwrap_err().to_string();
        let config = |vocabulary| TokenizerConfig::new(Algorithm::Bpe, vocabulary);
        assert_eq!(
            message(&text(1), &config(259)),
            "no tokenizer can be trained so: a vocabulary of 259, where 4 special tokens and 256 bytes leave 260 to \
             1048576"
        );
        assert_eq!(train(&text(1), &config(260)).unwrap().vocab_size(), 260);
        assert_eq!(message(&[], &config(300)), "there is no text to train a tokenizer on");
        assert_eq!(message(&[String::new()], &config(300)), "there is no text to train a tokenizer on");
        assert_eq!(
            message(&["aa aa aa".into()], &config(300)),
            "the text gives 262 tokens, special ones and bytes included, and not 300: ask for fewer"
        );
        let mut special = config(300);
        for (tokens, what) in [
            (vec!["<eos>"], "<pad> has to be among the special tokens"),
            (vec!["<pad>", "<pad>"], "special token \"<pad>\" is listed twice"),
            (vec!["<pad>", "the"], "special token \"the\" is not of the form <name>"),
            (vec!["<pad>", "<>"], "special token \"<>\" is not of the form <name>"),
            (vec!["<pad>", "<|>"], "special token \"<|>\" is not of the form <name>"),
            (vec!["<pad>", "<a b>"], "special token \"<a b>\" is not of the form <name>"),
            (vec!["<pad>", "<é>"], "special token \"<é>\" is not of the form <name>"),
        ] {
            special.special = tokens.into_iter().map(String::from).collect();
            assert!(message(&text(1), &special).contains(what), "{what}");
        }
        let broken = [Ok("a".to_string()), Err("the disk is gone")];
        let error = Tokenizer::train(broken, &config(300)).unwrap_err();
        assert_eq!(error.to_string(), "training text 1: the disk is gone");
    }

    #[test]
    fn a_config_is_readable_from_a_recipe() {
        let config: TokenizerConfig = toml::from_str("algorithm = 'unigram'\nvocabulary = 8000").unwrap();
        assert_eq!(config, TokenizerConfig::new(Algorithm::Unigram, 8000));
        assert!(toml::from_str::<TokenizerConfig>("algorithm = 'wordpiece'\nvocabulary = 8000").is_err());
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_an_error() {
        let [tokenizer, _] = both(300);
        let error = tokenizer.decode(&[70, 300]).unwrap_err();
        assert_eq!(error.to_string(), "id 300 is beyond the vocabulary of 300 tokens");
    }
}
