use super::LinearOperator;
use crate::{CurvatureError, dot};

/// A matrix that is written out, `[dim, dim]` row-major: the oracle that other operators are tested against.
#[derive(Clone, Debug)]
pub struct Dense {
    dim: usize,
    entries: Vec<f32>,
}

impl Dense {
    /// Fails unless `entries` holds `dim * dim` numbers.
    pub fn new(dim: usize, entries: Vec<f32>) -> Result<Self, CurvatureError> {
        match dim.checked_mul(dim) {
            Some(expected) if expected == entries.len() => Ok(Self { dim, entries }),
            expected => Err(CurvatureError::Dimension {
                what: "the dense matrix",
                expected: expected.unwrap_or(usize::MAX),
                found: entries.len(),
            }),
        }
    }

    /// Writes out any operator, column by column: `dim` products, `dim * dim` numbers.
    pub fn of(operator: &mut dyn LinearOperator) -> Result<Self, CurvatureError> {
        let dim = operator.dim();
        let mut entries = vec![0.0; dim * dim];
        let (mut basis, mut column) = (vec![0.0; dim], vec![0.0; dim]);
        for j in 0..dim {
            basis[j] = 1.0;
            operator.apply(&basis, &mut column)?;
            basis[j] = 0.0;
            for (i, &entry) in column.iter().enumerate() {
                entries[i * dim + j] = entry;
            }
        }
        Ok(Self { dim, entries })
    }

    /// The entries, `[dim, dim]` row-major.
    pub fn entries(&self) -> &[f32] {
        &self.entries
    }
}

impl LinearOperator for Dense {
    fn dim(&self) -> usize {
        self.dim
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        for (row, out) in self.entries.chunks_exact(self.dim.max(1)).zip(out) {
            *out = dot(row, v) as f32;
        }
        Ok(())
    }
}
