//! The eigenvalue of largest magnitude by power iteration (Q-BERT, arXiv 1909.05840, Algorithm 1):
//! `v <- H v / ||H v||` from a random `v`, until the Rayleigh quotient `<v, H v>` stands still.

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use crate::vector::{distance, scale_into};
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

/// The outcome of a power iteration.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// Rayleigh quotient `<v, H v>`, with its sign.
    pub value: f64,
    /// `v`, of unit norm: what `value` and `residual` were computed with.
    pub vector: Vec<f32>,
    /// `||H v - value v|| / |value|`: some eigenvalue lies within `residual |value|` of `value`. Infinite if only
    /// `value` is zero, 0 for the zero operator.
    pub residual: f64,
    /// Products made.
    pub iterations: usize,
    /// Whether the last iteration moved the value by no more than `tolerance` relative to it, with a residual of at
    /// most `sqrt(tolerance)`. The quotient's error is of second order in the residual, so both ask for about the
    /// same; the residual is what tells a settled value from a slow one and from a pair of opposite eigenvalues.
    pub converged: bool,
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
/// dimensions, not in the thousands of a layer. Deterministic given `options.seed`. The direction of `v` is never compared between iterations: it flips each time
/// where the eigenvalue is negative. An iteration that runs out is not an error: `converged` is false and `residual`
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
        vector: random_unit(dim, options.seed),
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
            return Err(CurvatureError::NonFinite { iteration });
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

/// A direction drawn uniformly from the sphere.
fn random_unit(dim: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, 0);
    let normal: Vec<f32> = (0..dim).map(|_| stream.normal()).collect();
    let length = norm(&normal);
    let mut unit = vec![0.0; dim];
    if length > 0.0 {
        scale_into(&normal, 1.0 / length, &mut unit);
    } else {
        // Every draw was 0: possible, if only in few dimensions, and a zero start would report a zero eigenvalue.
        unit[0] = 1.0;
    }
    unit
}
