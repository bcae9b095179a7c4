//! Spectral densities by stochastic Lanczos quadrature (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl. 38, 2017;
//! Ghorbani, Krishnan and Xiao, 1901.10159): where all eigenvalues lie, not only the outermost.
//!
//! A random unit vector has about the same share of every eigenvector. The Lanczos process that begins at it makes a
//! small matrix whose eigenvalues `θ`, weighted by the squares of their vectors' first entries, are the Gauss
//! quadrature of the spectrum as this vector sees it: all moments up to twice the steps are exact.

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use crate::basis::{Basis, unit};
use crate::symmetric::{Symmetric, diagonalize};
use crate::vector::random_unit;
use crate::{CurvatureError, LinearOperator, dot};

/// How many products, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DensityOptions {
    /// Random vectors.
    pub probes: usize,
    /// Products for each.
    pub steps: usize,
    pub seed: u64,
}

impl Default for DensityOptions {
    fn default() -> Self {
        Self { probes: 4, steps: 40, seed: 0 }
    }
}

/// An eigenvalue, or a few close together, and the share of all that they are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub value: f64,
    pub weight: f64,
}

/// The distribution of the eigenvalues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Ascending; the weights add up to 1.
    pub nodes: Vec<Node>,
    pub products: usize,
}

impl Density {
    /// The mean of `value^k` over the eigenvalues. `k` 1 times the dimension is the trace.
    pub fn moment(&self, k: i32) -> f64 {
        self.nodes.iter().map(|node| node.weight * node.value.powi(k)).sum()
    }

    /// Share of the eigenvalues below a threshold.
    pub fn share_below(&self, threshold: f64) -> f64 {
        self.nodes.iter().filter(|node| node.value < threshold).map(|node| node.weight).sum()
    }

    /// The density at each of `places`, with every node spread to a normal distribution of deviation `width`.
    pub fn at(&self, places: &[f64], width: f64) -> Vec<f64> {
        let height = 1.0 / (width * std::f64::consts::TAU.sqrt());
        let bell =
            |place: f64, node: &Node| node.weight * height * (-0.5 * ((place - node.value) / width).powi(2)).exp();
        places.iter().map(|&place| self.nodes.iter().map(|node| bell(place, node)).sum()).collect()
    }
}

/// The spectral density of a symmetric operator.
///
/// `progress` sees the number of products made so far, of `probes · steps` at most. Fails on dimension 0, on zero
/// probes or steps, on NaN or infinity in a product, and with the operator's own errors.
pub fn density(
    operator: &mut dyn LinearOperator,
    options: &DensityOptions,
    progress: &mut dyn FnMut(usize),
) -> Result<Density, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    if options.probes == 0 || options.steps == 0 {
        return Err(CurvatureError::Count("probes or steps of a density"));
    }
    let mut nodes = Vec::new();
    let mut products = 0;
    for probe in 0..options.probes {
        let mut basis = Basis::new(dim);
        basis.push(random_unit(dim, &mut Stream::new(options.seed, probe as u64)));
        let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
        let mut product = vec![0.0; dim];
        for step in 0..options.steps.min(dim) {
            operator.apply(&basis.vectors()[step], &mut product)?;
            products += 1;
            if !dot(&product, &product).is_finite() {
                return Err(CurvatureError::NonFinite { product: products });
            }
            let mut rest: Vec<f64> = product.iter().map(|&x| x.into()).collect();
            let along = basis.remove_from(&mut rest);
            diagonal.push(along[step]);
            progress(products);
            let (next, left) = unit(&rest);
            let size = diagonal.iter().chain(&beside).fold(0f64, |size, entry: &f64| size.max(entry.abs()));
            if left <= f64::from(f32::EPSILON) * size {
                // This vector sees no more eigenvalues.
                break;
            }
            beside.push(left);
            basis.push(next);
        }
        let entry = |row: usize, column: usize| match row - column {
            0 => diagonal[row],
            1 => beside[column],
            _ => 0.0,
        };
        let Symmetric { values, vectors } = diagonalize(diagonal.len(), entry)?;
        let weights = vectors.iter().map(|vector| vector[0] * vector[0] / options.probes as f64);
        nodes.extend(values.into_iter().zip(weights).map(|(value, weight)| Node { value, weight }));
    }
    nodes.sort_by(|a, b| a.value.total_cmp(&b.value));
    Ok(Density { nodes, products })
}
