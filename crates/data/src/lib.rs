//! Files to batches, and the metrics that score what comes back.
//!
//! The way of the data is one way: a [`source`] reads a file into [`Example`]s (or [`synth`] draws them), a
//! [`Tokenizer`] turns each into an [`Encoded`] row, [`batch`] groups the rows by length and [`Batch::collate`] pads a
//! group into the arrays that a model takes. [`metric`] compares what the model said with the labels.
//!
//! Plain text for pretraining has a way of its own: a [`TextSource`] streams [`Document`]s, [`Tokenizer::train`] makes a
//! vocabulary of them, [`pack`](pack::pack) writes their ids into a [`TokenStore`] and [`Windows`] draws from it.
//!
//! What a text is written from and the text to write are a [`Pair`]: [`source::pairs`], [`source::parallel`] and
//! [`source::squad`] read them, and [`ptb_words`] writes raw and tokenised ones in one form.
//!
//! Two more tasks have rows of their own on the way to a [`Batch`]. A [`SpanQuestion`] of SQuAD is cut into
//! [windows](SpanWindow) over its passage, and [`best_span`] joins what a model says of them to an answer. A
//! [`TaggedSentence`] of [`source::conll`] is divided into [rows](TaggedRow) where it is too long, and
//! [`TaggedSet::join`] gives one tag a word back.
//!
//! Everything random here is a pure function of a seed and a step, through [`lapidary_kernels::rng`]: the same seed
//! gives the same bytes on every machine.

pub mod augment;
pub mod batch;
pub mod english;
pub mod example;
pub mod metric;
pub mod pack;
pub mod pair;
pub mod picture;
pub mod source;
pub mod span;
pub mod store;
pub mod synth;
pub mod tag;
pub mod tokenizer;
pub mod windows;

pub use augment::{Augmentation, Normalization, PictureBatch};
pub use batch::{BatchOptions, SortedPlan};
pub use english::{ptb_words, sentences};
pub use example::{Batch, Dataset, Encoded, Example, Part, Target};
pub use metric::accuracy::Accuracy;
pub use pack::{PackOptions, Packed};
pub use pair::Pair;
pub use picture::Picture;
pub use source::{
    Columns, ConllColumns, DataError, Document, Labels, PairFields, PictureSet, QuestionSource, Questions,
    SpanQuestions, TargetArrays, TextSource,
};
pub use span::{SpanAnswer, SpanLogits, SpanPrediction, SpanQuestion, SpanSearch, best_span};
pub use store::TokenStore;
pub use tag::{TagScheme, TagSet, TaggedSentence};
pub use tokenizer::{
    Algorithm, SpanOptions, SpanSet, SpanWindow, TaggedRow, TaggedSet, Tokenizer, TokenizerConfig, TokenizerError,
};
pub use windows::Windows;
