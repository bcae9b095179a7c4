//! The eigenvalue of largest magnitude by power iteration (Q-BERT, arXiv 1909.05840, Algorithm 1):
//! `v <- H v / ||H v||` from a random `v`, until the Rayleigh quotient `<v, H v>` stands still.

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use super::Eigen;
use crate::basis::{Basis, unit};
use crate::vector::{distance, random_unit, scale_into};
use crate::{CurvatureError, LinearOperator, dot, norm};

/// How long to iterate. The defaults are PyHessian's: at most 100 iterations, tolerance 1e-3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerOptions {
    /// The most products that are made.
    pub iterations: usize,
    /// Relative accuracy asked of the eigenvalue; see [`Eigen::converged`].
    pub tolerance: f64,
    /// Of the start vector.
    pub seed: u64,
}

impl Default for PowerOptions {
    fn default() -> Self {
        Self { iterations: 100, tolerance: 1e-3, seed: 0 }
    }
}

/// What is known after an iteration, for a progress line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerStep {
    /// Counted from 1.
    pub iteration: usize,
    pub value: f64,
    pub residual: f64,
}

/// The eigenvalue of largest magnitude of a symmetric operator.
///
/// A start that is all but orthogonal to the top eigenvector can settle on the next one: likely in a handful of
/// dimensions, not in the thousands of a layer. Deterministic given `options.seed`. The direction of `v` is never
/// compared between iterations: it flips each time where the eigenvalue is negative. An iteration that runs out is not an error: `converged` is false and `residual`
/// says how far it got. Fails on dimension 0, on NaN or infinity in a product, and with the operator's own errors.
pub fn top_eigenvalue(
    operator: &mut dyn LinearOperator,
    options: &PowerOptions,
    progress: &mut dyn FnMut(PowerStep),
) -> Result<Eigen, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    let mut eigen = Eigen {
        value: 0.0,
        vector: random_unit(dim, &mut Stream::new(options.seed, 0)),
        residual: f64::INFINITY,
        iterations: 0,
        converged: false,
    };
    let mut product = vec![0.0; dim];
    for iteration in 1..=options.iterations {
        if iteration > 1 {
            // The last product is not zero: that ends the loop below.
            scale_into(&product, 1.0 / norm(&product), &mut eigen.vector);
        }
        operator.apply(&eigen.vector, &mut product)?;
        let previous = std::mem::replace(&mut eigen.value, dot(&eigen.vector, &product));
        let length = norm(&product);
        if !length.is_finite() {
            return Err(CurvatureError::NonFinite { product: iteration });
        }
        let distance = distance(&product, eigen.value, &eigen.vector);
        eigen.residual = if distance == 0.0 { 0.0 } else { distance / eigen.value.abs() };
        eigen.iterations = iteration;
        progress(PowerStep { iteration, value: eigen.value, residual: eigen.residual });

        let still = iteration > 1 && (eigen.value - previous).abs() <= options.tolerance * eigen.value.abs();
        eigen.converged = length == 0.0 || (still && eigen.residual <= options.tolerance.sqrt());
        if eigen.converged {
            break;
        }
    }
    Ok(eigen)
}

/// The `count` eigenvalues of largest magnitude, one after the other: those found are taken out of the operator
/// (deflation, as PyHessian does it). [`lanczos`](super::lanczos) needs far fewer products for more than one.
pub fn top_eigenvalues(
    operator: &mut dyn LinearOperator,
    count: usize,
    options: &PowerOptions,
    progress: &mut dyn FnMut(usize, PowerStep),
) -> Result<Vec<Eigen>, CurvatureError> {
    let mut found = Vec::new();
    let mut basis = Basis::new(operator.dim());
    for number in 0..count.min(operator.dim()) {
        let mut deflated = Deflated { operator: &mut *operator, basis: &basis };
        let options = PowerOptions { seed: options.seed.wrapping_add(number as u64), ..*options };
        let eigen = top_eigenvalue(&mut deflated, &options, &mut |step| progress(number, step))?;
        let mut vector: Vec<f64> = eigen.vector.iter().map(|&v| v.into()).collect();
        basis.remove_from(&mut vector);
        basis.push(unit(&vector).0);
        found.push(eigen);
    }
    Ok(found)
}

/// `P A P` with `P` what is orthogonal to the basis.
struct Deflated<'a> {
    operator: &'a mut dyn LinearOperator,
    basis: &'a Basis,
}

impl Deflated<'_> {
    fn project(&self, v: &[f32]) -> Vec<f32> {
        let mut projected: Vec<f64> = v.iter().map(|&v| v.into()).collect();
        self.basis.remove_from(&mut projected);
        projected.into_iter().map(|v| v as f32).collect()
    }
}

impl LinearOperator for Deflated<'_> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.operator.apply(&self.project(v), out)?;
        let projected = self.project(out);
        out.copy_from_slice(&projected);
        Ok(())
    }
}
