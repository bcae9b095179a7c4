//! The examples of a run: training, validation and test parts, tokenized.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use lapidary_data::{Columns, Dataset, Example, Labels, Tokenizer, source};
use lapidary_models::ModelError;

use crate::recipe::{Format, Recipe, Roots};

/// Tokenized parts of a data set.
pub struct Examples {
    /// What the model is trained on.
    pub train: Dataset,
    /// What settings, checkpoints and early stops are chosen on.
    pub validation: Dataset,
    /// What is reported; read once a variant.
    pub test: Dataset,
    /// The tokenizer they were made with.
    pub tokenizer: Tokenizer,
    /// Examples that were longer than the limit and were cut, of each part.
    pub truncated: [usize; 3],
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
        let columns = Columns {
            text: data.text.clone(),
            pair: data.pair.clone(),
            label: data.label.clone(),
            // Files of GLUE write the classes as numbers.
            labels: Labels::Count(u32::try_from(recipe.model.labels.len()).context("too many labels")?),
        };
        let (train_file, dev_file) = (roots.data(&data.train)?, roots.data(&data.dev)?);
        let read = match data.format {
            Format::Tsv => source::tsv::read,
            Format::Jsonl => source::jsonl::read,
        };
        let mut train = read(&train_file, &columns)?;
        let test = read(&dev_file, &columns)?;
        ensure!(
            data.validation_rows < train.len(),
            "{}: {} rows, of which data.validation_rows = {} are to be kept out of training; lower it",
            train_file.display(),
            train.len(),
            data.validation_rows
        );
        let validation = train.split_off(train.len() - data.validation_rows);
        let files = vec![("train".to_owned(), train_file), ("test".to_owned(), dev_file)];
        Self::encode([&train, &validation, &test], tokenizer, data.max_length, files)
    }

    /// Tokenizes training, validation and test examples.
    pub fn encode(
        parts: [&[Example]; 3],
        tokenizer: Tokenizer,
        max_length: usize,
        files: Vec<(String, PathBuf)>,
    ) -> anyhow::Result<Self> {
        let [train, validation, test] = parts.map(|part| tokenizer.encode_all(part, max_length));
        let (train, validation, test) = (train?, validation?, test?);
        let truncated = [train.truncated, validation.truncated, test.truncated];
        if truncated.iter().sum::<usize>() > 0 {
            tracing::warn!("cut to {max_length} tokens: {truncated:?} examples of training, validation, test");
        }
        Ok(Self { train: train.rows, validation: validation.rows, test: test.rows, tokenizer, truncated, files })
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
        let rows = [&self.train, &self.validation, &self.test];
        let segment = rows.iter().flat_map(|rows| rows.iter()).flat_map(|row| &row.types).max().copied().unwrap_or(0);
        ensure!(
            (segment as usize) < segments,
            "the tokenizer marks segment {segment}, the model knows {segments}: they do not belong together"
        );
        let length = rows.into_iter().flatten().map(|row| row.ids.len()).max().unwrap_or(0);
        if length > positions {
            return Err(ModelError::TooLong { length, positions }.into());
        }
        Ok(())
    }
}
