//! Orthonormal vectors.

use rayon::prelude::*;

/// Elements that a task subtracts from.
const CHUNK: usize = 1 << 14;

/// Vectors of unit length, orthogonal to each other up to the rounding of `f32`.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    dim: usize,
    vectors: Vec<Vec<f32>>,
}

impl Basis {
    pub fn new(dim: usize) -> Self {
        Self { dim, vectors: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    pub fn vectors(&self) -> &[Vec<f32>] {
        &self.vectors
    }

    /// Puts in a vector, of unit length and orthogonal to the others.
    pub fn push(&mut self, vector: Vec<f32>) {
        self.vectors.push(vector);
    }

    /// `<q, w>` with every vector `q`.
    fn coefficients(&self, w: &[f64]) -> Vec<f64> {
        // Each is a sum of its own in a fixed order, whatever the number of threads.
        self.vectors.par_iter().map(|q| q.iter().zip(w).map(|(&q, &w)| f64::from(q) * w).sum()).collect()
    }

    /// Makes `w` orthogonal to the basis, and gives what it was along each vector: Gram-Schmidt, twice, since what the
    /// first round leaves may be mostly its own rounding ("twice is enough": Giraud, Langou and Rozložník, 2005).
    pub fn remove_from(&self, w: &mut [f64]) -> Vec<f64> {
        let mut along = vec![0.0; self.len()];
        for _ in 0..2 {
            let coefficients = self.coefficients(w);
            w.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, w)| {
                for (q, coefficient) in self.vectors.iter().zip(&coefficients) {
                    for (w, &q) in w.iter_mut().zip(&q[chunk * CHUNK..]) {
                        *w -= coefficient * f64::from(q);
                    }
                }
            });
            along.iter_mut().zip(coefficients).for_each(|(along, coefficient)| *along += coefficient);
        }
        along
    }

    /// `Σ weights_i q_i`.
    pub fn combine(&self, weights: &[f64]) -> Vec<f64> {
        let mut sum = vec![0.0; self.dim];
        sum.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, sum)| {
            for (q, weight) in self.vectors.iter().zip(weights) {
                for (sum, &q) in sum.iter_mut().zip(&q[chunk * CHUNK..]) {
                    *sum += weight * f64::from(q);
                }
            }
        });
        sum
    }
}

/// A vector at unit length, and the length it had.
pub(crate) fn unit(v: &[f64]) -> (Vec<f32>, f64) {
    let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let over = if length > 0.0 { 1.0 / length } else { 0.0 };
    (v.iter().map(|v| (v * over) as f32).collect(), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot;
    use crate::vector::random_unit;
    use lapidary_kernels::rng::Stream;

    #[test]
    fn what_is_left_is_orthogonal_and_what_was_taken_adds_up() {
        let dim = 40_000;
        let mut basis = Basis::new(dim);
        let mut stream = Stream::new(3, 0);
        for _ in 0..4 {
            let mut w: Vec<f64> = random_unit(dim, &mut stream).into_iter().map(f64::from).collect();
            // Nearly in the space of the others.
            w.iter_mut().for_each(|w| *w *= 1e-3);
            let inside = basis.combine(&[3.0, -1.0, 2.0]);
            w.iter_mut().zip(&inside).for_each(|(w, inside)| *w += inside);
            let before = w.clone();
            let along = basis.remove_from(&mut w);
            let taken = basis.combine(&along);
            let error: f64 = before.iter().zip(&w).zip(&taken).map(|((b, w), t)| (b - w - t).abs()).sum();
            assert!(error < 1e-3, "{error}");
            basis.push(unit(&w).0);
        }
        for (i, a) in basis.vectors().iter().enumerate() {
            for (j, b) in basis.vectors().iter().enumerate() {
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot(a, b) - expected).abs() < 1e-6, "{i} {j}: {}", dot(a, b));
            }
        }
    }
}
