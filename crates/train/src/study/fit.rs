//! Where larger batches cease to pay.

use serde::{Deserialize, Serialize};

/// `S(B) = S_min (1 + B_crit / B)`: steps to a target over sizes of batch (McCandlish et al., 1812.06162, eq. 2.11, solved
/// for `S`). At `B_crit` it takes twice the fewest steps, and twice the fewest examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriticalBatch {
    /// `B_crit`, in examples.
    pub batch: f64,
    /// `S_min`, of batches without end.
    pub fewest_steps: f64,
    /// Largest distance of a point from the curve, as a share of it.
    pub worst: f64,
}

impl CriticalBatch {
    /// Steps for a size of batch.
    pub fn steps(&self, batch: f64) -> f64 {
        self.fewest_steps * (1.0 + self.batch / batch)
    }
}

/// The curve of least squared relative distances through `(batch, steps)`, three or more. `None`: too few, or the steps
/// do not fall with the batch as any such curve does, so that no bend is in sight.
pub fn critical_batch(points: &[(f64, f64)]) -> Option<CriticalBatch> {
    if points.len() < 3 {
        return None;
    }
    // steps = a + b / batch, each equation divided by its steps.
    let (mut aa, mut ab, mut bb, mut ya, mut yb) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (batch, steps) in points {
        let (one, inverse) = (1.0 / steps, 1.0 / (batch * steps));
        aa += one * one;
        ab += one * inverse;
        bb += inverse * inverse;
        ya += one;
        yb += inverse;
    }
    let determinant = aa * bb - ab * ab;
    let fewest = (ya * bb - yb * ab) / determinant;
    let slope = (yb * aa - ya * ab) / determinant;
    let found = CriticalBatch { batch: slope / fewest, fewest_steps: fewest, worst: 0.0 };
    let fits = fewest > 0.0 && slope > 0.0 && found.batch.is_finite();
    let distance = |(batch, steps): &(f64, f64)| (steps / found.steps(*batch) - 1.0).abs();
    let worst = points.iter().map(distance).fold(0.0, f64::max);
    fits.then_some(CriticalBatch { worst, ..found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_found_again() {
        let curve = CriticalBatch { batch: 300.0, fewest_steps: 120.0, worst: 0.0 };
        let points: Vec<(f64, f64)> = [64.0, 128.0, 256.0, 1024.0].map(|batch| (batch, curve.steps(batch))).to_vec();
        let found = critical_batch(&points).unwrap();
        assert!((found.batch - 300.0).abs() < 1e-6 && (found.fewest_steps - 120.0).abs() < 1e-6, "{found:?}");
        assert!(found.worst < 1e-9);
    }

    #[test]
    fn where_there_is_no_bend_there_is_no_number() {
        assert_eq!(critical_batch(&[(64.0, 100.0), (128.0, 50.0)]), None);
        // Ideal scaling to the end: the fewest steps would be none.
        assert_eq!(critical_batch(&[(64.0, 100.0), (128.0, 49.0), (256.0, 24.0)]), None);
        // More steps for larger batches.
        assert_eq!(critical_batch(&[(64.0, 100.0), (128.0, 120.0), (256.0, 150.0)]), None);
    }
}
