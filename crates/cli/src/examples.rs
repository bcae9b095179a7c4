//! Examples of every task that a classifier has a head for: from files to rows, and what is needed to score them.

use std::path::PathBuf;

use anyhow::Context;
use lapidary_data::source::{self, conll, squad};
use lapidary_data::{
    Columns, ConllColumns, DataError, Encoded, Example, SpanOptions, SpanQuestion, SpanSet, TagSet, TaggedSentence,
    TaggedSet, Tokenizer,
};
use lapidary_models::Task;

/// How files are read.
pub enum Form {
    /// Tables with a column of classes.
    Table(TableReader, Columns),
    /// SQuAD's: answers in passages.
    Answers,
    /// CoNLL's: tagged words.
    Tagged(ConllColumns),
}

/// Of `.tsv`, of `.jsonl`, or of either by its name.
pub type TableReader = fn(&std::path::Path, &Columns) -> Result<Vec<Example>, DataError>;

impl Form {
    /// What a model of a task reads. The columns are those of tables, whose format follows from their names.
    pub fn of(task: &Task, columns: Columns) -> Self {
        match task {
            Task::Classes(_) => Self::Table(source::read, columns),
            Task::Spans => Self::Answers,
            Task::Tags(_) => Self::Tagged(ConllColumns::default()),
        }
    }
}

/// Examples as files have them.
pub enum Raw {
    Classes(Vec<Example>),
    Spans(Vec<SpanQuestion>),
    Tags(Vec<TaggedSentence>),
}

impl Raw {
    /// Reads files, one after the other; also gives what was left out.
    ///
    /// # Errors
    /// The first file that cannot be read, with its line.
    pub fn read(files: &[PathBuf], form: &Form) -> anyhow::Result<(Self, Vec<String>)> {
        let mut left_out = Vec::new();
        let read = match form {
            Form::Table(read, columns) => Self::Classes(all(files, |file| read(file, columns))?),
            Form::Tagged(columns) => Self::Tags(all(files, |file| conll::read(file, columns))?),
            Form::Answers => {
                let mut questions = Vec::new();
                for file in files {
                    let found = squad::read_spans(file)?;
                    questions.extend(found.questions);
                    if found.impossible > 0 {
                        left_out.push(format!(
                            "{}: {} questions are marked as impossible and were left out.",
                            file.display(),
                            found.impossible
                        ));
                    }
                }
                Self::Spans(questions)
            }
        };
        Ok((read, left_out))
    }

    /// Rows of a table, questions or sentences.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(examples) => examples.len(),
            Self::Spans(questions) => questions.len(),
            Self::Tags(sentences) => sentences.len(),
        }
    }

    /// What they are called.
    pub fn noun(&self) -> &'static str {
        match self {
            Self::Classes(_) => "rows",
            Self::Spans(_) => "questions",
            Self::Tags(_) => "sentences",
        }
    }

    /// Takes the examples from number `at` on away.
    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Classes(examples) => Self::Classes(examples.split_off(at)),
            Self::Spans(questions) => Self::Spans(questions.split_off(at)),
            Self::Tags(sentences) => Self::Tags(sentences.split_off(at)),
        }
    }

    /// Tokenizes the examples; `tags` are those of the task, where it has some.
    ///
    /// # Errors
    /// Options without room for text, a tag that is not listed, a text that the vocabulary cannot write.
    pub fn encode(self, tokenizer: &Tokenizer, options: &SpanOptions, tags: &[String]) -> anyhow::Result<Part> {
        Ok(match self {
            Self::Classes(examples) => {
                let set = tokenizer.encode_all(&examples, options.max_length)?;
                Part::Classes { rows: set.rows, truncated: set.truncated }
            }
            Self::Spans(questions) => {
                let windows = tokenizer.span_windows(&questions, options)?;
                Part::Spans { questions, windows }
            }
            Self::Tags(sentences) => {
                let tags = TagSet::new(tags.to_vec())?;
                let rows = tokenizer.encode_tagged(&sentences, &tags, options.max_length)?;
                Part::Tags { sentences, rows, tags }
            }
        })
    }
}

fn all<T>(
    files: &[PathBuf],
    read: impl Fn(&std::path::Path) -> Result<Vec<T>, DataError>,
) -> Result<Vec<T>, DataError> {
    files
        .iter()
        .map(|file| read(file))
        .collect::<Result<Vec<_>, _>>()
        .map(|parts| parts.into_iter().flatten().collect())
}

/// Tokenized examples with what is needed to score what a model says of them.
pub enum Part {
    /// Each row has its class.
    Classes { rows: Vec<Encoded>, truncated: usize },
    /// Windows over passages, and the questions that they belong to.
    Spans { questions: Vec<SpanQuestion>, windows: SpanSet },
    /// Rows of words, and the sentences that they are parts of.
    Tags { sentences: Vec<TaggedSentence>, rows: TaggedSet, tags: TagSet },
}

impl Part {
    /// What a model reads.
    pub fn rows(&self) -> Vec<&Encoded> {
        match self {
            Self::Classes { rows, .. } => rows.iter().collect(),
            Self::Spans { windows, .. } => windows.windows.iter().map(|window| &window.row).collect(),
            Self::Tags { rows, .. } => rows.rows.iter().map(|row| &row.row).collect(),
        }
    }

    /// The rows alone, for training.
    pub fn into_rows(self) -> Vec<Encoded> {
        match self {
            Self::Classes { rows, .. } => rows,
            Self::Spans { windows, .. } => windows.windows.into_iter().map(|window| window.row).collect(),
            Self::Tags { rows, .. } => rows.rows.into_iter().map(|row| row.row).collect(),
        }
    }

    /// What the lengths did to the examples, a sentence each; `max_length` is that of the rows.
    pub fn losses(&self, max_length: usize) -> Vec<String> {
        let counts = match self {
            Self::Classes { truncated, .. } => vec![(*truncated, format!("examples were cut to {max_length} tokens"))],
            Self::Spans { windows, .. } => vec![
                (windows.cut_questions, "questions were cut".to_owned()),
                (windows.unanswerable, "questions have no window that holds the whole answer".to_owned()),
            ],
            Self::Tags { rows, .. } => vec![
                (rows.divided, format!("sentences were divided into rows of {max_length} tokens")),
                (rows.cut_words, "words are longer than a row and were cut".to_owned()),
                (rows.tokenless, "words have no token and count as outside of entities".to_owned()),
            ],
        };
        counts.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// The tags that training sentences have, for a recipe that names none.
///
/// # Errors
/// A tag that says nothing of entities.
pub fn tags_of(raw: &Raw) -> anyhow::Result<Vec<String>> {
    match raw {
        Raw::Tags(sentences) => Ok(TagSet::collect(sentences).context("cannot list the tags")?.names().to_vec()),
        Raw::Classes(_) | Raw::Spans(_) => Ok(Vec::new()),
    }
}
