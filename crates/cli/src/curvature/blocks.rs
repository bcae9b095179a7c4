//! The top eigenvalue of every block on disjoint samples, which can be stopped between any two of them.

use std::fs;
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use lapidary_curvature::eigen::{PowerOptions, lanczos_top};
use lapidary_curvature::{Difference, Hessian, LayerSensitivity, Problem, Selection, Surface};
use lapidary_models::checkpoint::atomic_write;
use lapidary_train::{Interrupt, Progress, TrainError};
use serde::{Deserialize, Serialize};

/// One top eigenvalue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Which sample.
    pub sample: usize,
    /// Which block.
    pub block: usize,
    /// Rayleigh quotient.
    pub value: f64,
    /// `‖Hv − λv‖ / |λ|`.
    pub residual: f64,
    /// Products made.
    pub iterations: usize,
    /// Whether value and residual are within the tolerance.
    pub converged: bool,
    /// The finite-difference step and its estimated error; none where the Hessian is zero.
    pub difference: Option<Difference>,
}

/// A model with its blocks, and samples to measure them on.
pub struct Blocks<'a, M, P> {
    /// On an autodiff device.
    pub model: &'a M,
    /// How many there are.
    pub blocks: usize,
    /// What the paths of a block's parameters begin with.
    pub path: &'a dyn Fn(usize) -> String,
    /// How many samples.
    pub samples: usize,
    /// The loss on one of them.
    pub problem: &'a dyn Fn(usize) -> anyhow::Result<P>,
    /// Runs what is below a block once, if the model can.
    pub advance: &'a dyn Fn(&mut P, usize),
}

/// How they are measured.
pub struct Measuring<'a> {
    /// What progress calls it.
    pub title: &'a str,
    pub options: PowerOptions,
    /// Where what is known is kept until all is.
    pub partial: &'a Path,
    pub interrupt: &'a Interrupt,
}

impl<M: Module, P: Problem<M>> Blocks<'_, M, P> {
    /// Every eigenvalue, sample after sample and block after block within it; and the seconds it took, over all
    /// resumptions.
    ///
    /// # Errors
    /// A problem that cannot be made, products that are not finite, an interrupt, a disk that is full.
    pub fn measure(&self, how: &Measuring) -> anyhow::Result<(Vec<Measured>, f64)> {
        let (mut measured, before): (Vec<Measured>, f64) = match fs::read(how.partial) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(_) => (Vec::new(), 0.0),
        };
        let begun = Instant::now();
        let total = self.samples * self.blocks;
        let mut progress = Progress::new(how.title, total as u64, measured.len() as u64);
        for sample in measured.len() / self.blocks..self.samples {
            let mut problem = (self.problem)(sample)?;
            for block in measured.len() - sample * self.blocks..self.blocks {
                (self.advance)(&mut problem, block);
                // A step that was settled on one sample serves the others: same block, same scale.
                let settled = measured.get(block).and_then(|first| first.difference);
                let one = self.top(&problem, sample, block, settled, &how.options, &mut |message| {
                    progress.set((sample * self.blocks + block) as u64, message)
                })?;
                measured.push(one);
                let text = serde_json::to_vec(&(&measured, before + begun.elapsed().as_secs_f64()))?;
                atomic_write(how.partial, |writer| writer.write_all(&text))?;
                if how.interrupt.raised() {
                    let (step, total) = (measured.len() as u64, total as u64);
                    return Err(TrainError::Interrupted { step, total }.into());
                }
            }
        }
        progress.finish("done");
        Ok((measured, before + begun.elapsed().as_secs_f64()))
    }

    fn top(
        &self,
        problem: &P,
        sample: usize,
        block: usize,
        settled: Option<Difference>,
        options: &PowerOptions,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Measured> {
        let prefix = (self.path)(block);
        let selection = Selection::of(self.model, |path| path.starts_with(&prefix))?;
        let mut hessian = Hessian::new(Surface::new(self.model.clone(), problem, selection)?, settled);
        let eigen = lanczos_top(&mut hessian, options, &mut |step| {
            say(&format!("block {block}, sample {sample}: λ {:.3} after {} products", step.value, step.iteration));
        })?;
        Ok(Measured {
            sample,
            block,
            value: eigen.value,
            residual: eigen.residual,
            iterations: eigen.iterations,
            converged: eigen.converged,
            difference: hessian.difference(),
        })
    }
}

/// Ω of every block.
///
/// # Errors
/// An eigenvalue that is not finite.
pub fn sensitivities(measured: &[Measured], blocks: usize) -> anyhow::Result<Vec<LayerSensitivity>> {
    let of = |block| measured.iter().filter(|one| one.block == block).map(|one| one.value).collect();
    Ok((0..blocks).map(|block| LayerSensitivity::new(block, of(block))).collect::<Result<_, _>>()?)
}
