//! The questions, each a stage.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use lapidary_curvature::density::{Density, DensityOptions, density};
use lapidary_curvature::eigen::{LanczosOptions, PowerOptions, Spectrum, lanczos};
use lapidary_curvature::landscape::{Line, Plane, line, places, plane};
use lapidary_curvature::operator::Recorded;
use lapidary_curvature::trace::{Trace, TraceOptions, trace};
use lapidary_curvature::{
    CurvatureError, Difference, Hessian, LayerSensitivity, LinearOperator, Middle, RowCurvature, Selection, Surface,
    norm,
};
use lapidary_eval::report::number;
use lapidary_kernels::rng::Stream;
use lapidary_models::checkpoint::atomic_write;
use lapidary_train::Progress;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::blocks::{Blocks, Measuring, sensitivities};
use super::subject::{Sample, Subject, name_of};
use super::{Matrix, Run};
use crate::exit::Usage;
use crate::stage::{Inputs, Stage};

/// Where a model is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    pub examples: usize,
    /// `texts` or `passages`.
    pub noun: String,
    /// Selected parameters.
    pub parameters: usize,
    /// Their length as one vector.
    pub length: f64,
    pub loss: f64,
    pub gradient_norm: f64,
    /// The step of differences and its error; none where every product is zero.
    pub difference: Option<Difference>,
    /// Seconds of a gradient.
    pub gradient_seconds: f64,
}

/// An eigenvalue.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Value {
    pub value: f64,
    /// `‖Av − λv‖`.
    pub residual: f64,
    pub converged: bool,
}

/// Both ends of the spectrum; empty where no eigenvalue was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ends {
    /// Descending.
    pub largest: Vec<Value>,
    /// Ascending.
    pub smallest: Vec<Value>,
    pub products: usize,
    pub seconds: f64,
}

/// The blocks' sensitivity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layers {
    pub layers: Vec<LayerSensitivity>,
    /// Eigenvalues that were not found as accurately as asked.
    pub unsettled: usize,
    pub samples: usize,
    /// Of each sample.
    pub examples: usize,
    pub seconds: f64,
}

/// The loss around the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Landscape {
    /// Names of the two directions.
    pub names: [String; 2],
    /// Curvatures along them.
    pub values: [f64; 2],
    pub lines: [Line; 2],
    pub plane: Plane,
    pub seconds: f64,
}

/// All that was found.
pub struct Answers {
    pub place: Place,
    pub ends: Ends,
    pub trace: Option<(Trace, f64)>,
    pub density: Option<(Density, f64)>,
    pub layers: Option<Layers>,
    pub landscape: Option<Landscape>,
}

/// Vectors of the ends, in the stage's folder: numbers of four bytes, those of the largest eigenvalue first, then those
/// of the smallest.
const VECTORS: &str = "vectors.f32";

/// Products of a stage that has been stopped.
const PRODUCTS: &str = "products.f32";

/// Asks every question that is not answered yet.
///
/// # Errors
/// Whatever a stage meets.
pub fn ask<S: Subject>(run: &Run, subject: &S) -> anyhow::Result<Answers> {
    let asker = Asker::new(run, subject)?;
    let (place_stage, place) = asker.place()?;
    asker.announce(&place);
    let (ends_stage, ends) = match run.settings.eigenvalues() {
        0 => (None, Ends::default()),
        _ => asker.ends(&place, &place_stage).map(|(stage, ends)| (Some(stage), ends))?,
    };
    let trace = if run.questions.trace { Some(asker.trace(&place, &place_stage)?) } else { None };
    let density = if run.questions.density { Some(asker.density(&place, &place_stage)?) } else { None };
    let landscape = match &ends_stage {
        Some(stage) if run.questions.landscape => Some(asker.landscape(&place, &ends, stage)?),
        _ => None,
    };
    let layers = if run.questions.layers { Some(asker.layers()?) } else { None };
    Ok(Answers { place, ends, trace, density, layers, landscape })
}

struct Asker<'a, S: Subject> {
    run: &'a Run<'a>,
    subject: &'a S,
    problem: S::Problem,
    selection: Selection,
    /// Of the trace and of the density.
    options: (TraceOptions, DensityOptions),
}

/// Places of a landscape along each direction, and examples that it is of at most.
const GRID: usize = 17;
const LANDSCAPE_EXAMPLES: usize = 256;

impl<'a, S: Subject> Asker<'a, S> {
    fn new(run: &'a Run, subject: &'a S) -> anyhow::Result<Self> {
        let sample = Sample { number: 0, size: subject.examples() };
        let mut problem = subject.problem(sample)?;
        let over = match run.settings.over.as_str() {
            "all" => "",
            "trunk" => "trunk.",
            path => path,
        };
        let selection = Selection::of(subject.model(), |path| path.starts_with(over)).map_err(|error| match error {
            CurvatureError::Empty => Usage::new(format!(
                "--over {}: no parameter's path begins with it; give trunk, all, or a path such as {}",
                run.settings.over,
                subject.block_path(0)
            ))
            .into(),
            error => anyhow::Error::from(error),
        })?;
        advance(subject, &selection, &mut problem);
        let seed = run.settings.seed;
        let options = (TraceOptions { seed, ..Default::default() }, DensityOptions { seed, ..Default::default() });
        Ok(Self { run, subject, problem, selection, options })
    }

    /// A stage whose outcome depends on the model, the data and these settings.
    fn stage(&self, name: &str, settings: serde_json::Value) -> anyhow::Result<Stage> {
        let mut inputs = Inputs::new(&serde_json::json!({
            "settings": settings,
            "numbers": name_of(self.run.settings.numbers),
            "seed": self.run.settings.seed,
        }))?
        .on(self.run.device)
        .file("model", self.run.model);
        for (index, path) in self.run.data.iter().enumerate() {
            inputs = inputs.file(&format!("data {index}"), path);
        }
        Ok(self.run.folder.stage(name, &inputs)?)
    }

    /// The settings that all stages on the main examples share, and some of their own.
    fn shared(&self, own: serde_json::Value) -> serde_json::Value {
        let settings = self.run.settings;
        serde_json::json!({
            "over": settings.over,
            "matrix": settings.matrix,
            "examples": self.subject.examples(),
            "own": own,
        })
    }

    fn surface(&self) -> anyhow::Result<Surface<'_, S::Model, S::Problem>> {
        Ok(Surface::new(self.subject.model().clone(), &self.problem, self.selection.clone())?)
    }

    fn operator(&self, difference: Option<Difference>) -> anyhow::Result<Box<dyn LinearOperator + '_>> {
        let surface = self.surface()?;
        Ok(match self.run.settings.matrix {
            Matrix::Hessian => Box::new(Hessian::new(surface, difference)),
            Matrix::GaussNewton => Box::new(RowCurvature::new(surface, Middle::GaussNewton, difference)?),
            Matrix::Fisher => Box::new(RowCurvature::new(surface, Middle::Empirical, difference)?),
        })
    }

    /// Loss, gradient, and the step of differences.
    fn place(&self) -> anyhow::Result<(Stage, Place)> {
        let questions = self.run.questions;
        let products = self.run.settings.eigenvalues() > 0 || questions.trace || questions.density;
        let stage = self.stage("place", self.shared(products.into()))?;
        if let Some(done) = stage.done::<Place>()? {
            return Ok((stage, done));
        }
        stage.begin()?;
        let (examples, noun) = (self.subject.examples(), self.subject.noun());
        let dim = self.selection.dim();
        let zeros = vec![0.0; dim];
        let mut surface = self.surface()?;
        let (loss, length) = (surface.loss_at(&zeros, 0.0)?, norm(surface.middle()));
        let mut gradient = vec![0.0; dim];
        let begun = Instant::now();
        surface.gradient_at(&zeros, 0.0, &mut gradient)?;
        let gradient_seconds = begun.elapsed().as_secs_f64();
        let gradient_norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        anyhow::ensure!(
            loss.is_finite() && gradient_norm.is_finite(),
            "the loss on these examples is {loss}, its gradient has the length {gradient_norm}: look for a diverged \
             checkpoint"
        );
        tracing::info!("{examples} {noun}, {dim} parameters; loss {loss:.4}, gradient {gradient_norm:.3e}");
        let noun = noun.to_owned();
        let mut place =
            Place { examples, noun, parameters: dim, length, loss, gradient_norm, difference: None, gradient_seconds };
        if !products {
            stage.finish(&place)?;
            return Ok((stage, place));
        }
        tracing::info!("finding the step of differences");
        // A product along a random direction settles the step.
        let mut stream = Stream::new(self.run.settings.seed, 1);
        let v: Vec<f32> = (0..dim).map(|_| stream.normal()).collect();
        let mut product = vec![0.0; dim];
        place.difference = match self.run.settings.matrix {
            Matrix::Hessian => {
                let mut operator = Hessian::new(surface, None);
                operator.apply(&v, &mut product)?;
                operator.difference()
            }
            matrix => {
                let middle = if matrix == Matrix::Fisher { Middle::Empirical } else { Middle::GaussNewton };
                let mut operator = RowCurvature::new(surface, middle, None)?;
                operator.apply(&v, &mut product)?;
                operator.difference()
            }
        };
        stage.finish(&place)?;
        Ok((stage, place))
    }

    /// Says how long it will take.
    fn announce(&self, place: &Place) {
        if let Some(difference) = place.difference {
            tracing::info!("products within {:.0e}", difference.error);
            if difference.error > 1e-2 {
                tracing::warn!(
                    "no step was found whose products are known better: eigenvalues may not settle; --precision f64 is \
                     slower and exact"
                );
            }
        }
        let settings = self.run.settings;
        let each = match settings.matrix {
            // Every sixteenth product is tested by another.
            Matrix::Hessian => 2.0 + 2.0 / 16.0,
            Matrix::GaussNewton | Matrix::Fisher => 5.0 / 3.0,
        };
        let questions = self.run.questions;
        let (trace, density) = self.options;
        let mut gradients = match settings.eigenvalues() {
            0 => 0.0,
            asked => (settings.products + asked) as f64 * each,
        };
        gradients += if questions.trace { trace.products as f64 * each } else { 0.0 };
        gradients += if questions.density { (density.probes * density.steps) as f64 * each } else { 0.0 };
        if questions.landscape {
            let share = LANDSCAPE_EXAMPLES.min(place.examples) as f64 / place.examples as f64;
            gradients += (GRID * GRID + 2 * LINE) as f64 * share / 3.0;
        }
        if questions.layers {
            // About ten products each; the blocks below are run once.
            let (samples, examples) = self.subject.samples();
            let share = (samples * examples) as f64 / place.examples as f64;
            gradients += self.subject.blocks() as f64 * share * 12.0 * 2.0;
        }
        tracing::info!(
            "at most {gradients:.0} gradients of {:.2} s each, {}",
            place.gradient_seconds,
            number::duration(gradients * place.gradient_seconds)
        );
    }

    /// Runs a question on products that are kept until it is answered.
    fn with_products<T>(
        &self,
        place: &Place,
        stage: &Stage,
        question: impl FnOnce(&mut dyn LinearOperator) -> Result<T, CurvatureError>,
    ) -> anyhow::Result<T> {
        let path = stage.path().join(PRODUCTS);
        let go_on = || !self.run.interrupt.raised();
        let mut operator = Recorded::new(self.operator(place.difference)?, &path, &go_on)?;
        if operator.known() > 0 {
            tracing::info!("{}: {} products are known", stage.name(), operator.known());
        }
        let answer = question(&mut operator).map_err(stopped)?;
        drop(operator);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        Ok(answer)
    }

    fn ends(&self, place: &Place, after: &Stage) -> anyhow::Result<(Stage, Ends)> {
        let settings = self.run.settings;
        let options = LanczosOptions {
            largest: settings.largest,
            smallest: settings.smallest,
            tolerance: settings.tolerance,
            products: settings.products,
            basis: (settings.largest + settings.smallest + 2).max(LanczosOptions::default().basis),
            seed: settings.seed,
        };
        let stage = self.after(after, "eigenvalues", &options)?;
        if let Some(done) = stage.done::<Ends>()? {
            tracing::info!("eigenvalues: done before");
            return Ok((stage, done));
        }
        stage.begin()?;
        let begun = Instant::now();
        let mut progress = Progress::new("eigenvalues", settings.products as u64, 0);
        let found = self.with_products(place, &stage, |operator| {
            lanczos(operator, &options, &mut |step| {
                let message =
                    format!("products, λ {:.4} and {:.4}, residual {:.0e}", step.largest, step.smallest, step.residual);
                progress.set(step.products as u64, &message);
            })
        })?;
        progress.finish("");
        for (what, eigen) in [("largest", &found.largest), ("smallest", &found.smallest)] {
            if let Some(eigen) = eigen.iter().find(|eigen| !eigen.converged) {
                tracing::warn!(
                    "the {what} eigenvalue {:.4} is not settled: residual {:.1e}; allow more --products",
                    eigen.value,
                    eigen.residual * eigen.value.abs()
                );
            }
        }
        write_vectors(&stage.path().join(VECTORS), &found)?;
        let values = |eigens: &[lapidary_curvature::Eigen]| {
            let value = |eigen: &lapidary_curvature::Eigen| Value {
                value: eigen.value,
                residual: if eigen.residual.is_finite() { eigen.residual * eigen.value.abs() } else { 0.0 },
                converged: eigen.converged,
            };
            eigens.iter().map(value).collect::<Vec<Value>>()
        };
        let ends = Ends {
            largest: values(&found.largest),
            smallest: values(&found.smallest),
            products: found.products,
            seconds: begun.elapsed().as_secs_f64(),
        };
        stage.finish(&ends)?;
        Ok((stage, ends))
    }

    fn after(&self, after: &Stage, name: &str, options: &impl Serialize) -> anyhow::Result<Stage> {
        let inputs = Inputs::new(&serde_json::json!({ "options": options }))?.after(after);
        Ok(self.run.folder.stage(name, &inputs)?)
    }

    fn trace(&self, place: &Place, after: &Stage) -> anyhow::Result<(Trace, f64)> {
        let options = self.options.0;
        let stage = self.after(after, "trace", &options)?;
        answered(&stage, || {
            let mut progress = Progress::new("trace", options.products as u64, 0);
            let found = self.with_products(place, &stage, |operator| {
                trace(operator, &options, &mut |so_far| {
                    let message = format!("products, {:.4} ± {:.4}", so_far.value, so_far.standard_error);
                    progress.set(so_far.products as u64, &message);
                })
            })?;
            progress.finish(&format!("{:.4} ± {:.4}", found.value, found.standard_error));
            Ok(found)
        })
    }

    fn density(&self, place: &Place, after: &Stage) -> anyhow::Result<(Density, f64)> {
        let options = self.options.1;
        let stage = self.after(after, "density", &options)?;
        answered(&stage, || {
            let mut progress = Progress::new("density", (options.probes * options.steps) as u64, 0);
            let found = self.with_products(place, &stage, |operator| {
                density(operator, &options, &mut |products| progress.set(products as u64, "products"))
            })?;
            progress.finish("");
            Ok(found)
        })
    }

    fn landscape(&self, place: &Place, ends: &Ends, after: &Stage) -> anyhow::Result<Landscape> {
        let stage = self.after(after, "landscape", &serde_json::json!({ "grid": GRID }))?;
        let vectors = read_vectors(&after.path().join(VECTORS), self.selection.dim())?;
        // The most telling directions: of the sharpest rise, and of the steepest fall or, without one, the second rise.
        let second_largest = ends.largest.get(1).zip(vectors.get(1));
        let smallest = ends.smallest.first().zip(vectors.get(ends.largest.len()));
        let first = ends.largest.first().zip(vectors.first()).or(smallest);
        let (first_value, first) = first.context("a landscape needs an eigenvector")?;
        let (second_value, second) = smallest
            .filter(|(value, _)| value.value < 0.0)
            .or(second_largest)
            .or(smallest)
            .context("a landscape needs two eigenvectors: ask for --largest 2")?;
        let name = |value: &Value| format!("eigenvector of {}", number::significant(value.value));
        let radius = |value: &Value| radius(value.value, place);
        let (rx, ry) = (radius(first_value), radius(second_value));
        let size = LANDSCAPE_EXAMPLES.min(place.examples);
        let (found, seconds) = answered(&stage, || {
            let mut problem = self.subject.problem(Sample { number: 0, size })?;
            advance(self.subject, &self.selection, &mut problem);
            let mut surface = Surface::new(self.subject.model().clone(), &problem, self.selection.clone())?;
            let total = (2 * LINE + GRID * GRID) as u64;
            let mut progress = Progress::new("landscape", total, 0);
            let mut on_line = |number: u64, direction: &[f32], radius: f64| {
                let path = stage.path().join(format!("line{number}.json"));
                line(&mut surface, direction, places(radius, LINE), known(&path), &mut |losses| {
                    progress.set(number * LINE as u64 + losses.len() as u64, "losses");
                    self.keep(&path, losses, LINE)
                })
                .map_err(stopped)
            };
            let lines = [on_line(0, first, rx)?, on_line(1, second, ry)?];
            let path = stage.path().join("plane.json");
            let axes = [places(rx, GRID), places(ry, GRID)];
            let plane = plane(&mut surface, [first, second], axes, known(&path), &mut |losses| {
                progress.set((2 * LINE + losses.len()) as u64, "losses");
                self.keep(&path, losses, GRID * GRID)
            })
            .map_err(stopped)?;
            progress.finish("");
            Ok((lines, plane))
        })?;
        let (lines, plane) = found;
        let names = [name(first_value), name(second_value)];
        Ok(Landscape { names, values: [first_value.value, second_value.value], lines, plane, seconds })
    }

    /// Writes losses down from time to time, and says whether to go on.
    fn keep(&self, path: &Path, losses: &[f64], all: usize) -> bool {
        const EVERY: usize = 8;
        let go_on = !self.run.interrupt.raised() || losses.len() == all;
        if !go_on || losses.len().is_multiple_of(EVERY) || losses.len() == all {
            let kept = serde_json::to_vec(losses).map(|text| atomic_write(path, |writer| writer.write_all(&text)));
            // What cannot be kept is computed again.
            if !matches!(kept, Ok(Ok(()))) {
                tracing::warn!("cannot write {}", path.display());
            }
        }
        go_on
    }

    /// The top eigenvalue of every block on disjoint samples.
    fn layers(&self) -> anyhow::Result<Layers> {
        let (samples, examples) = self.subject.samples();
        let options = PowerOptions { iterations: 100, tolerance: 1e-4, seed: self.run.settings.seed };
        let settings = serde_json::json!({ "examples": examples, "options": options, "samples": samples });
        let stage = self.stage("layers", settings)?;
        if let Some(done) = stage.done::<Layers>()? {
            tracing::info!("layers: done before");
            return Ok(done);
        }
        stage.begin()?;
        let blocks = Blocks {
            model: self.subject.model(),
            blocks: self.subject.blocks(),
            path: &|block| self.subject.block_path(block),
            samples,
            problem: &|number| self.subject.problem(Sample { number, size: examples }),
            advance: &|problem: &mut S::Problem, block| self.subject.advance(problem, block),
        };
        let (measured, seconds) = blocks.measure(&Measuring {
            title: "layers",
            options,
            partial: &stage.path().join("eigenvalues.json"),
            interrupt: self.run.interrupt,
        })?;
        let layers = Layers {
            layers: sensitivities(&measured, blocks.blocks)?,
            unsettled: measured.iter().filter(|one| !one.converged).count(),
            samples,
            examples,
            seconds,
        };
        stage.finish(&layers)?;
        Ok(layers)
    }
}

/// Runs the blocks that lie below everything selected once.
fn advance<S: Subject>(subject: &S, selection: &Selection, problem: &mut S::Problem) {
    let block_of = |path: &str| (0..subject.blocks()).find(|&block| path.starts_with(&subject.block_path(block)));
    // What is in no block may lie below the first.
    let lowest = selection.pieces().iter().map(|piece| block_of(&piece.path).unwrap_or(0)).min().unwrap_or(0);
    if lowest > 0 {
        subject.advance(problem, lowest);
    }
}

/// Places of a line.
const LINE: usize = 33;

/// How far to look along an eigenvector of unit length: to where a parabola would have risen by a nat, and no further
/// than a tenth of the parameters' own length.
fn radius(value: f64, place: &Place) -> f64 {
    (2.0 / value.abs().max(1e-12)).sqrt().min(0.1 * place.length).max(1e-6)
}

/// What a stage gave before, or gives now, with the seconds that it took.
fn answered<T: Serialize + DeserializeOwned>(
    stage: &Stage,
    answer: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, f64)> {
    if let Some(done) = stage.done()? {
        tracing::info!("{}: done before", stage.name());
        return Ok(done);
    }
    stage.begin()?;
    let begun = Instant::now();
    let answer = (answer()?, begun.elapsed().as_secs_f64());
    stage.finish(&answer)?;
    Ok(answer)
}

fn stopped(error: CurvatureError) -> anyhow::Error {
    match error {
        CurvatureError::Stopped => {
            anyhow::anyhow!("stopped, what is known was kept; run the same command again to go on")
        }
        error => error.into(),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Losses of a line or plane that was stopped.
fn known(path: &Path) -> Vec<f64> {
    read_json(path).unwrap_or_default()
}

fn write_vectors(path: &Path, found: &Spectrum) -> anyhow::Result<()> {
    Ok(atomic_write(path, |writer| {
        let vectors = found.largest.iter().chain(&found.smallest);
        vectors.flat_map(|eigen| &eigen.vector).try_for_each(|number| writer.write_all(&number.to_le_bytes()))
    })?)
}

fn read_vectors(path: &Path, dim: usize) -> anyhow::Result<Vec<Vec<f32>>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let numbers: Vec<f32> = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok(numbers.chunks_exact(dim).map(<[f32]>::to_vec).collect())
}
