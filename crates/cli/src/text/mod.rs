//! The stages of a recipe for text: a corpus, then a model for each objective, trained and measured, then for each task
//! models that are fine-tuned on it, write it and are compared.

mod corpus;
mod finetune;
mod likelihood;
mod model;
mod pretrain;
mod prompt;
mod report;
mod scores;
mod speculative;
mod task;
mod task_report;
mod teacher;
mod writer;

use std::path::PathBuf;

use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_train::Interrupt;
use serde::Serialize;
use serde_json::Value;

use crate::recipe::{FinetuneVariant, ObjectiveName, Roots, TextRecipe};
use crate::stage::{RunFolder, Stage};
use crate::together::first;

pub use corpus::{Corpus, corpus};
pub use finetune::{Finetuned, TaskRun, finetune};
pub use model::OBJECTIVE;
pub use pretrain::{Pretrained, pretrain};
pub use prompt::{END, Marks, TASK, TaskForm};
pub use report::{Written, write};
pub use scores::{Scored, scores};
pub use speculative::{SpeculativeResult, speculative, speculative_on_task};
pub use task::TaskFiles;
pub use teacher::taught;

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
    /// Those of each task, in the order of the recipe.
    pub tasks: Vec<TaskFiles>,
    /// What its models compute on, without gradients.
    pub device: &'a Device,
    /// Who trains together.
    pub ranks: &'a Ranks,
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
        (device, ranks): (&'a Device, &'a Ranks),
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let files = recipe.data.files.iter().map(|file| roots.data(file)).collect::<Result<_, _>>()?;
        let list = recipe.data.list.as_deref().map(|list| roots.data(list)).transpose()?;
        let tasks = recipe.tasks.iter().map(|task| TaskFiles::find(task, roots)).collect::<Result<_, _>>()?;
        Ok(Self { recipe, folder, files, list, tasks, device, ranks, interrupt })
    }
}

/// What all stages gave.
pub struct TextOutcome {
    /// The text.
    pub corpus: Corpus,
    /// The models, in the order of the recipe.
    pub models: Vec<Pretrained>,
    /// What guessing ahead is worth, for those of them that can.
    pub speculative: Vec<(String, SpeculativeResult)>,
    /// What became of the tasks, in the order of the recipe.
    pub tasks: Vec<TaskOutcome>,
}

/// A task and its models.
pub struct TaskOutcome {
    pub name: String,
    /// Sources of the test that texts are written for, at most.
    pub test_examples: usize,
    /// In the order of the recipe.
    pub models: Vec<(FinetuneVariant, Finetuned, Scored)>,
}

/// Runs every stage that is not done yet.
///
/// # Errors
/// Whatever a stage meets; what was finished before stays finished.
pub fn all(run: &TextRun) -> anyhow::Result<TextOutcome> {
    let ranks = run.ranks;
    let (stage, corpus) = first(ranks, || corpus(run))?;
    let mut pretrained: Vec<(Stage, Pretrained)> = Vec::new();
    for variant in &run.recipe.pretrain.variants {
        let from = variant.from.as_ref();
        let from = from.and_then(|from| pretrained.iter().find(|(_, model)| model.name == *from));
        let done = pretrain(run, &stage, from.map(|(stage, _)| stage), variant)?;
        pretrained.push(done);
    }
    let mut guessed = Vec::new();
    for (variant, (model, _)) in run.recipe.pretrain.variants.iter().zip(&pretrained) {
        if variant.objective == ObjectiveName::Both
            && let Some(result) = first(ranks, || speculative(run, &stage, model, variant))?
        {
            guessed.push((variant.name.clone(), result));
        }
    }
    let mut tasks = Vec::new();
    for (task, files) in run.recipe.tasks.iter().zip(&run.tasks) {
        let task = TaskRun::new(task, files.clone(), &stage);
        let mut models = Vec::new();
        // Of the models so far, for those that learn from them.
        let mut stages: Vec<(&FinetuneVariant, Stage)> = Vec::new();
        for variant in &run.recipe.finetune.variants {
            let from = variant.from.as_ref();
            let from = from.and_then(|from| pretrained.iter().find(|(_, model)| model.name == *from));
            let teacher = variant.teacher.as_ref();
            let teacher = teacher.and_then(|name| stages.iter().find(|(variant, _)| variant.name == *name));
            let texts = teacher.map(|(_, model)| first(ranks, || taught(run, &task, model, variant))).transpose()?;
            let from = from.map(|(stage, _)| stage);
            let (model, finetuned) = finetune(run, &stage, &task, from, texts.as_ref(), variant)?;
            models.push((variant.clone(), finetuned, first(ranks, || scores(run, &task, &model, variant))?));
            if variant.objective == ObjectiveName::Both {
                let name = format!("{}-{}", task.task.name, variant.name);
                guessed.push((name, first(ranks, || speculative_on_task(run, &task, &model))?));
            }
            stages.push((variant, model));
        }
        let test_examples = run.recipe.write.test_examples.unwrap_or(usize::MAX);
        tasks.push(TaskOutcome { name: task.task.name.clone(), test_examples, models });
    }
    Ok(TextOutcome {
        models: pretrained.into_iter().map(|(_, model)| model).collect(),
        corpus,
        speculative: guessed,
        tasks,
    })
}

/// The settings that all variants of a section share: what changes in one variant is no reason to train another again.
fn shared(settings: &impl Serialize) -> serde_json::Result<Value> {
    let mut shared = serde_json::to_value(settings)?;
    if let Some(fields) = shared.as_object_mut() {
        fields.remove("variant");
    }
    Ok(shared)
}
