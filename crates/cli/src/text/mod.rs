//! The stages of a recipe for text: a corpus, then a model for each objective, trained and measured.

mod corpus;
mod likelihood;
mod pretrain;
mod report;

use std::path::PathBuf;

use burn::tensor::Device;
use lapidary_train::Interrupt;

use crate::recipe::{Roots, TextRecipe};
use crate::stage::RunFolder;

pub use corpus::{Corpus, END, corpus};
pub use pretrain::{Pretrained, pretrain};
pub use report::{Written, write};

/// What all stages of a run share.
pub struct TextRun<'a> {
    /// The experiment.
    pub recipe: &'a TextRecipe,
    /// Where its stages live.
    pub folder: &'a RunFolder,
    /// The files that the text is in.
    pub files: Vec<PathBuf>,
    /// The list of documents, if the recipe names one.
    pub list: Option<PathBuf>,
    /// What its models compute on, without gradients.
    pub device: &'a Device,
    /// Asked to stop?
    pub interrupt: &'a Interrupt,
}

impl<'a> TextRun<'a> {
    /// Finds the files that the recipe names.
    ///
    /// # Errors
    /// One that is missing.
    pub fn new(
        recipe: &'a TextRecipe,
        roots: &Roots,
        folder: &'a RunFolder,
        device: &'a Device,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let files = recipe.data.files.iter().map(|file| roots.data(file)).collect::<Result<_, _>>()?;
        let list = recipe.data.list.as_deref().map(|list| roots.data(list)).transpose()?;
        Ok(Self { recipe, folder, files, list, device, interrupt })
    }
}

/// What all stages gave.
pub struct TextOutcome {
    /// The text.
    pub corpus: Corpus,
    /// The models, in the order of the recipe.
    pub models: Vec<Pretrained>,
}

/// Runs every stage that is not done yet.
///
/// # Errors
/// Whatever a stage meets; what was finished before stays finished.
pub fn all(run: &TextRun) -> anyhow::Result<TextOutcome> {
    let (stage, corpus) = corpus(run)?;
    let models = run.recipe.pretrain.variants.iter().map(|variant| pretrain(run, &stage, variant));
    Ok(TextOutcome { models: models.collect::<Result<_, _>>()?, corpus })
}
