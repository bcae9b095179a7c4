//! A recipe's stages on any classifier: fine-tune, curvature, cut, evaluate, report.

mod curvature;
mod cuts;
mod data;
mod evaluate;
mod finetune;
pub mod report;
mod source;

use anyhow::Context;
use burn::tensor::Device;
use lapidary_train::Interrupt;

use crate::recipe::Recipe;
use crate::stage::RunFolder;

pub use curvature::{Curvature, curvature};
pub use cuts::{Cut, cut_variant};
pub use data::Examples;
pub use evaluate::predictions;
pub use finetune::{Finetuned, finetune, reload};
pub use source::{BertSource, ModelSource, ViltSource};

/// What all stages of a run share.
pub struct Run<'a> {
    /// The experiment.
    pub recipe: &'a Recipe,
    /// Where its stages live.
    pub folder: &'a RunFolder,
    /// The examples, tokenized.
    pub examples: &'a Examples,
    /// What its models compute on, without gradients.
    pub device: &'a Device,
    /// Asked to stop?
    pub interrupt: &'a Interrupt,
}

/// What one seed gave.
pub struct SeedOutcome {
    /// The seed.
    pub seed: u64,
    /// Fine-tuning.
    pub finetuned: Finetuned,
    /// The cuts, in the order of the recipe.
    pub cuts: Vec<Cut>,
}

/// What all stages gave.
pub struct Outcome {
    /// Curvature, measured on the first seed's model; every seed's mixed cuts follow it.
    pub curvature: Curvature,
    /// Seed after seed.
    pub seeds: Vec<SeedOutcome>,
}

/// Runs every stage that is not done yet.
///
/// # Errors
/// Whatever a stage meets; what was finished before stays finished.
pub fn all<S: ModelSource>(run: &Run, source: &S) -> anyhow::Result<Outcome> {
    let mut measured = None;
    let mut seeds = Vec::new();
    for &seed in &run.recipe.seeds {
        let (checkpoint, finetuned) = finetune(run, source, seed)?;
        if measured.is_none() {
            measured = Some(curvature(run, source, seed, &checkpoint)?);
        }
        let mut cuts = Vec::new();
        if let Some((stage, measured)) = &measured {
            for variant in &run.recipe.quantize.variants {
                cuts.push(cut_variant(run, source, seed, variant, &checkpoint, (stage, measured))?);
            }
        }
        seeds.push(SeedOutcome { seed, finetuned, cuts });
    }
    let (_, curvature) = measured.context("the recipe names no seed")?;
    Ok(Outcome { curvature, seeds })
}
