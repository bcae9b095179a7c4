//! Products with an inverse, by conjugate gradients.

use super::LinearOperator;
use crate::{CurvatureError, dot, norm};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InverseOptions {
    /// Of `‖A x - v‖ / ‖v‖`.
    pub tolerance: f64,
    /// Most products of `A` for a product of its inverse.
    pub products: usize,
}

impl Default for InverseOptions {
    fn default() -> Self {
        Self { tolerance: 1e-5, products: 1000 }
    }
}

/// `A⁻¹` of a positive definite operator: a product solves `A x = v` (Hestenes and Stiefel, 1952). Damp what is only
/// positive semidefinite by [`Shifted`](super::Shifted).
#[derive(Clone, Debug)]
pub struct Inverse<O> {
    pub operator: O,
    pub options: InverseOptions,
}

fn dot64(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<O: LinearOperator> LinearOperator for Inverse<O> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let size = norm(v);
        out.fill(0.0);
        if size == 0.0 {
            return Ok(());
        }
        let dim = v.len();
        let mut solution = vec![0f64; dim];
        let mut residual: Vec<f64> = v.iter().map(|&v| v.into()).collect();
        let mut direction = v.to_vec();
        let mut product = vec![0.0; dim];
        let mut squared = dot64(&residual, &residual);
        for products in 1..=self.options.products {
            self.operator.apply(&direction, &mut product)?;
            let curvature = dot(&direction, &product);
            if !curvature.is_finite() {
                return Err(CurvatureError::NonFinite { product: products });
            }
            if curvature <= 0.0 {
                return Err(CurvatureError::Indefinite { curvature: curvature / dot(&direction, &direction) });
            }
            let length = squared / curvature;
            solution.iter_mut().zip(&direction).for_each(|(x, &d)| *x += length * f64::from(d));
            residual.iter_mut().zip(&product).for_each(|(r, &p)| *r -= length * f64::from(p));
            let before = std::mem::replace(&mut squared, dot64(&residual, &residual));
            if squared.sqrt() <= self.options.tolerance * size {
                out.iter_mut().zip(&solution).for_each(|(out, x)| *out = *x as f32);
                return Ok(());
            }
            let kept = squared / before;
            direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = (r + kept * f64::from(*d)) as f32);
        }
        Err(CurvatureError::NotSolved {
            residual: squared.sqrt() / size,
            tolerance: self.options.tolerance,
            products: self.options.products,
        })
    }
}
