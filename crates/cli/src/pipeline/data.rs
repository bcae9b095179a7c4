//! The examples of a run: training, validation and test parts, tokenized.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use lapidary_data::{Columns, Encoded, Example, Labels, SpanOptions, Tokenizer, source};
use lapidary_models::{ModelError, Task};

use crate::examples::{Form, Part, Raw, tags_of};
use crate::recipe::{Data, Format, Recipe, Roots};

/// Tokenized parts of a data set.
pub struct Examples {
    /// What they are for.
    pub task: Task,
    /// What the model is trained on.
    pub train: Vec<Encoded>,
    /// What settings, checkpoints and early stops are chosen on.
    pub validation: Part,
    /// What is reported; read once a variant.
    pub test: Part,
    /// The tokenizer they were made with.
    pub tokenizer: Tokenizer,
    /// What was left out of files, and what the greatest length did to the examples of each part: for the report.
    pub losses: Vec<String>,
    /// The files they came from, for the stages' digests.
    pub files: Vec<(String, PathBuf)>,
}

impl Examples {
    /// Reads and tokenizes what a recipe names.
    ///
    /// # Errors
    /// A missing or malformed file (with its line), too few rows for a validation part, a tokenizer that does not fit.
    pub fn of_recipe(recipe: &Recipe, roots: &Roots, tokenizer: Tokenizer) -> anyhow::Result<Self> {
        let data = &recipe.data;
        let form = form(data, recipe.model.labels.len())?;
        let found = |files: &[String]| files.iter().map(|file| roots.data(file)).collect::<Result<Vec<_>, _>>();
        let (train_files, test_file) = (found(data.train.names())?, roots.data(&data.dev)?);
        let validation_files = data.validation.as_ref().map(|files| found(files.names())).transpose()?;

        let (mut train, mut losses) = Raw::read(&train_files, &form)?;
        let (test, left_out) = Raw::read(std::slice::from_ref(&test_file), &form)?;
        losses.extend(left_out);
        let validation = match &validation_files {
            Some(files) => {
                let (validation, left_out) = Raw::read(files, &form)?;
                losses.extend(left_out);
                validation
            }
            None => {
                let kept_out = data.kept_out();
                let named: Vec<_> = train_files.iter().map(|file| file.display().to_string()).collect();
                ensure!(
                    kept_out < train.len(),
                    "{}: {} {}, of which data.validation_rows = {kept_out} are to be kept out of training; lower it",
                    named.join(", "),
                    train.len(),
                    train.noun(),
                );
                train.split_off(train.len() - kept_out)
            }
        };

        let labels = recipe.model.labels.clone();
        let task = match data.format {
            Format::Tsv | Format::Jsonl => Task::Classes(labels),
            Format::Squad => Task::Spans,
            Format::Conll => Task::Tags(if labels.is_empty() { tags_of(&train)? } else { labels }),
        };
        let numbered = |role: &str, files: Vec<PathBuf>| -> Vec<(String, PathBuf)> {
            let name = |number| if files.len() == 1 { role.to_owned() } else { format!("{role} {number}") };
            let names: Vec<String> = (0..files.len()).map(name).collect();
            names.into_iter().zip(files).collect()
        };
        let mut files = numbered("train", train_files);
        files.extend(numbered("validation", validation_files.unwrap_or_default()));
        files.push(("test".to_owned(), test_file));
        let mut examples = Self::encode([train, validation, test], task, tokenizer, &data.lengths(), files)?;
        losses.append(&mut examples.losses);
        Ok(Self { losses, ..examples })
    }

    /// Training, validation and test examples of classes that are in memory.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode_all`].
    pub fn classes(
        parts: [Vec<Example>; 3],
        labels: Vec<String>,
        tokenizer: Tokenizer,
        max_length: usize,
    ) -> anyhow::Result<Self> {
        let lengths = SpanOptions { max_length, ..SpanOptions::default() };
        Self::encode(parts.map(Raw::Classes), Task::Classes(labels), tokenizer, &lengths, Vec::new())
    }

    fn encode(
        parts: [Raw; 3],
        task: Task,
        tokenizer: Tokenizer,
        lengths: &SpanOptions,
        files: Vec<(String, PathBuf)>,
    ) -> anyhow::Result<Self> {
        let [train, validation, test] = parts.map(|part| part.encode(&tokenizer, lengths, task.labels()));
        let (train, validation, test) = (train?, validation?, test?);
        let mut losses = Vec::new();
        for (name, part) in [("Training", &train), ("Validation", &validation), ("Test", &test)] {
            losses.extend(part.losses(lengths.max_length).into_iter().map(|lost| format!("{name}: {lost}.")));
        }
        for lost in &losses {
            tracing::warn!("{lost}");
        }
        Ok(Self { task, train: train.into_rows(), validation, test, tokenizer, losses, files })
    }

    /// Whether a model has a vector for every token, place and segment.
    ///
    /// # Errors
    /// A vocabulary larger than the model's, an input longer than its positions, a segment beyond its own.
    pub fn check(&self, vocabulary: usize, positions: usize, segments: usize) -> anyhow::Result<()> {
        ensure!(
            self.tokenizer.vocab_size() <= vocabulary,
            "the tokenizer has {} tokens, the model's table {vocabulary}: they do not belong together",
            self.tokenizer.vocab_size()
        );
        let segment = self.rows().flat_map(|row| &row.types).max().copied().unwrap_or(0);
        ensure!(
            (segment as usize) < segments,
            "the tokenizer marks segment {segment}, the model knows {segments}: they do not belong together"
        );
        let length = self.rows().map(|row| row.ids.len()).max().unwrap_or(0);
        if length > positions {
            return Err(ModelError::TooLong { length, positions }.into());
        }
        Ok(())
    }

    /// All rows of all parts.
    pub fn rows(&self) -> impl Iterator<Item = &Encoded> {
        self.train.iter().chain(self.validation.rows()).chain(self.test.rows())
    }
}

/// How a recipe's files are read.
fn form(data: &Data, labels: usize) -> anyhow::Result<Form> {
    let columns = || -> anyhow::Result<Columns> {
        let named = |column: &Option<String>| column.clone().context("the recipe names no column");
        Ok(Columns {
            text: named(&data.text)?,
            pair: data.pair.clone(),
            label: named(&data.label)?,
            // Files of GLUE write the classes as numbers.
            labels: Labels::Count(u32::try_from(labels).context("too many labels")?),
        })
    };
    Ok(match data.format {
        Format::Tsv => Form::Table(source::tsv::read, columns()?),
        Format::Jsonl => Form::Table(source::jsonl::read, columns()?),
        Format::Squad => Form::Answers,
        Format::Conll => Form::Tagged(data.columns.unwrap_or_default()),
    })
}
