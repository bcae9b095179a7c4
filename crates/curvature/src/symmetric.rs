//! Dense symmetric matrices: faer's solver.

use faer::{Mat, Side};

use crate::CurvatureError;

/// Eigenvalues, ascending, and their vectors.
pub(crate) struct Symmetric {
    pub values: Vec<f64>,
    /// One a value, of unit length.
    pub vectors: Vec<Vec<f64>>,
}

/// Diagonalizes the symmetric matrix whose lower triangle is `entry(row, column)`.
pub(crate) fn diagonalize(n: usize, entry: impl Fn(usize, usize) -> f64) -> Result<Symmetric, CurvatureError> {
    let matrix = Mat::from_fn(n, n, |row, column| entry(row.max(column), row.min(column)));
    let found = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| CurvatureError::Diagonalize(n))?;
    let (values, vectors) = (found.S().column_vector(), found.U());
    Ok(Symmetric {
        values: (0..n).map(|i| values[i]).collect(),
        vectors: (0..n).map(|i| (0..n).map(|row| vectors[(row, i)]).collect()).collect(),
    })
}
