//! Both ends of a spectrum by the Lanczos process: products with one vector after another make a small matrix whose
//! eigenvalues are nearly those of the operator at either end, long before there are as many vectors as dimensions.
//!
//! Every vector is made orthogonal to all before it, so that no eigenvalue comes twice ("ghosts"), and the small matrix
//! is that of the operator in the space of these vectors whatever the rounding. When the vectors would take too much
//! memory, the process begins again from the best of what it has found (thick restart: Wu and Simon, SIAM J. Matrix
//! Anal. Appl. 22, 2000).

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use super::{Eigen, PowerOptions, PowerStep};
use crate::basis::{Basis, unit};
use crate::symmetric::{Symmetric, diagonalize};
use crate::vector::{distance, random_unit};
use crate::{CurvatureError, LinearOperator, dot};

/// What is asked for, and how much it may cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanczosOptions {
    /// How many of the largest eigenvalues (with their signs: the most positive).
    pub largest: usize,
    /// How many of the smallest: the most negative.
    pub smallest: usize,
    /// Of `‖A v - value v‖`, relative to the largest magnitude in the spectrum. An eigenvalue that lies apart from the
    /// others is then known to about the square of this.
    pub tolerance: f64,
    /// Most products, those that test the outcome not counted.
    pub products: usize,
    /// Most vectors that are kept in memory, `dim` numbers each.
    pub basis: usize,
    /// Of the start vector.
    pub seed: u64,
}

impl Default for LanczosOptions {
    fn default() -> Self {
        Self { largest: 1, smallest: 1, tolerance: 1e-3, products: 200, basis: 40, seed: 0 }
    }
}

/// What is known after a product, for a progress line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LanczosStep {
    /// Made so far.
    pub products: usize,
    pub largest: f64,
    pub smallest: f64,
    /// The worst of those asked for, relative to the largest magnitude.
    pub residual: f64,
}

/// Both ends of a spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Descending.
    pub largest: Vec<Eigen>,
    /// Ascending.
    pub smallest: Vec<Eigen>,
    /// All that were made.
    pub products: usize,
}

impl Spectrum {
    /// Whether everything asked for is as accurate as asked.
    pub fn converged(&self) -> bool {
        self.largest.iter().chain(&self.smallest).all(|eigen| eigen.converged)
    }
}

/// The ends of the spectrum of a symmetric operator.
///
/// One product a step; at the end one more for each eigenvalue tests it: its value is the quotient of that product, its
/// residual what the product really leaves. Running out of products is not an error: `converged` is false then, and the
/// residual says how far it got. If `dim` is smaller than what is asked for, everything there is comes back.
///
/// # Errors
/// Dimension 0, nothing asked for, a basis that cannot hold what is asked for and two vectors more, NaN or infinity in
/// a product, the operator's own errors.
pub fn lanczos(
    operator: &mut dyn LinearOperator,
    options: &LanczosOptions,
    progress: &mut dyn FnMut(LanczosStep),
) -> Result<Spectrum, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    let asked = Asked { largest: options.largest.min(dim), smallest: options.smallest.min(dim) };
    let wanted = asked.largest + asked.smallest;
    if wanted == 0 {
        return Err(CurvatureError::Count("eigenvalues"));
    }
    if options.basis < wanted + 2 {
        return Err(CurvatureError::Basis { found: options.basis, needed: wanted + 2 });
    }
    let mut process = Process::new(dim, options.seed);
    loop {
        process.advance(operator)?;
        let ritz = process.ritz()?;
        let worst = asked.places(ritz.len()).map(|place| ritz.residuals[place]).fold(0.0, f64::max) / ritz.size();
        progress(LanczosStep {
            products: process.products,
            largest: ritz.values[ritz.len() - 1],
            smallest: ritz.values[0],
            residual: worst,
        });
        let whole = process.basis.len() == dim;
        let settled = process.basis.len() >= wanted && worst <= MARGIN * options.tolerance;
        if whole || settled || process.products >= options.products {
            return process.finish(operator, &ritz, asked, options.tolerance);
        }
        if process.basis.len() < options.basis.min(dim) {
            process.extend();
        } else {
            process.restart(&ritz, asked, options.basis);
        }
    }
}

/// The eigenvalue of largest magnitude of a symmetric operator, whatever its sign: what
/// [`top_eigenvalue`](super::top_eigenvalue) finds, in a fraction of its products where the next eigenvalues are near.
///
/// As accurate as `options.tolerance` asks (see [`Eigen::converged`]), in at most `options.iterations` products and one
/// more, which tests it. The process goes on while the other end of the spectrum might clearly be the larger.
///
/// # Errors
/// Dimension 0, NaN or infinity in a product, the operator's own errors.
pub fn lanczos_top(
    operator: &mut dyn LinearOperator,
    options: &PowerOptions,
    progress: &mut dyn FnMut(PowerStep),
) -> Result<Eigen, CurvatureError> {
    /// Vectors in memory; more are seldom needed.
    const BASIS: usize = 24;
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    let tolerance = options.tolerance.sqrt();
    let mut process = Process::new(dim, options.seed);
    loop {
        process.advance(operator)?;
        let ritz = process.ritz()?;
        let (low, high) = (0, ritz.len() - 1);
        let (top, other) = if ritz.values[high] >= -ritz.values[low] { (high, low) } else { (low, high) };
        let (value, residual) = (ritz.values[top], ritz.residuals[top] / ritz.size());
        progress(PowerStep { iteration: process.products, value, residual });
        let beaten = ritz.values[other].abs() + ritz.residuals[other] <= value.abs() * (1.0 + MARGIN * tolerance);
        let settled = residual <= MARGIN * tolerance && (beaten || ritz.len() == 1);
        if settled || process.basis.len() == dim || process.products >= options.iterations {
            let asked = Asked { largest: usize::from(top == high), smallest: usize::from(top != high) };
            let found = process.finish(operator, &ritz, asked, tolerance)?;
            return found.largest.into_iter().chain(found.smallest).next().ok_or(CurvatureError::Empty);
        }
        if process.basis.len() < BASIS.min(dim) {
            process.extend();
        } else {
            process.restart(&ritz, Asked { largest: 1, smallest: 1 }, BASIS);
        }
    }
}

/// The share of the tolerance at which the process ends: the test at the end has rounding of its own.
const MARGIN: f64 = 0.8;

/// How many of either end.
#[derive(Clone, Copy)]
struct Asked {
    largest: usize,
    smallest: usize,
}

impl Asked {
    /// Their places among `len` ascending values; where both ends overlap, once.
    fn places(self, len: usize) -> impl Iterator<Item = usize> {
        let (smallest, largest) = (self.smallest.min(len), self.largest.min(len));
        (0..smallest).chain(smallest.max(len - largest)..len)
    }
}

/// The vectors so far, the operator in their space, and the direction in which it leaves that space.
struct Process {
    basis: Basis,
    /// `[n, n]` by rows: `<q_i, A q_j>`.
    projected: Vec<Vec<f64>>,
    /// What `A q` of the last vector has outside the space: its direction, and its length.
    next: (Vec<f32>, f64),
    products: usize,
    seed: u64,
}

/// Eigenvalues of the small matrix.
struct Ritz {
    values: Vec<f64>,
    vectors: Vec<Vec<f64>>,
    /// `‖A y - value y‖` by the process' own account.
    residuals: Vec<f64>,
}

impl Ritz {
    fn len(&self) -> usize {
        self.values.len()
    }

    /// The largest magnitude, or 1 for the zero operator.
    fn size(&self) -> f64 {
        let size = self.values[0].abs().max(self.values[self.len() - 1].abs());
        if size > 0.0 { size } else { 1.0 }
    }
}

impl Process {
    fn new(dim: usize, seed: u64) -> Self {
        let mut basis = Basis::new(dim);
        basis.push(random_unit(dim, &mut Stream::new(seed, 0)));
        Self { basis, projected: vec![vec![0.0]], next: (Vec::new(), 0.0), products: 0, seed }
    }

    /// Multiplies the last vector.
    fn advance(&mut self, operator: &mut dyn LinearOperator) -> Result<(), CurvatureError> {
        let last = self.basis.len() - 1;
        let mut product = vec![0.0; operator.dim()];
        operator.apply(&self.basis.vectors()[last], &mut product)?;
        self.products += 1;
        let mut rest: Vec<f64> = product.iter().map(|&x| x.into()).collect();
        let along = self.basis.remove_from(&mut rest);
        if along.iter().any(|along| !along.is_finite()) {
            return Err(CurvatureError::NonFinite { product: self.products });
        }
        for (i, along) in along.into_iter().enumerate() {
            self.projected[i][last] = along;
            self.projected[last][i] = along;
        }
        self.next = unit(&rest);
        Ok(())
    }

    fn ritz(&self) -> Result<Ritz, CurvatureError> {
        let n = self.basis.len();
        let Symmetric { values, vectors } = diagonalize(n, |row, column| self.projected[row][column])?;
        // Whatever else a vector of the space is made of, only its part along the last one leaves the space.
        let residuals = vectors.iter().map(|vector| self.next.1 * vector[n - 1].abs()).collect();
        Ok(Ritz { values, vectors, residuals })
    }

    /// One more vector.
    fn extend(&mut self) {
        let n = self.basis.len();
        let size = self.projected.iter().flatten().fold(0f64, |size, entry| size.max(entry.abs()));
        let vector = if self.next.1 > f64::from(f32::EPSILON) * size {
            std::mem::take(&mut self.next.0)
        } else {
            // The operator maps the space to itself: what else there is can only be found from outside.
            let dim = self.basis.vectors()[0].len();
            let fresh = random_unit(dim, &mut Stream::new(self.seed, n as u64));
            let mut fresh: Vec<f64> = fresh.into_iter().map(f64::from).collect();
            self.basis.remove_from(&mut fresh);
            unit(&fresh).0
        };
        self.basis.push(vector);
        self.projected.iter_mut().for_each(|row| row.push(0.0));
        self.projected.push(vec![0.0; n + 1]);
    }

    /// Keeps what is asked for, half of the rest of the room at both ends, and the next vector.
    fn restart(&mut self, ritz: &Ritz, asked: Asked, room: usize) {
        let spare = (room - asked.largest - asked.smallest - 1) / 4;
        let more = |asked: usize| if asked > 0 { asked + spare } else { 0 };
        let kept = Asked { largest: more(asked.largest), smallest: more(asked.smallest) };
        let places: Vec<usize> = kept.places(ritz.len()).collect();
        let mut basis = Basis::new(self.basis.vectors()[0].len());
        for &place in &places {
            // Orthogonal up to rounding, which would add up from one restart to the next.
            let mut vector = self.basis.combine(&ritz.vectors[place]);
            basis.remove_from(&mut vector);
            basis.push(unit(&vector).0);
        }
        let mut next: Vec<f64> = self.next.0.iter().map(|&x| x.into()).collect();
        basis.remove_from(&mut next);
        basis.push(unit(&next).0);
        let n = basis.len();
        self.basis = basis;
        self.projected = vec![vec![0.0; n]; n];
        for (i, &place) in places.iter().enumerate() {
            self.projected[i][i] = ritz.values[place];
        }
    }

    /// Tests what was found.
    fn finish(
        mut self,
        operator: &mut dyn LinearOperator,
        ritz: &Ritz,
        asked: Asked,
        tolerance: f64,
    ) -> Result<Spectrum, CurvatureError> {
        let n = ritz.len();
        let mut tested = Vec::new();
        for place in asked.places(n) {
            let (vector, _) = unit(&self.basis.combine(&ritz.vectors[place]));
            let mut product = vec![0.0; vector.len()];
            operator.apply(&vector, &mut product)?;
            self.products += 1;
            let value = dot(&vector, &product);
            if !value.is_finite() {
                return Err(CurvatureError::NonFinite { product: self.products });
            }
            let left = distance(&product, value, &vector);
            let residual = if left == 0.0 { 0.0 } else { left / value.abs() };
            let converged = left <= tolerance * ritz.size();
            tested.push((place, Eigen { value, vector, residual, iterations: self.products, converged }));
        }
        let end = |places: std::ops::Range<usize>| -> Vec<Eigen> {
            tested.iter().filter(|(place, _)| places.contains(place)).map(|(_, eigen)| eigen.clone()).collect()
        };
        let smallest = end(0..asked.smallest.min(n));
        let mut largest = end(n - asked.largest.min(n)..n);
        largest.reverse();
        Ok(Spectrum { largest, smallest, products: self.products })
    }
}
