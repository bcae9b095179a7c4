//! A stage for each model that others learn from: what it writes, token after token, for the sources of the training part.
//!
//! Places of a canvas take their tokens without knowing what the others take in the same pass. Where one source has
//! several good texts, a canvas becomes a mixture of them. A teacher has one text a source, and one that a model of this
//! size can say (Kim and Rush, "Sequence-level knowledge distillation", 1606.07947; for writing in parallel Gu et al.,
//! "Non-autoregressive neural machine translation", 1711.02281, section 3.2).

use anyhow::ensure;
use lapidary_train::TextPair;
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::finetune::{LOOK, TaskRun};
use super::task::TaskData;
use super::writer::{Text, Writer};
use crate::recipe::FinetuneVariant;
use crate::stage::Stage;

/// What is written for the distinct sources of a task, in the order of its pairs, without the token that ends a text.
#[derive(Debug, Serialize, Deserialize)]
struct Texts {
    train: Vec<Vec<u32>>,
    kept: Vec<Vec<u32>>,
}

/// Pairs whose texts are a teacher's.
#[derive(Debug)]
pub struct Taught {
    pub train: Vec<TextPair>,
    /// Of the kept part, for the loss.
    pub kept: Vec<TextPair>,
    pub amounts: TaughtAmounts,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaughtAmounts {
    /// Pairs that the model is trained on.
    pub train_pairs: usize,
    /// Texts that did not end within the canvas, and are left out.
    pub unfinished: usize,
}

/// Writes with the fine-tuned `teacher` what `variant` learns, or finds it written.
///
/// # Errors
/// A checkpoint that cannot be read, a teacher none of whose texts end.
pub fn taught(
    run: &TextRun,
    task: &TaskRun,
    teacher: &Stage,
    variant: &FinetuneVariant,
) -> anyhow::Result<(Stage, Taught)> {
    // No more than a training reads.
    let most = variant.steps(task.task).saturating_mul(run.recipe.finetune.batch_size);
    let inputs = task.inputs(serde_json::json!({ "precision": run.recipe.finetune.precision, "most": most }))?;
    let stage = run.folder.stage(&format!("{}/texts-{most}", teacher.name()), &inputs.after(teacher))?;
    let data = task.data(run.recipe.model.positions)?;
    let (train, kept) = (some(sources(&data.train), most), some(sources(&data.kept_pairs), LOOK));
    let texts = match stage.done::<Texts>()? {
        Some(done) => {
            tracing::info!("{}: done before", stage.name());
            done
        }
        None => {
            stage.begin()?;
            let writer = Writer::open(run, teacher, data, stage.name())?;
            let write = |prompts: &[&[u32]], what: &str| -> anyhow::Result<Vec<Vec<u32>>> {
                Ok(writer.greedy(prompts, what)?.into_iter().map(|Text { tokens, .. }| tokens).collect())
            };
            let texts = Texts { kept: write(&kept, "kept part")?, train: write(&train, "training part")? };
            stage.finish(&texts)?;
            texts
        }
    };
    ensure!(
        texts.train.len() == train.len() && texts.kept.len() == kept.len(),
        "{} has {} and {} texts for {} and {} sources; remove that folder to have them written again",
        stage.path().display(),
        texts.train.len(),
        texts.kept.len(),
        train.len(),
        kept.len()
    );
    let all = train.len() + kept.len();
    let (train, kept) = (pairs(&train, texts.train, data), pairs(&kept, texts.kept, data));
    ensure!(
        !train.is_empty() && !kept.is_empty(),
        "no text of {}'s teacher ends within the canvas of {} places: train it for more steps, or raise the task's canvas",
        variant.name,
        data.layout.canvas
    );
    let amounts = TaughtAmounts { train_pairs: train.len(), unfinished: all - train.len() - kept.len() };
    Ok((stage, Taught { train, kept, amounts }))
}

/// The prompts of pairs, each once. Pairs of one source follow each other.
fn sources(pairs: &[TextPair]) -> Vec<&[u32]> {
    let mut prompts: Vec<&[u32]> = pairs.iter().map(|pair| pair.prompt.as_slice()).collect();
    prompts.dedup();
    prompts
}

/// So many of them at most, from all over.
fn some<T: Copy>(all: Vec<T>, most: usize) -> Vec<T> {
    let count = all.len().min(most);
    (0..count).map(|i| all[(i as u128 * all.len() as u128 / count as u128) as usize]).collect()
}

/// Those whose text ends.
fn pairs(prompts: &[&[u32]], texts: Vec<Vec<u32>>, data: &TaskData) -> Vec<TextPair> {
    let ended = prompts.iter().zip(texts).filter(|(_, text)| text.len() < data.layout.canvas);
    let pair = |(prompt, mut target): (&&[u32], Vec<u32>)| {
        target.push(data.end);
        TextPair { prompt: prompt.to_vec(), target }
    };
    ended.map(pair).collect()
}
