//! Diagonals: as operators, exactly by columns, and estimated by random signs.

use lapidary_kernels::rng::Stream;

use super::LinearOperator;
use crate::vector::fill_signs;
use crate::{CurvatureError, norm};

/// A matrix that is zero off its diagonal.
#[derive(Clone, Debug)]
pub struct Diagonal {
    pub entries: Vec<f32>,
}

impl LinearOperator for Diagonal {
    fn dim(&self) -> usize {
        self.entries.len()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        for ((out, &v), &entry) in out.iter_mut().zip(v).zip(&self.entries) {
            *out = v * entry;
        }
        Ok(())
    }
}

/// The diagonal of an operator by a product with each unit vector: `dim` products.
pub fn exact_diagonal(operator: &mut dyn LinearOperator) -> Result<Diagonal, CurvatureError> {
    let dim = operator.dim();
    let (mut unit, mut column) = (vec![0.0; dim], vec![0.0; dim]);
    let mut entries = Vec::with_capacity(dim);
    for i in 0..dim {
        unit[i] = 1.0;
        operator.apply(&unit, &mut column)?;
        unit[i] = 0.0;
        entries.push(column[i]);
    }
    Ok(Diagonal { entries })
}

/// An estimate of a diagonal.
#[derive(Clone, Debug)]
pub struct DiagonalEstimate {
    /// The means over the probes.
    pub entries: Vec<f32>,
    /// Their standard errors; NaN after a single probe.
    pub standard_errors: Vec<f32>,
}

impl DiagonalEstimate {
    /// `‖standard errors‖ / ‖entries‖`.
    pub fn relative_error(&self) -> f64 {
        norm(&self.standard_errors) / norm(&self.entries)
    }
}

/// The diagonal by `z ⊙ A z` with random signs `z` (Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a
/// matrix", 2007): unbiased, with the variance `Σ_{j≠i} A_ij²` a probe. One product a probe.
pub fn estimate_diagonal(
    operator: &mut dyn LinearOperator,
    probes: usize,
    seed: u64,
) -> Result<DiagonalEstimate, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    if probes == 0 {
        return Err(CurvatureError::Count("probes of a diagonal"));
    }
    let (mut signs, mut product) = (vec![0.0; dim], vec![0.0; dim]);
    let (mut sums, mut squares) = (vec![0f64; dim], vec![0f64; dim]);
    for probe in 0..probes {
        fill_signs(&mut signs, &mut Stream::new(seed, probe as u64));
        operator.apply(&signs, &mut product)?;
        if !norm(&product).is_finite() {
            return Err(CurvatureError::NonFinite { product: probe + 1 });
        }
        for (((sum, square), &sign), &product) in sums.iter_mut().zip(&mut squares).zip(&signs).zip(&product) {
            let sample = f64::from(sign * product);
            *sum += sample;
            *square += sample * sample;
        }
    }
    let n = probes as f64;
    let error = |sum: f64, square: f64| (((square - sum * sum / n) / (n - 1.0)).max(0.0) / n).sqrt() as f32;
    Ok(DiagonalEstimate {
        entries: sums.iter().map(|sum| (sum / n) as f32).collect(),
        standard_errors: sums.iter().zip(&squares).map(|(&sum, &square)| error(sum, square)).collect(),
    })
}
