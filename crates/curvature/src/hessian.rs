//! The Hessian of a loss, by central differences of gradients.

use burn::module::Module;

use crate::problem::Problem;
use crate::step::{self, Difference, Search};
use crate::surface::Surface;
use crate::{CurvatureError, LinearOperator, norm};

/// `H v` of a [`Surface`], two gradients a product. The first product settles the step, on a few parts of the problem
/// where these say enough; the error of a product is estimated then, on the whole problem at the second product and at
/// every sixteenth one, and the step is settled anew if it has grown.
pub struct Hessian<'a, M, P> {
    surface: Surface<'a, M, P>,
    difference: Option<Difference>,
    /// Counted to the next that is tested.
    products: usize,
    worst: f64,
}

/// Steps of a [`Difference`] are those of a unit vector; a longer one takes a shorter step.
impl<'a, M: Module, P: Problem<M>> Hessian<'a, M, P> {
    /// `difference` is a step settled before, on other data or another vector; without it the first product settles
    /// one.
    pub fn new(surface: Surface<'a, M, P>, difference: Option<Difference>) -> Self {
        Self { surface, difference, products: 0, worst: 0.0 }
    }

    /// The step that further products take and its estimated relative error, once a product has been made.
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

    /// Finds the step for products with `v`, which is not zero; `search` is the surface's, or a shorter one.
    fn settle(&mut self, v: &[f32], search: Search) -> Result<Difference, CurvatureError> {
        let (length, dim) = (norm(v), self.surface.dim());
        let mut settled = step::settle(&mut |step, out| self.surface.sampled_gradient_at(v, step, out), dim, search)?;
        // A few parts may have next to no curvature where the whole has much: a model that is sure of most of its
        // training examples owes it to the rest of them. The differences of those parts are rounding at every step
        // that is short enough.
        if !self.surface.all_are_sampled() && !search.is_kept_by(settled) {
            let search = search.from(settled);
            settled = step::settle(&mut |step, out| self.surface.gradient_at(v, step, out), dim, search)?;
        }
        // The next product is tested.
        self.products = step::TESTED - 1;
        Ok(Difference { step: settled.step * length, error: settled.error })
    }
}

impl<M: Module, P: Problem<M>> LinearOperator for Hessian<'_, M, P> {
    fn dim(&self) -> usize {
        self.surface.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let length = norm(v);
        if length == 0.0 {
            out.fill(0.0);
            return Ok(());
        }
        let mut wide = vec![0.0; out.len()];
        let round = |wide: &[f64], out: &mut [f32]| out.iter_mut().zip(wide).for_each(|(out, &x)| *out = x as f32);
        let Some(settled) = self.difference else {
            let search = self.surface.search(length);
            let first = self.settle(v, search.for_one_product())?;
            step::product(&mut |step, out| self.surface.gradient_at(v, step, out), first.step / length, &mut wide)?;
            round(&wide, out);
            // What is asked for next lies along the most curved directions, where the step that suits a random vector
            // can be ten times too long and bend the top eigenvalue by a percent. The first product already points that
            // way.
            let length = norm(out);
            let settled = match length > 0.0 {
                true => self.settle(out, self.surface.search(length))?,
                false => first,
            };
            self.worst = self.worst.max(settled.error);
            self.difference = Some(settled);
            return Ok(());
        };
        self.products += 1;
        let (step, search) = (settled.step / length, self.surface.search(length));
        if self.products.is_multiple_of(step::TESTED) {
            let mut gradient_at = |step: f64, out: &mut [f64]| self.surface.gradient_at(v, step, out);
            let error = step::tested_product(&mut gradient_at, step, &mut wide)?;
            if search.has_grown(error, settled) {
                let settled = self.settle(v, search)?;
                self.difference = Some(settled);
                self.worst = self.worst.max(settled.error);
                let mut gradient_at = |step: f64, out: &mut [f64]| self.surface.gradient_at(v, step, out);
                step::product(&mut gradient_at, settled.step / length, &mut wide)?;
            } else {
                self.worst = self.worst.max(error);
            }
        } else {
            step::product(&mut |step, out| self.surface.gradient_at(v, step, out), step, &mut wide)?;
        }
        round(&wide, out);
        Ok(())
    }
}
