//! The pairs of a task: read, written in one form, split, turned into tokens.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::ensure;
use lapidary_data::pair::{self, Pair};
use lapidary_data::source::pairs::{PairFields, TargetArrays};
use lapidary_data::source::squad::QuestionSource;
use lapidary_data::{Tokenizer, source};
use lapidary_train::{CanvasLayout, TextPair};
use serde::{Deserialize, Serialize};

use super::prompt::Marks;
use crate::recipe::{Form, PairFiles, PairFormat, QuestionShape, Roots, Task, TooLong};

/// The files of a task, which are there.
#[derive(Clone, Debug)]
pub struct TaskFiles {
    pub train: Vec<Vec<PathBuf>>,
    pub test: Vec<PathBuf>,
}

impl TaskFiles {
    /// # Errors
    /// One that is missing.
    pub fn find(task: &Task, roots: &Roots) -> anyhow::Result<Self> {
        let find = |files: &PairFiles| -> anyhow::Result<Vec<PathBuf>> {
            Ok(files.files.iter().map(|file| roots.data(file)).collect::<Result<_, _>>()?)
        };
        Ok(Self { train: task.train.iter().map(find).collect::<Result<_, _>>()?, test: find(&task.test)? })
    }

    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.train.iter().flatten().chain(&self.test)
    }
}

/// What a model is asked and compared with.
#[derive(Clone, Debug)]
pub struct Example {
    pub prompt: Vec<u32>,
    /// What is written from, in the task's form.
    pub source: String,
    /// In the task's form.
    pub references: Vec<String>,
}

/// How much of a task there is, and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAmounts {
    /// Pairs that models are trained on.
    pub train_pairs: usize,
    /// Sources that are kept from training.
    pub kept_sources: usize,
    /// Sources of the test.
    pub test_sources: usize,
    /// Questions that a reader could make no pair of, such as those without an answer.
    pub unusable: u64,
    /// Training pairs left out because the test has their source too.
    pub in_test: usize,
    /// Training pairs left out because their target is longer than the canvas.
    pub long_targets: usize,
    /// Sources of all parts that lost their end.
    pub cut_sources: usize,
}

/// A task in tokens.
#[derive(Clone, Debug)]
pub struct TaskData {
    pub train: Vec<TextPair>,
    /// Pairs of the kept part, for the loss.
    pub kept_pairs: Vec<TextPair>,
    pub kept: Vec<Example>,
    pub test: Vec<Example>,
    pub amounts: TaskAmounts,
    pub layout: CanvasLayout,
    /// The token that ends a text.
    pub end: u32,
}

impl TaskData {
    /// Reads a task for models of so many positions.
    ///
    /// # Errors
    /// A file that cannot be read, and pairs that are too long where the recipe does not have them cut.
    pub fn read(task: &Task, files: &TaskFiles, tokenizer: &Tokenizer, positions: usize) -> anyhow::Result<Self> {
        let marks = Marks::of(tokenizer)?;
        let encoder = Encoder { tokenizer, task, positions, marks };
        let mut amounts = TaskAmounts::default();
        let mut read = |files: &PairFiles, paths: &[PathBuf]| pairs(files, paths, task.form, &mut amounts.unusable);
        let test = pair::group(read(&task.test, &files.test)?);
        let mut train = Vec::new();
        for (files, paths) in task.train.iter().zip(&files.train) {
            // Only the first text that would be right is one to learn.
            train.extend(read(files, paths)?.into_iter().map(|mut pair| {
                pair.targets.truncate(1);
                pair
            }));
        }
        let tested: BTreeSet<&str> = test.iter().map(|pair| pair.source.as_str()).collect();
        let before = train.len();
        train.retain(|pair| !tested.contains(pair.source.as_str()));
        amounts.in_test = before - train.len();
        // Pairs of one source stay together.
        let sources = pair::group(train);
        let (mut kept, mut train) = (Vec::new(), Vec::new());
        for (index, source) in sources.into_iter().enumerate() {
            if (index + 1) % task.validate_every == 0 { kept.push(source) } else { train.push(source) }
        }
        ensure!(!train.is_empty(), "task {}: there are no pairs to train on", task.name);
        ensure!(
            !kept.is_empty(),
            "task {}: of {} sources every {}th is none; lower validate_every",
            task.name,
            train.len(),
            task.validate_every
        );
        ensure!(!test.is_empty(), "task {}: the test has no pairs", task.name);

        let mut data = Self {
            train: Vec::new(),
            kept_pairs: Vec::new(),
            kept: Vec::new(),
            test: Vec::new(),
            amounts,
            layout: CanvasLayout { canvas: task.canvas, pad: marks.padding },
            end: marks.end,
        };
        for source in train {
            let example = encoder.example(source, &mut data.amounts)?;
            encoder.pairs(&example, &mut data.train, &mut data.amounts)?;
        }
        for source in kept {
            let example = encoder.example(source, &mut data.amounts)?;
            encoder.pairs(&example, &mut data.kept_pairs, &mut data.amounts)?;
            data.kept.push(example);
        }
        for source in test {
            data.test.push(encoder.example(source, &mut data.amounts)?);
        }
        ensure!(
            !data.train.is_empty() && !data.kept_pairs.is_empty(),
            "task {}: no target fits into the canvas of {} places; raise canvas",
            task.name,
            task.canvas
        );
        data.amounts.train_pairs = data.train.len();
        (data.amounts.kept_sources, data.amounts.test_sources) = (data.kept.len(), data.test.len());
        Ok(data)
    }
}

/// Text to tokens, as a task has it.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    task: &'a Task,
    positions: usize,
    marks: Marks,
}

impl Encoder<'_> {
    fn example(&self, pair: Pair, amounts: &mut TaskAmounts) -> anyhow::Result<Example> {
        let room = self.positions - self.task.canvas;
        let asked = self.marks.asked(&pair.source, self.tokenizer, room)?;
        if asked.cut {
            ensure!(
                self.task.too_long == TooLong::Cut,
                "task {}: a source has {} tokens, and beside a canvas of {} the model's {} positions have room for {room}: \
                 set too_long = \"cut\" to lose the ends of such sources, or raise model.positions; it begins {:?}",
                self.task.name,
                asked.tokens,
                self.task.canvas,
                self.positions,
                pair.source.chars().take(60).collect::<String>()
            );
            amounts.cut_sources += 1;
        }
        Ok(Example { prompt: asked.prompt, source: pair.source, references: pair.targets })
    }

    /// What a model is trained on: a pair for each text that would be right.
    fn pairs(&self, example: &Example, into: &mut Vec<TextPair>, amounts: &mut TaskAmounts) -> anyhow::Result<()> {
        for reference in &example.references {
            let mut target = self.tokenizer.encode_text(&format!(" {reference}"))?;
            target.push(self.marks.end);
            if target.len() > self.task.canvas {
                ensure!(
                    self.task.too_long == TooLong::Cut,
                    "task {}: a target has {} tokens, the canvas {} places: raise canvas, or set too_long = \"cut\" to \
                     leave such pairs out; it is {reference:?}",
                    self.task.name,
                    target.len(),
                    self.task.canvas
                );
                amounts.long_targets += 1;
                continue;
            }
            into.push(TextPair { prompt: example.prompt.clone(), target });
        }
        Ok(())
    }
}

/// The pairs of some files.
fn pairs(files: &PairFiles, paths: &[PathBuf], form: Form, unusable: &mut u64) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    match files.format {
        PairFormat::Jsonl => {
            let fields = PairFields {
                source: files.source.clone(),
                target: files.target.clone(),
                references: files.references.clone(),
                target_arrays: TargetArrays::References,
            };
            for path in paths {
                pairs.extend(source::pairs::read(path, &fields)?);
            }
        }
        PairFormat::Lines => pairs = source::parallel::read(&paths[0], &paths[1])?,
        PairFormat::Squad => {
            for path in paths {
                let from = match files.shape {
                    QuestionShape::Sentence => QuestionSource::Sentence,
                    QuestionShape::Passage => QuestionSource::Passage { separator: " | ".into() },
                };
                let read = source::squad::read(path, &from)?;
                *unusable += read.impossible;
                pairs.extend(read.pairs);
            }
        }
    }
    for pair in &mut pairs {
        pair.source = form.of(std::mem::take(&mut pair.source));
        pair.targets.iter_mut().for_each(|target| *target = form.of(std::mem::take(target)));
    }
    Ok(pairs)
}
