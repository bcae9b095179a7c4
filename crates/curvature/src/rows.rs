//! Gauss-Newton and Fisher matrices: sums over rows of logits of `Jᵀ M J`, with `J` how a row moves with the
//! parameters and `M` a small matrix that is known.
//!
//! For softmax cross-entropy with probabilities `p` and the target `y`:
//!
//! | matrix | `M` of a row |
//! |---|---|
//! | generalized Gauss-Newton (Schraudolph, 2002), which here is the Fisher matrix | `diag(p) - p pᵀ` |
//! | Fisher by sampling (Martens and Grosse, 1503.05671) | `(p - s)(p - s)ᵀ` with targets `s` drawn from `p` |
//! | empirical Fisher | `(p - y)(p - y)ᵀ` |
//!
//! A product is `J v` by a central difference of logits, `M`, and a backward pass: about 1.7 gradients. It is positive
//! semidefinite whatever the loss.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::rng::Stream;

use crate::problem::Problem;
use crate::step::{self, Difference};
use crate::surface::Surface;
use crate::{CurvatureError, LinearOperator, dot, norm};

/// Which matrix stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Middle {
    /// The Hessian of the loss with respect to the logits: generalized Gauss-Newton.
    GaussNewton,
    /// Gradients for targets drawn from the model, so many for each row.
    Sampled { draws: usize, seed: u64 },
    /// Gradients for the targets that are given.
    Empirical,
}

impl Middle {
    /// `M jv` of a row, in place of `jv`; `place` is the row's number in the whole problem.
    fn apply(self, logits: &[f64], jv: &mut [f64], target: i64, place: u64) {
        let p = softmax(logits);
        let outer =
            |class: usize, jv: &[f64]| -> f64 { p.iter().zip(jv).map(|(p, jv)| p * jv).sum::<f64>() - jv[class] };
        match self {
            Self::GaussNewton => {
                let mean: f64 = p.iter().zip(&*jv).map(|(p, jv)| p * jv).sum();
                jv.iter_mut().zip(&p).for_each(|(jv, p)| *jv = p * (*jv - mean));
            }
            Self::Empirical => {
                let class = target as usize;
                let along = outer(class, jv);
                jv.iter_mut().zip(&p).for_each(|(jv, p)| *jv = p * along);
                jv[class] -= along;
            }
            Self::Sampled { draws, seed } => {
                let classes = sample(&p, draws, seed, place);
                let mut sum = vec![0.0; jv.len()];
                for class in classes {
                    let along = outer(class, jv) / draws as f64;
                    sum.iter_mut().zip(&p).for_each(|(sum, p)| *sum += p * along);
                    sum[class] -= along;
                }
                jv.copy_from_slice(&sum);
            }
        }
    }
}

/// Probabilities of logits.
pub(crate) fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

/// Classes drawn from probabilities, always the same for a seed and a place.
pub(crate) fn sample(p: &[f64], draws: usize, seed: u64, place: u64) -> Vec<usize> {
    let mut stream = Stream::new(seed, place);
    let one = |_| {
        let mut left = f64::from(stream.uniform());
        p.iter().position(|p| {
            left -= p;
            left < 0.0
        })
    };
    // Rounding can leave a little beyond the last.
    (0..draws).map(one).map(|class| class.unwrap_or(p.len() - 1)).collect()
}

/// `1/n Σ Jᵀ M J v` over the rows of a [`Surface`].
pub struct RowCurvature<'a, M, P> {
    surface: Surface<'a, M, P>,
    middle: Middle,
    difference: Option<Difference>,
    /// Since the step was settled.
    products: usize,
    worst: f64,
}

impl<'a, M: Module, P: Problem<M>> RowCurvature<'a, M, P> {
    /// `difference` is a step settled before; without it the first product settles one.
    ///
    /// # Errors
    /// Zero draws.
    pub fn new(
        surface: Surface<'a, M, P>,
        middle: Middle,
        difference: Option<Difference>,
    ) -> Result<Self, CurvatureError> {
        if matches!(middle, Middle::Sampled { draws: 0, .. }) {
            return Err(CurvatureError::Count("draws of a sampled Fisher matrix"));
        }
        Ok(Self { surface, middle, difference, products: 0, worst: 0.0 })
    }

    /// The step by which logits are differentiated and its estimated relative error, once a product has been made. The
    /// error of the product is about the same.
    pub fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// The largest relative error that was estimated for any product.
    pub fn worst_error(&self) -> f64 {
        self.worst
    }

    /// What it is the curvature of.
    pub fn surface(&mut self) -> &mut Surface<'a, M, P> {
        &mut self.surface
    }

    /// Logits of a part at a place, row after row.
    fn logits_at(&mut self, part: usize, v: &[f32], step: f64) -> Result<Vec<f64>, CurvatureError> {
        self.surface.move_to(v, step)?;
        Ok(self.surface.logits(part)?.into_data().iter::<f64>().collect())
    }

    /// The step for a product with `v`: settled if there is none, and tested now and then; on the first part alone.
    fn step(&mut self, v: &[f32], length: f64) -> Result<f64, CurvatureError> {
        let search = self.surface.search(length);
        if let Some(settled) = self.difference {
            self.products += 1;
            let step = settled.step / length;
            if !self.products.is_multiple_of(step::TESTED) {
                return Ok(step);
            }
            let mut jv = vec![0.0; self.logits_at(0, v, 0.0)?.len()];
            let error = step::tested_product(&mut self.first_part(v), step, &mut jv)?;
            if !search.has_grown(error, settled) {
                self.worst = self.worst.max(error);
                return Ok(step);
            }
        }
        let elements = self.logits_at(0, v, 0.0)?.len();
        let settled = step::settle(&mut self.first_part(v), elements, search)?;
        self.worst = self.worst.max(settled.error);
        self.difference = Some(Difference { step: settled.step * length, ..settled });
        self.products = 0;
        Ok(settled.step)
    }

    /// The first part's logits as a function of the step.
    fn first_part<'b>(&'b mut self, v: &'b [f32]) -> impl FnMut(f64, &mut [f64]) -> Result<(), CurvatureError> + 'b {
        |step, out| {
            out.copy_from_slice(&self.logits_at(0, v, step)?);
            Ok(())
        }
    }
}

impl<M: Module, P: Problem<M>> LinearOperator for RowCurvature<'_, M, P> {
    fn dim(&self) -> usize {
        self.surface.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let length = norm(v);
        if length == 0.0 {
            out.fill(0.0);
            return Ok(());
        }
        let step = self.step(v, length)?;
        let mut sum = vec![0.0; out.len()];
        let mut place = 0;
        for part in 0..self.surface.problem().parts() {
            let targets = self.surface.problem().targets(part);
            let (mut jv, behind) = (self.logits_at(part, v, step)?, self.logits_at(part, v, -step)?);
            jv.iter_mut().zip(behind).for_each(|(ahead, behind)| *ahead = (*ahead - behind) * 0.5 / step);
            self.surface.move_to(v, 0.0)?;
            let logits = self.surface.differentiable_logits(part, &self.surface.begin(part))?;
            let (device, dtype, shape) = (logits.device(), logits.dtype(), logits.dims());
            let [_, classes] = shape;
            let values: Vec<f64> = logits.clone().inner().into_data().iter::<f64>().collect();
            let over = 1.0 / self.surface.counted() as f64;
            for (row, &target) in targets.iter().enumerate() {
                let row = row * classes..(row + 1) * classes;
                if target == IGNORED {
                    jv[row].fill(0.0);
                } else {
                    self.middle.apply(&values[row.clone()], &mut jv[row.clone()], target, place);
                    jv[row].iter_mut().for_each(|jv| *jv *= over);
                }
                place += 1;
            }
            let weights = TensorData::new(jv, shape).convert_dtype(dtype);
            let weights = Tensor::<2>::from_data(weights, (&device, dtype));
            self.surface.add_gradient((logits * weights).sum(), &mut sum)?;
        }
        self.surface.count(1.0 + 2.0 / 3.0);
        out.iter_mut().zip(&sum).for_each(|(out, &x)| *out = x as f32);
        Ok(())
    }
}

/// The covariance of the rows' gradients: the empirical Fisher matrix less the square of the mean gradient.
pub struct GradientCovariance<'a, M, P> {
    fisher: RowCurvature<'a, M, P>,
    gradient: Vec<f32>,
}

impl<'a, M: Module, P: Problem<M>> GradientCovariance<'a, M, P> {
    /// Computes the mean gradient.
    ///
    /// # Errors
    /// Parts that do not fit the model.
    pub fn new(mut surface: Surface<'a, M, P>) -> Result<Self, CurvatureError> {
        let dim = surface.dim();
        let mut gradient = vec![0.0; dim];
        surface.gradient_at(&vec![0.0; dim], 0.0, &mut gradient)?;
        let gradient = gradient.into_iter().map(|g| g as f32).collect();
        Ok(Self { fisher: RowCurvature::new(surface, Middle::Empirical, None)?, gradient })
    }
}

impl<M: Module, P: Problem<M>> LinearOperator for GradientCovariance<'_, M, P> {
    fn dim(&self) -> usize {
        self.gradient.len()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.fisher.apply(v, out)?;
        let along = dot(&self.gradient, v);
        out.iter_mut().zip(&self.gradient).for_each(|(out, &g)| *out = (f64::from(*out) - along * f64::from(g)) as f32);
        Ok(())
    }
}
