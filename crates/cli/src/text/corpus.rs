//! The first stage: which documents are held out, a tokenizer trained on the others, all of them as tokens.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;

use anyhow::{Context, ensure};
use lapidary_data::pack::{PackOptions, every_nth, pack};
use lapidary_data::{DataError, Document, TextSource, TokenStore, Tokenizer, TokenizerConfig};
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::prompt::END;
use crate::stage::{Inputs, Stage};

/// How much text there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Corpus {
    /// What models are trained on.
    pub train: Amount,
    /// What they are measured on.
    pub held_out: Amount,
    /// Of the tokenizer.
    pub vocabulary: usize,
}

/// An amount of text.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Amount {
    pub documents: usize,
    pub bytes: u64,
    pub tokens: u64,
}

impl Amount {
    fn of(store: &TokenStore) -> Self {
        Self { documents: store.documents().len(), bytes: store.bytes(), tokens: store.tokens() }
    }
}

/// Makes the corpus, or finds it made. Its folder has `tokenizer.json`, `train` and `held_out`.
pub fn corpus(run: &TextRun) -> anyhow::Result<(Stage, Corpus)> {
    let recipe = run.recipe;
    let mut inputs = Inputs::new(&serde_json::json!({
        "tokenizer": recipe.tokenizer,
        "field": recipe.data.field,
        "hold_out_every": recipe.data.hold_out_every,
    }))?;
    for (index, path) in run.files.iter().enumerate() {
        inputs = inputs.file(&format!("file {index}"), path);
    }
    if let Some(list) = &run.list {
        inputs = inputs.file("list", list);
    }
    let stage = run.folder.stage("corpus", &inputs)?;
    if let Some(done) = stage.done::<Corpus>()? {
        tracing::info!("corpus: done before, {} tokens to train on", done.train.tokens);
        return Ok((stage, done));
    }
    stage.begin()?;

    let held_out = held_out(run)?;
    tracing::info!("corpus: training a tokenizer of {} tokens", recipe.tokenizer.vocabulary);
    let train = documents(run)?.filter(|document| document.as_ref().map_or(true, |it| !held_out.contains(&it.name)));
    let texts = train.map(|document| document.map(|document| document.text));
    let tokenizer = Tokenizer::train(texts, &TokenizerConfig::new(recipe.tokenizer.kind, recipe.tokenizer.vocabulary))?;
    tokenizer.save(stage.path())?;
    tracing::info!("corpus: turning the text into tokens");
    let options = PackOptions { end: END.into(), held_out };
    let packed = pack(documents(run)?, &tokenizer, &options, stage.path())?;
    let held_out = packed.held_out.context("documents were held out")?;
    let done = Corpus {
        train: Amount::of(&packed.train),
        held_out: Amount::of(&held_out),
        vocabulary: recipe.tokenizer.vocabulary,
    };
    stage.finish(&done)?;
    Ok((stage, done))
}

/// All documents of all files, in order.
fn documents(run: &TextRun) -> anyhow::Result<impl Iterator<Item = Result<Document, DataError>>> {
    let field = &run.recipe.data.field;
    let sources: Vec<TextSource> =
        run.files.iter().map(|path| Ok(TextSource::open(path)?.field(field))).collect::<Result<_, DataError>>()?;
    Ok(sources.into_iter().flatten())
}

/// Names of the documents that are held out.
fn held_out(run: &TextRun) -> anyhow::Result<BTreeSet<String>> {
    let every = run.recipe.data.hold_out_every;
    let nth = NonZeroUsize::new(every).context("data.hold_out_every is 0")?;
    let list = match &run.list {
        Some(path) => fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => {
            let names = documents(run)?.map(|document| document.map(|document| document.name + "\n"));
            names.collect::<Result<_, _>>()?
        }
    };
    let names = every_nth(&list, nth);
    ensure!(
        !names.is_empty(),
        "of {} documents every {every}th is none; lower data.hold_out_every",
        list.lines().count()
    );
    Ok(names)
}
