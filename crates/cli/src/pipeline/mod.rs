//! A recipe's stages on any classifier: fine-tune, curvature, cut, evaluate, report.

mod data;
mod evaluate;
mod finetune;
mod source;


use lapidary_train::Interrupt;

use crate::recipe::Recipe;
use crate::stage::RunFolder;

pub use data::Examples;
pub use finetune::{Finetuned, finetune};
pub use source::{BertSource, ModelSource};

/// What all stages of a run share.
pub struct Run<'a> {
    /// The experiment.
    pub recipe: &'a Recipe,
    /// Where its stages live.
    pub folder: &'a RunFolder,
    /// The examples, tokenized.
    pub examples: &'a Examples,
    /// Asked to stop?
    pub interrupt: &'a Interrupt,
}
