//! The loss as a function of some parameters.

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};
use lapidary_models::{Kinks, Pass, parameters};

use crate::problem::Problem;
use crate::selection::Selection;
use crate::step::Search;
use crate::{CurvatureError, norm};

/// The mean loss of a model over a problem's examples as a function of the selected parameters, around the values that
/// they have.
///
/// The arithmetic is that of the model's parameters: see [`parameters::cast`] for `f64`. Dropout is off. ReLUs stay on
/// the side that they are on in the middle, so that a difference of two places never crosses a kink. Batch norm uses its
/// stored statistics, unless [`Surface::with_batch_statistics`] says otherwise.
///
/// A place is `middle + step · v`, with `step` 0 for the middle. The memory needed is that of one part of the problem.
pub struct Surface<'a, M, P> {
    problem: &'a P,
    /// `None` only while it is being moved.
    model: Option<M>,
    selection: Selection,
    /// The selected elements.
    middle: Vec<f32>,
    /// All elements of each parameter that has a selected one.
    whole: Vec<(String, Vec<f32>)>,
    dtype: DType,
    /// Targets that count.
    counted: usize,
    pass: Pass,
    /// One for each part; none for a model without ReLUs.
    kinks: Vec<Kinks>,
    /// Gradients computed so far, of the whole problem; a pass without a gradient counts as a third of one.
    gradients: f64,
}

/// Parts that stand for all of them where a step is looked for.
const SAMPLED: usize = 4;

/// Of a gradient's cost: a pass forward, which is followed by two as long.
const FORWARD: f64 = 1.0 / 3.0;

impl<'a, M: Module, P: Problem<M>> Surface<'a, M, P> {
    /// `model` is on an autodiff device.
    ///
    /// # Errors
    /// A problem without targets, one of which some part does not fit the model, a selection of another model.
    pub fn new(model: M, problem: &'a P, selection: Selection) -> Result<Self, CurvatureError> {
        Self::with_pass(model, problem, selection, Pass::evaluation())
    }

    /// The same where batch norm takes the statistics of each part.
    ///
    /// # Errors
    /// As [`Surface::new`].
    pub fn with_batch_statistics(model: M, problem: &'a P, selection: Selection) -> Result<Self, CurvatureError> {
        Self::with_pass(model, problem, selection, Pass::batch_statistics())
    }

    fn with_pass(model: M, problem: &'a P, selection: Selection, pass: Pass) -> Result<Self, CurvatureError> {
        let counted = problem.counted();
        if counted == 0 {
            return Err(CurvatureError::NoTargets);
        }
        let model = parameters::train_only(model, &|path| selection.has(path));
        let (mut middle, mut whole, mut dtype) = (vec![0.0; selection.dim()], Vec::new(), DType::F32);
        parameters::visit(&model, &mut |parameter| {
            if selection.has(parameter.path) {
                dtype = parameter.value.dtype();
                let elements = parameters::elements(parameter.value);
                for piece in selection.of_path(parameter.path) {
                    middle[piece.range()].copy_from_slice(&elements[piece.elements.clone()]);
                }
                whole.push((parameter.path.to_owned(), elements));
            }
        });
        if let Some(piece) = selection.pieces().iter().find(|piece| !whole.iter().any(|(path, _)| *path == piece.path))
        {
            return Err(CurvatureError::Parameter(piece.path.clone()));
        }
        let model = Some(model);
        let mut surface =
            Self { problem, model, selection, middle, whole, dtype, counted, pass, kinks: Vec::new(), gradients: 0.0 };
        surface.find_kinks()?;
        Ok(surface)
    }

    /// Runs the parts once, to write down on which side their ReLUs are.
    fn find_kinks(&mut self) -> Result<(), CurvatureError> {
        let model = self.model()?.valid();
        for part in 0..self.problem.parts() {
            let kinks = Kinks::default();
            let pass = self.pass.clone().with_kinks(kinks.clone());
            self.problem.logits(&model, part, &pass).map_err(CurvatureError::operator)?;
            if kinks.is_empty() {
                break;
            }
            self.kinks.push(kinks);
        }
        Ok(())
    }

    fn model(&self) -> Result<&M, CurvatureError> {
        self.model.as_ref().ok_or(CurvatureError::Empty)
    }

    /// What the vectors' elements are.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Elements of a vector.
    pub fn dim(&self) -> usize {
        self.selection.dim()
    }

    /// The selected elements as they are in the middle.
    pub fn middle(&self) -> &[f32] {
        &self.middle
    }

    /// The problem.
    pub fn problem(&self) -> &'a P {
        self.problem
    }

    /// Targets that the mean is over.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Gradients of the whole problem that were computed so far; a pass without a gradient counts as a third of one.
    pub fn gradients(&self) -> f64 {
        self.gradients
    }

    /// Whether the arithmetic is that of `f64`.
    pub fn is_f64(&self) -> bool {
        self.dtype == DType::F64
    }

    /// Where to look for a step for differences along a vector of this length.
    pub fn search(&self, length: f64) -> Search {
        let scale = norm(&self.middle).max(1.0) / length;
        if self.is_f64() { Search::of_f64(scale) } else { Search::of_f32(scale) }
    }

    /// The mean loss at a place, with ReLUs as they are there.
    ///
    /// # Errors
    /// Parts that do not fit the model.
    pub fn loss_at(&mut self, v: &[f32], step: f64) -> Result<f64, CurvatureError> {
        self.move_to(v, step)?;
        let model = self.model()?.valid();
        let mut sum = 0.0;
        for part in 0..self.problem.parts() {
            let loss = self.problem.loss(&model, part, self.counted as f32, &self.pass);
            sum += loss.map_err(CurvatureError::operator)?.into_scalar::<f64>();
        }
        self.gradients += FORWARD;
        Ok(sum)
    }

    /// The gradient of the mean loss at a place.
    ///
    /// # Errors
    /// Parts that do not fit the model.
    pub fn gradient_at(&mut self, v: &[f32], step: f64, out: &mut [f64]) -> Result<(), CurvatureError> {
        self.gradient_of(0..self.problem.parts(), v, step, out)
    }

    /// The share of a few parts in the gradient at a place: enough to find a step with. They are taken from all over
    /// the problem, whose parts may stand in the order of their length.
    pub(crate) fn sampled_gradient_at(&mut self, v: &[f32], step: f64, out: &mut [f64]) -> Result<(), CurvatureError> {
        let parts = self.problem.parts();
        let sampled = parts.min(SAMPLED);
        self.gradient_of((0..sampled).map(|i| (2 * i + 1) * parts / (2 * sampled)), v, step, out)
    }

    /// Whether those few parts are all there are.
    pub(crate) fn all_are_sampled(&self) -> bool {
        self.problem.parts() <= SAMPLED
    }

    fn gradient_of(
        &mut self,
        parts: impl ExactSizeIterator<Item = usize>,
        v: &[f32],
        step: f64,
        out: &mut [f64],
    ) -> Result<(), CurvatureError> {
        self.move_to(v, step)?;
        out.fill(0.0);
        let share = parts.len() as f64 / self.problem.parts() as f64;
        for part in parts {
            let loss = self.problem.loss(self.model()?, part, self.counted as f32, &self.begin(part));
            self.add_gradient(loss.map_err(CurvatureError::operator)?, out)?;
        }
        self.gradients += share;
        Ok(())
    }

    /// Moves the model to a place.
    pub(crate) fn move_to(&mut self, v: &[f32], step: f64) -> Result<(), CurvatureError> {
        let Self { model, selection, whole, dtype, .. } = self;
        let moved = parameters::map(model.take().ok_or(CurvatureError::Empty)?, &mut |parameter| {
            let Some((path, whole)) = whole.iter().find(|(path, _)| path == parameter.path) else {
                return parameter.value;
            };
            let device = parameter.value.device();
            // In f64, so that a short step is rounded once at most.
            let mut values: Vec<f64> = whole.iter().map(|&w| w.into()).collect();
            for piece in selection.of_path(path) {
                for (value, &v) in values[piece.elements.clone()].iter_mut().zip(&v[piece.range()]) {
                    *value += step * f64::from(v);
                }
            }
            let shape = [values.len()];
            let data = match dtype {
                DType::F64 => TensorData::new(values, shape),
                _ => TensorData::new(values.into_iter().map(|value| value as f32).collect::<Vec<f32>>(), shape),
            };
            Tensor::from_data(data, (&device, *dtype))
        });
        *model = Some(moved);
        Ok(())
    }

    /// A pass over a part.
    pub(crate) fn begin(&self, part: usize) -> Pass {
        match self.kinks.get(part) {
            Some(kinks) => {
                kinks.begin();
                self.pass.clone().with_kinks(kinks.clone())
            }
            None => self.pass.clone(),
        }
    }

    /// Logits of a part where the model is, `[rows, classes]`, without gradient.
    pub(crate) fn logits(&self, part: usize) -> Result<Tensor<2>, CurvatureError> {
        self.problem.logits(&self.model()?.valid(), part, &self.begin(part)).map_err(CurvatureError::operator)
    }

    /// The same with a graph behind it.
    pub(crate) fn differentiable_logits(&self, part: usize, pass: &Pass) -> Result<Tensor<2>, CurvatureError> {
        self.problem.logits(self.model()?, part, pass).map_err(CurvatureError::operator)
    }

    /// Adds the gradient of a scalar that was computed by the model where it is.
    pub(crate) fn add_gradient(&self, scalar: Tensor<1>, out: &mut [f64]) -> Result<(), CurvatureError> {
        let model = self.model()?;
        let gradients = parameters::gradients(model, scalar.backward());
        parameters::visit(model, &mut |parameter| {
            // A parameter that the loss does not reach has gradient zero.
            let Some(gradient) = gradients.get(&parameter.id).filter(|_| self.selection.has(parameter.path)) else {
                return;
            };
            let data = gradient.clone().into_data();
            let pieces = || self.selection.of_path(parameter.path);
            // The iterator of a `TensorData` converts through a box, element by element: a second a product of a block.
            if let Ok(gradient) = data.as_slice::<f32>() {
                for piece in pieces() {
                    add(&mut out[piece.range()], &gradient[piece.elements.clone()]);
                }
            } else {
                let gradient: Vec<f64> = data.iter().collect();
                for piece in pieces() {
                    add(&mut out[piece.range()], &gradient[piece.elements.clone()]);
                }
            }
        });
        Ok(())
    }

    /// Counts work for [`Surface::gradients`].
    pub(crate) fn count(&mut self, gradients: f64) {
        self.gradients += gradients;
    }

    /// The model in the middle, on its autodiff device, and what is selected of it.
    pub(crate) fn in_the_middle(&mut self) -> Result<(&M, &Selection), CurvatureError> {
        let zeros = vec![0.0; self.dim()];
        self.move_to(&zeros, 0.0)?;
        Ok((self.model()?, &self.selection))
    }
}

fn add<T: Copy + Into<f64>>(sum: &mut [f64], terms: &[T]) {
    for (sum, &term) in sum.iter_mut().zip(terms) {
        *sum += term.into();
    }
}
