//! A layer's factors: averaged over the steps, damped, inverted, multiplied with.

use faer::linalg::solvers::DenseSolveCore;
use faer::{Mat, Side};
use lapidary_curvature::CurvatureError;
use lapidary_curvature::kronecker::{FactorEigen, InputFactor, LayerFactors};
use lapidary_kernels::linear::{linear, linear_backward_input, linear_backward_weight};
use lapidary_kernels::precision::Precision;

use super::{KfacForm, Raised};

/// What is known of a layer.
pub(crate) struct Layer {
    /// Averages.
    pub factors: LayerFactors,
    /// Sum of the weights that are in the averages.
    pub weight: f64,
    /// Of the averages at the last inversion; only where it is needed.
    pub inverse: Option<Inverse>,
    /// Whether there has been an inversion, on this rank or another.
    pub inverted: bool,
}

/// What a layer's gradient is multiplied with.
pub(crate) enum Inverse {
    Split {
        input: InputInverse,
        /// `[O, O]`.
        gradient: Vec<f32>,
    },
    Eigen(Eigen),
}

pub(crate) enum InputInverse {
    /// `[I, I]`, or `[I + 1, I + 1]` with a bias.
    Full(Vec<f32>),
    /// Of a table, one a row.
    Diagonal(Vec<f32>),
}

/// The factors by their eigenvalues and eigenvectors, the vectors in rows.
pub(crate) struct Eigen {
    pub input_values: Vec<f64>,
    /// `[I, I]`; of a table none, whose rows are their own.
    pub input_vectors: Vec<f32>,
    pub gradient_values: Vec<f64>,
    /// `[O, O]`.
    pub gradient_vectors: Vec<f32>,
}

impl Layer {
    pub fn new(factors: LayerFactors) -> Self {
        Self { factors, weight: 1.0, inverse: None, inverted: false }
    }

    /// Of the input's factor and the gradient's.
    pub fn sizes(&self) -> (usize, usize) {
        let inputs = match &self.factors.input {
            InputFactor::Full(input) => input.nrows(),
            InputFactor::Diagonal(input) => input.len(),
        };
        (inputs, self.factors.gradient.nrows())
    }

    pub fn is_table(&self) -> bool {
        matches!(self.factors.input, InputFactor::Diagonal(_))
    }

    /// `Σ decay^age F / Σ decay^age`: the weights add up to 1 from the first on.
    pub fn average(&mut self, new: LayerFactors, decay: f64) -> Result<(), CurvatureError> {
        self.weight = decay * self.weight + 1.0;
        let share = 1.0 / self.weight;
        let mix = |old: &mut Mat<f64>, new: &Mat<f64>| {
            if (old.nrows(), old.ncols()) != (new.nrows(), new.ncols()) {
                let what = "a layer's factor";
                return Err(CurvatureError::Dimension { what, expected: old.nrows(), found: new.nrows() });
            }
            *old += (new - &*old) * faer::Scale(share);
            Ok(())
        };
        match (&mut self.factors.input, &new.input) {
            (InputFactor::Full(old), InputFactor::Full(new)) => mix(old, new)?,
            (InputFactor::Diagonal(old), InputFactor::Diagonal(new)) if old.len() == new.len() => {
                old.iter_mut().zip(new).for_each(|(old, new)| *old += share * (new - *old));
            }
            (InputFactor::Full(old), InputFactor::Diagonal(new)) => {
                return Err(CurvatureError::Dimension {
                    what: "a layer's factor",
                    expected: old.nrows(),
                    found: new.len(),
                });
            }
            (InputFactor::Diagonal(old), _) => {
                return Err(CurvatureError::Dimension { what: "a table's factor", expected: old.len(), found: 0 });
            }
        }
        mix(&mut self.factors.gradient, &new.gradient)
    }

    /// Inverts the averages, with ten times the damping where they cannot be with less, a few times over.
    pub fn invert(&mut self, damping: f64, form: KfacForm) -> Result<Option<Raised>, CurvatureError> {
        if !(damping > 0.0 && damping.is_finite()) {
            return Err(CurvatureError::Damping(damping));
        }
        if form == KfacForm::Eigen {
            self.inverse = Some(Inverse::Eigen(Eigen::of(&self.factors.eigen()?)));
            return Ok(None);
        }
        const TRIES: i32 = 8;
        for tries in 0..TRIES {
            let damping = damping * 10f64.powi(tries);
            if let Some(inverse) = self.split_inverse(damping) {
                self.inverse = Some(inverse);
                let weight = self.factors.weight.clone();
                return Ok((tries > 0).then_some(Raised { weight, damping }));
            }
        }
        Err(CurvatureError::NonFiniteFactor(self.factors.weight.clone()))
    }

    fn split_inverse(&self, damping: f64) -> Option<Inverse> {
        let LayerFactors { input, gradient, .. } = &self.factors;
        let mean =
            |matrix: &Mat<f64>| (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum::<f64>() / matrix.nrows().max(1) as f64;
        let of_input = match input {
            InputFactor::Full(input) => mean(input),
            InputFactor::Diagonal(input) => input.iter().sum::<f64>() / input.len().max(1) as f64,
        };
        // Where one of them vanishes there is nothing to share by.
        let ratio = of_input / mean(gradient);
        let split = if ratio > 0.0 && ratio.is_finite() { ratio.sqrt() } else { 1.0 };
        let (for_input, for_gradient) = (split * damping.sqrt(), damping.sqrt() / split);
        let input = match input {
            InputFactor::Full(input) => InputInverse::Full(inverse(input, for_input)?),
            InputFactor::Diagonal(input) => {
                InputInverse::Diagonal(input.iter().map(|share| (share + for_input).recip() as f32).collect())
            }
        };
        Some(Inverse::Split { input, gradient: inverse(gradient, for_gradient)? })
    }

    /// `vᵀ (A ⊗ B) v` by the averages, for a step `v` of the weight and the bias.
    pub fn curvature_along(&mut self, weight: &[f32], bias: Option<&[f32]>) -> Result<f64, CurvatureError> {
        use lapidary_curvature::LinearOperator;
        let joined = [weight, bias.unwrap_or_default()].concat();
        let mut product = vec![0.0; joined.len()];
        self.factors.apply(&joined, &mut product)?;
        Ok(dot(&joined, &product))
    }
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// `(matrix + damping)⁻¹`, row-major, if it is positive definite and its inverse finite.
fn inverse(matrix: &Mat<f64>, damping: f64) -> Option<Vec<f32>> {
    let n = matrix.nrows();
    let damped = Mat::from_fn(n, n, |i, j| matrix[(i, j)] + if i == j { damping } else { 0.0 });
    let inverse = damped.llt(Side::Lower).ok()?.inverse();
    let numbers: Vec<f32> = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|at| inverse[at] as f32).collect();
    numbers.iter().all(|number| number.is_finite()).then_some(numbers)
}

impl Eigen {
    fn of(found: &FactorEigen) -> Self {
        // Columns of theirs are rows of ours.
        let rows = |vectors: &Mat<f64>| {
            let n = vectors.ncols();
            (0..n).flat_map(|j| (0..n).map(move |i| (i, j))).map(|at| vectors[at] as f32).collect()
        };
        Self {
            input_values: found.input.0.clone(),
            input_vectors: rows(&found.input.1),
            gradient_values: found.gradient.0.clone(),
            gradient_vectors: rows(&found.gradient.1),
        }
    }

    /// `(A ⊗ B + damping)⁻¹` times a layer's gradient `[O, I]`, or a table's `[V, D]`.
    fn apply(&self, gradient: &[f32], damping: f64) -> Vec<f32> {
        let (inputs, outputs) = (self.input_values.len(), self.gradient_values.len());
        let mut turned = vec![0.0; gradient.len()];
        let mut product = vec![0.0; gradient.len()];
        let vectors = &self.gradient_vectors;
        if self.input_vectors.is_empty() {
            linear(gradient, vectors, None, None, inputs, outputs, outputs, Precision::F32, &mut turned);
            for (row, input) in turned.chunks_exact_mut(outputs.max(1)).zip(&self.input_values) {
                row.iter_mut().zip(&self.gradient_values).for_each(|(x, b)| *x = divided(*x, input * b + damping));
            }
            linear_backward_input(&turned, vectors, inputs, outputs, outputs, Precision::F32, &mut product);
            return product;
        }
        let of_input = &self.input_vectors;
        linear(gradient, of_input, None, None, outputs, inputs, inputs, Precision::F32, &mut product);
        linear_backward_input(vectors, &product, outputs, inputs, outputs, Precision::F32, &mut turned);
        for (row, b) in turned.chunks_exact_mut(inputs.max(1)).zip(&self.gradient_values) {
            row.iter_mut().zip(&self.input_values).for_each(|(x, a)| *x = divided(*x, a * b + damping));
        }
        linear_backward_weight(vectors, &turned, outputs, inputs, outputs, Precision::F32, &mut product);
        linear_backward_input(&product, of_input, outputs, inputs, inputs, Precision::F32, &mut turned);
        turned
    }
}

fn divided(x: f32, by: f64) -> f32 {
    (f64::from(x) / by) as f32
}

impl Inverse {
    /// What a layer's gradients become, and its bias's part; the damping is the present one where the form has it apart
    /// from the factors.
    pub fn apply(&self, weight: &[f32], bias: Option<&[f32]>, damping: f64) -> (Vec<f32>, Option<Vec<f32>>) {
        let (of_table, all) = match self {
            Self::Split { input: InputInverse::Diagonal(_), gradient } => (true, gradient.len().isqrt()),
            Self::Split { input: InputInverse::Full(input), .. } => (false, input.len().isqrt()),
            Self::Eigen(eigen) => (eigen.input_vectors.is_empty(), eigen.input_values.len()),
        };
        // Weight and bias side by side, `[O, I + 1]`; a table has no bias.
        let joined = match bias.filter(|_| !of_table) {
            None => weight.to_vec(),
            Some(bias) => {
                let rows = weight.chunks_exact((all - 1).max(1)).zip(bias);
                rows.flat_map(|(row, bias)| row.iter().chain([bias])).copied().collect()
            }
        };
        let product = match self {
            Self::Eigen(eigen) => eigen.apply(&joined, damping),
            Self::Split { input, gradient } => split_product(input, gradient, &joined),
        };
        match bias {
            Some(_) if !of_table => {
                let (rows, bias): (Vec<&[f32]>, Vec<f32>) =
                    product.chunks_exact(all).map(|row| (&row[..all - 1], row[all - 1])).unzip();
                (rows.concat(), Some(bias))
            }
            bias => (product, bias.map(<[f32]>::to_vec)),
        }
    }
}

/// `B⁻¹ G A⁻¹`, of a table `A⁻¹ G B⁻¹`.
fn split_product(input: &InputInverse, gradient: &[f32], joined: &[f32]) -> Vec<f32> {
    let outputs = gradient.len().isqrt();
    let mut product = vec![0.0; joined.len()];
    match input {
        InputInverse::Diagonal(input) => {
            linear(joined, gradient, None, None, input.len(), outputs, outputs, Precision::F32, &mut product);
            for (row, share) in product.chunks_exact_mut(outputs.max(1)).zip(input) {
                row.iter_mut().for_each(|x| *x *= share);
            }
        }
        InputInverse::Full(input) => {
            let all = input.len().isqrt();
            let mut half = vec![0.0; joined.len()];
            linear(joined, input, None, None, outputs, all, all, Precision::F32, &mut half);
            // Both inverses are symmetric, so that a transpose is the matrix itself.
            linear_backward_weight(gradient, &half, outputs, all, outputs, Precision::F32, &mut product);
        }
    }
    product
}
