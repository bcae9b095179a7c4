//! The optimizer that a training names.

use burn::module::Module;
use burn::tensor::Device;
use lapidary_collective::{CollectiveError, Ranks};
use lapidary_models::checkpoint::TensorSource;
use serde::{Deserialize, Serialize};

use super::kfac::Header as KfacHeader;
use super::{AdamWOptimizer, AdamWOptions, Entries, KfacOptimizer, KfacOptions, SgdOptimizer, SgdOptions};

/// Which optimizer, and what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum OptimizerOptions {
    /// Loshchilov and Hutter, 1711.05101.
    AdamW(AdamWOptions),
    /// With momentum.
    Sgd(SgdOptions),
    /// Kronecker-factored curvature.
    Kfac(KfacOptions),
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self::AdamW(AdamWOptions::default())
    }
}

impl From<AdamWOptions> for OptimizerOptions {
    fn from(options: AdamWOptions) -> Self {
        Self::AdamW(options)
    }
}

impl OptimizerOptions {
    /// As people call it.
    pub fn title(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "AdamW",
            Self::Sgd(_) => "SGD",
            Self::Kfac(_) => "K-FAC",
        }
    }
}

/// One of them at work.
pub enum Optimizer {
    /// AdamW.
    AdamW(AdamWOptimizer),
    /// SGD.
    Sgd(SgdOptimizer),
    /// K-FAC.
    Kfac(Box<KfacOptimizer>),
}

/// What a saved state has of it beside tensors.
#[derive(Serialize, Deserialize)]
pub(crate) enum Header {
    AdamW { steps: u64 },
    Sgd,
    Kfac(KfacHeader),
}

impl Optimizer {
    /// Before the first step.
    pub fn new(options: &OptimizerOptions) -> Self {
        match *options {
            OptimizerOptions::AdamW(options) => Self::AdamW(AdamWOptimizer::new(options)),
            OptimizerOptions::Sgd(options) => Self::Sgd(SgdOptimizer::new(options)),
            OptimizerOptions::Kfac(options) => Self::Kfac(Box::new(KfacOptimizer::new(options))),
        }
    }

    pub(crate) fn save(&self) -> (Header, Vec<TensorSource<'static>>) {
        match self {
            Self::AdamW(adamw) => (Header::AdamW { steps: adamw.steps }, adamw.save()),
            Self::Sgd(sgd) => (Header::Sgd, sgd.save()),
            Self::Kfac(kfac) => {
                let (header, tensors) = kfac.save();
                (Header::Kfac(header), tensors)
            }
        }
    }

    /// # Errors
    /// The state of another optimizer or another model.
    pub(crate) fn load(
        &mut self,
        header: Header,
        entries: &mut Entries,
        shapes: &[(String, Vec<usize>)],
        device: &Device,
    ) -> Result<(), String> {
        match (self, header) {
            (Self::AdamW(adamw), Header::AdamW { steps }) => {
                adamw.steps = steps;
                adamw.load(entries, shapes, device)
            }
            (Self::Sgd(sgd), Header::Sgd) => sgd.load(entries, shapes, device),
            (Self::Kfac(kfac), Header::Kfac(header)) => kfac.load(header, entries, shapes, device),
            _ => Err("it is the state of another optimizer".to_owned()),
        }
    }

    /// Gives the first rank what it lacks of the state, which it saves. All ranks call it alike.
    pub(crate) fn gather(&mut self, ranks: &Ranks) -> Result<(), CollectiveError> {
        match self {
            Self::Kfac(kfac) => kfac.gather(ranks),
            _ => Ok(()),
        }
    }

    /// Lets go of what is other ranks' to keep: after a state was saved or loaded.
    pub(crate) fn keep_own(&mut self, ranks: &Ranks) {
        if let Self::Kfac(kfac) = self {
            kfac.keep_own(ranks);
        }
    }

    /// The present damping, of an optimizer that has one.
    pub fn damping(&self) -> Option<f64> {
        match self {
            Self::Kfac(kfac) => Some(kfac.damping()),
            _ => None,
        }
    }

    /// Which block each parameter has, of an optimizer that has blocks.
    pub fn blocks<M: Module>(&self, model: &M) -> Vec<(String, super::Block)> {
        match self {
            Self::Kfac(kfac) => kfac.blocks(model),
            _ => Vec::new(),
        }
    }
}
