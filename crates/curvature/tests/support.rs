//! Matrices of known spectrum.

use lapidary_curvature::Dense;
use lapidary_curvature::operator::Diagonal;
use lapidary_kernels::rng::Stream;

/// A symmetric matrix with the given eigenvalues: a diagonal turned by Householder reflections.
pub fn with_spectrum(eigenvalues: &[f64], seed: u64) -> Dense {
    let n = eigenvalues.len();
    let mut matrix: Vec<f64> =
        (0..n * n).map(|i| if i % (n + 1) == 0 { eigenvalues[i / (n + 1)] } else { 0.0 }).collect();
    let mut stream = Stream::new(seed, 7);
    for _ in 0..3 {
        let u: Vec<f64> = (0..n).map(|_| f64::from(stream.normal())).collect();
        let over = 2.0 / u.iter().map(|u| u * u).sum::<f64>();
        // A <- (I - over u u^T) A, then the same from the right.
        for transposed in [false, true] {
            let at = |i: usize, j: usize| if transposed { j * n + i } else { i * n + j };
            for j in 0..n {
                let along: f64 = (0..n).map(|i| u[i] * matrix[at(i, j)]).sum();
                for i in 0..n {
                    matrix[at(i, j)] -= over * u[i] * along;
                }
            }
        }
    }
    Dense::new(n, matrix.into_iter().map(|x| x as f32).collect()).unwrap()
}

/// The eigenvalues of a typical Hessian: most of them near zero on both sides, few far out.
pub fn hessian_like(dim: usize, outliers: &[f32]) -> Diagonal {
    let mut stream = Stream::new(11, 0);
    let mut entries: Vec<f32> = (0..dim).map(|_| 0.1 * stream.normal()).collect();
    // Not at the ends of the vector, as if order meant something.
    for (i, &outlier) in outliers.iter().enumerate() {
        entries[(i + 1) * dim / (outliers.len() + 1)] = outlier;
    }
    Diagonal { entries }
}
