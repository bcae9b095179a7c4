//! A model and examples to measure it on.

use std::ops::Range;

use anyhow::{Context, ensure};
use burn::module::Module;
use burn::tensor::FloatDType;
use lapidary_curvature::Problem;
use lapidary_curvature::problem::{ClassifiedExamples, Texts as TextProblem};
use lapidary_data::pack::{PackOptions, pack};
use lapidary_data::store::StoreError;
use lapidary_data::{Batch, Columns, Document, Encoded, Labels, SpanOptions, TextSource, TokenStore, Tokenizer};
use lapidary_kernels::linear_cross_entropy::DrawKey;
use lapidary_kernels::rng::Stream;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_models::load::load;
use lapidary_models::objective::{Autoregressive, TextBatch};
use lapidary_models::{Classifier, Task, parameters};

use super::{Amounts, Run, TextColumns};
use crate::examples::{Form, Raw};
use crate::exit::Usage;
use crate::stage::Inputs;
use crate::text::END;

/// Examples of one measurement: sample `number` of all that there are of `size` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub number: usize,
    pub size: usize,
}

/// What is measured.
pub trait Subject {
    type Model: Module;
    type Problem: Problem<Self::Model>;

    /// On an autodiff device, in the numbers that were asked for.
    fn model(&self) -> &Self::Model;
    /// Number of blocks.
    fn blocks(&self) -> usize;
    /// What the paths of a block's parameters begin with.
    fn block_path(&self, block: usize) -> String {
        format!("trunk.blocks.{block}.")
    }
    /// Examples for eigenvalues, trace, density and landscape.
    fn examples(&self) -> usize;
    /// Samples for the sensitivity of the blocks, and examples of each.
    fn samples(&self) -> (usize, usize);
    /// All there are.
    fn available(&self) -> usize;
    /// What they are called.
    fn noun(&self) -> &'static str;
    /// # Errors
    /// Files that cannot be read.
    fn problem(&self, sample: Sample) -> anyhow::Result<Self::Problem>;
    /// Runs what is below a block once, if the model can; parameters below it have no part in the loss then.
    fn advance(&self, problem: &mut Self::Problem, block: usize);
}

/// Texts, answers in passages or tagged words, and a BERT with the head of their task.
pub struct Classified {
    model: Bert,
    rows: Vec<Encoded>,
    noun: &'static str,
    /// The rows in the order of the samples.
    order: Vec<usize>,
    pad_id: u32,
    examples: usize,
    samples: (usize, usize),
    batch_size: usize,
}

impl Classified {
    /// # Errors
    /// A checkpoint without the head of a task, a table that does not fit it.
    pub fn open(run: &Run, checkpoint: &Checkpoint, columns: &TextColumns, amounts: &Amounts) -> anyhow::Result<Self> {
        let config = BertConfig::read(checkpoint.config(), None)?;
        config.check_size(checkpoint)?;
        let (model, unshared) = load(Bert::new(&config, 0, &run.device.clone().autodiff()), checkpoint)?;
        ensure!(
            unshared.fresh.is_empty(),
            "{}: the checkpoint lacks {}: fine-tune it on the task first",
            run.model.display(),
            unshared.fresh.join(", ")
        );
        let tokenizer = Tokenizer::load(run.model)?;
        ensure!(
            tokenizer.vocab_size() <= config.vocabulary,
            "{}: the tokenizer has {} tokens, the model {}: they do not belong together",
            run.model.display(),
            tokenizer.vocab_size(),
            config.vocabulary
        );
        let columns = Columns {
            text: columns.text.to_owned(),
            pair: columns.pair.map(str::to_owned),
            label: columns.label.to_owned(),
            labels: Labels::Count(u32::try_from(config.task.labels().len()).context("too many classes")?),
        };
        let (raw, left_out) = Raw::read(run.data, &Form::of(&config.task, columns))?;
        let lengths = match config.task {
            Task::Spans => windows(config.positions),
            _ => SpanOptions { max_length: config.positions, ..SpanOptions::default() },
        };
        let part = raw.encode(&tokenizer, &lengths, config.task.labels())?;
        for lost in left_out.into_iter().chain(part.losses(lengths.max_length)) {
            tracing::warn!("{lost}");
        }
        let (noun, many, batch_size) = match config.task {
            Task::Spans => ("passages", [64, 64], 4),
            Task::Classes(_) | Task::Tags(_) => ("texts", [1024, 256], 32),
        };
        let rows = part.into_rows();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        Stream::new(run.settings.seed, 0).shuffle(&mut order);
        let subject = Self {
            model: parameters::cast(model, run.settings.numbers),
            order,
            rows,
            noun,
            pad_id: tokenizer.pad_id()?,
            examples: amounts.examples.unwrap_or(many[0]),
            samples: (amounts.samples, amounts.layer_examples.unwrap_or(many[1])),
            batch_size: amounts.batch_size.unwrap_or(batch_size),
        };
        check_amounts(run, &subject, amounts)?;
        Ok(subject)
    }
}

/// Windows over passages for a model of so many positions: those of most, and smaller ones where they do not fit.
fn windows(positions: usize) -> SpanOptions {
    let usual = SpanOptions::default();
    let max_length = usual.max_length.min(positions);
    let question_length = usual.question_length.min(max_length / 4);
    // Beside three special tokens.
    let stride = usual.stride.min(max_length.saturating_sub(question_length + 3) / 2);
    SpanOptions { max_length, stride, question_length }
}

impl Subject for Classified {
    type Model = Bert;
    type Problem = ClassifiedExamples;

    fn model(&self) -> &Bert {
        &self.model
    }

    fn blocks(&self) -> usize {
        Classifier::blocks(&self.model)
    }

    fn examples(&self) -> usize {
        self.examples.min(self.available())
    }

    fn samples(&self) -> (usize, usize) {
        let (samples, examples) = self.samples;
        (samples, examples.min(self.available() / samples))
    }

    fn available(&self) -> usize {
        self.rows.len()
    }

    fn noun(&self) -> &'static str {
        self.noun
    }

    fn problem(&self, sample: Sample) -> anyhow::Result<ClassifiedExamples> {
        let places = sample.number * sample.size..(sample.number + 1) * sample.size;
        let mut rows: Vec<_> = self.order[places].iter().map(|&row| &self.rows[row]).collect();
        // By length: the mean does not depend on the order, the padding does.
        rows.sort_by_key(|row| row.ids.len());
        let batches = rows.chunks(self.batch_size).map(|rows| Batch::collate(rows, self.pad_id)).collect();
        Ok(ClassifiedExamples::new(batches))
    }

    fn advance(&self, problem: &mut ClassifiedExamples, block: usize) {
        problem.advance(&self.model.valid(), block);
    }
}

/// Passages of running text and a decoder.
pub struct Passages {
    model: Decoder,
    store: TokenStore,
    /// Where the passages are, in the order of the samples.
    spans: Vec<Range<u64>>,
    batch_size: usize,
    blocks: usize,
    examples: usize,
    samples: (usize, usize),
}

impl Passages {
    /// # Errors
    /// A tokenizer of another model, text that cannot be read or is shorter than a passage.
    pub fn open(run: &Run, checkpoint: &Checkpoint, amounts: &Amounts) -> anyhow::Result<Self> {
        let (model, config) = Decoder::open(checkpoint, &run.device.clone().autodiff())?;
        let tokenizer = Tokenizer::load(run.model)?;
        ensure!(
            tokenizer.vocab_size() == config.vocabulary,
            "{}: the tokenizer has {} tokens, the model {}: they do not belong together",
            run.model.display(),
            tokenizer.vocab_size(),
            config.vocabulary
        );
        let store = tokens(run, &tokenizer)?;
        // As long as the model reads at once, side by side; what is left at the end is none.
        let whole = |span: &Range<u64>| span.end - span.start == config.positions as u64;
        let mut spans: Vec<Range<u64>> = store.spans(config.positions).filter(whole).collect();
        Stream::new(run.settings.seed, 0).shuffle(&mut spans);
        let subject = Self {
            model: parameters::cast(model, run.settings.numbers),
            store,
            spans,
            batch_size: amounts.batch_size.unwrap_or(4),
            blocks: config.blocks,
            examples: amounts.examples.unwrap_or(64),
            samples: (amounts.samples, amounts.layer_examples.unwrap_or(64)),
        };
        check_amounts(run, &subject, amounts)?;
        Ok(subject)
    }
}

/// The files as tokens, made once.
fn tokens(run: &Run, tokenizer: &Tokenizer) -> anyhow::Result<TokenStore> {
    let mut inputs = Inputs::new(&serde_json::json!({ "tokenizer": tokenizer.sha256() }))?;
    for (index, path) in run.data.iter().enumerate() {
        inputs = inputs.file(&format!("data {index}"), path);
    }
    let stage = run.folder.stage("tokens", &inputs)?;
    let folder = stage.path().join("train");
    if stage.done::<()>()?.is_some() {
        return Ok(TokenStore::open(&folder)?);
    }
    stage.begin()?;
    let sources: Vec<TextSource> = run.data.iter().map(|path| TextSource::open(path)).collect::<Result<_, _>>()?;
    let documents = sources.into_iter().flatten().enumerate();
    // Files may have documents of one name.
    let documents = documents.map(|(number, document)| {
        document.map(|Document { name, text }| Document { name: format!("{number} {name}"), text })
    });
    let packed =
        pack(documents, tokenizer, &PackOptions { end: END.into(), held_out: Default::default() }, stage.path())?;
    stage.finish(&())?;
    Ok(packed.train)
}

impl Subject for Passages {
    type Model = Decoder;
    type Problem = TextProblem;

    fn model(&self) -> &Decoder {
        &self.model
    }

    fn blocks(&self) -> usize {
        self.blocks
    }

    fn examples(&self) -> usize {
        self.examples.min(self.available())
    }

    fn samples(&self) -> (usize, usize) {
        let (samples, examples) = self.samples;
        (samples, examples.min(self.available() / samples))
    }

    fn available(&self) -> usize {
        self.spans.len()
    }

    fn noun(&self) -> &'static str {
        "passages"
    }

    fn problem(&self, sample: Sample) -> anyhow::Result<TextProblem> {
        let spans = &self.spans[sample.number * sample.size..(sample.number + 1) * sample.size];
        let batches = spans.chunks(self.batch_size).map(|spans| {
            let tokens: Vec<Vec<u32>> =
                spans.iter().map(|span| self.store.read(span.clone())).collect::<Result<_, _>>()?;
            Ok(TextBatch::windows(tokens.concat(), spans.len(), DrawKey { seed: 0, step: 0 }))
        });
        let batches: Result<Vec<TextBatch>, StoreError> = batches.collect();
        // Of running text every token counts.
        Ok(TextProblem { batches: batches?, objective: Autoregressive { prompts: true } })
    }

    fn advance(&self, _: &mut TextProblem, _: usize) {}
}

/// Whether there are as many examples as were asked for; what is only a default may be less.
fn check_amounts(run: &Run, subject: &impl Subject, amounts: &Amounts) -> anyhow::Result<()> {
    let (available, noun) = (subject.available(), subject.noun());
    ensure!(available > 0, "there are no {noun} in the data");
    let asked = amounts.examples.unwrap_or(1);
    if asked > available {
        return Err(Usage::new(format!("--examples {asked}: the data has {available} {noun}")).into());
    }
    if run.questions.layers {
        let (samples, asked) = (amounts.samples, amounts.layer_examples.unwrap_or(1));
        if asked.saturating_mul(samples) > available {
            let message =
                format!("--layers takes {samples} disjoint samples of {asked} {noun} each: the data has {available}");
            return Err(Usage::new(message).into());
        }
    }
    if subject.examples() < amounts.examples.unwrap_or(usize::MAX) && subject.examples() == available {
        tracing::info!("measuring on all {available} {noun}");
    }
    Ok(())
}

/// What numbers are called.
pub fn name_of(numbers: FloatDType) -> &'static str {
    if numbers == FloatDType::F64 { "f64" } else { "f32" }
}
