//! Networks that tell pictures apart: trained by several optimizers (`lapidary run`), and the study of how these take to
//! larger batches (`lapidary study`).

mod data;
mod report;
pub mod study;
mod train;

use burn::tensor::Device;
use lapidary_collective::Ranks;
use lapidary_train::Interrupt;

use crate::recipe::PictureRecipe;
use crate::stage::RunFolder;

pub use data::{PictureFiles, Pictures};
pub use report::{Written, write};
pub use train::{Trained, train};

/// What all stages of a run share.
pub struct PictureRun<'a> {
    /// The experiment.
    pub recipe: &'a PictureRecipe,
    /// Where its stages live.
    pub folder: &'a RunFolder,
    /// All of them.
    pub pictures: &'a Pictures,
    /// What its networks compute on, without gradients.
    pub device: &'a Device,
    /// Who trains together.
    pub ranks: &'a Ranks,
    /// Asked to stop?
    pub interrupt: &'a Interrupt,
}
