use serde::{Deserialize, Serialize};

use crate::CurvatureError;

/// How sharply the loss is curved along one layer's parameters, and how much that differs from data to data
/// (Q-BERT, arXiv 1909.05840, eq. 7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSensitivity {
    /// Index of the layer, from 0 at the input.
    pub layer: usize,
    /// Top Hessian eigenvalue on each share of the training data (Q-BERT: ten shares of a tenth each), sign kept.
    pub values: Vec<f64>,
    pub mean: f64,
    /// Population standard deviation (divided by n, not n - 1): the shares make up the whole training set instead of
    /// being drawn from more, and a single share gives 0 instead of nothing.
    pub std: f64,
    /// `|mean| + std`. A layer that is flat on average but sharp on some share still counts as sensitive.
    pub omega: f64,
}

impl LayerSensitivity {
    /// Fails on no values and on values that are not finite.
    pub fn new(layer: usize, values: Vec<f64>) -> Result<Self, CurvatureError> {
        if values.is_empty() {
            return Err(CurvatureError::NoSamples { layer });
        }
        if let Some(sample) = values.iter().position(|value| !value.is_finite()) {
            return Err(CurvatureError::NonFiniteSample { layer, sample, value: values[sample] });
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
        Ok(Self { layer, values, mean, std, omega: mean.abs() + std })
    }
}

/// Positions in `layers` from the most sensitive to the least; of equals the lower layer comes first.
pub fn rank(layers: &[LayerSensitivity]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..layers.len()).collect();
    order.sort_by(|&a, &b| {
        layers[b].omega.total_cmp(&layers[a].omega).then_with(|| layers[a].layer.cmp(&layers[b].layer))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn omega_adds_the_deviation_to_the_magnitude_of_the_mean() {
        let layer = LayerSensitivity::new(3, vec![-1.0, -3.0]).unwrap();
        assert_eq!((layer.mean, layer.std, layer.omega), (-2.0, 1.0, 3.0));
        assert_eq!(LayerSensitivity::new(0, vec![5.0]).unwrap().omega, 5.0);
    }

    #[test]
    fn a_flat_but_varying_layer_outranks_a_steady_one() {
        let layers = [vec![2.0, 2.0], vec![-9.0, 11.0], vec![2.0, 2.0], vec![-4.0, -4.0]];
        let layers: Vec<_> =
            layers.into_iter().enumerate().map(|(i, values)| LayerSensitivity::new(i, values).unwrap()).collect();
        assert_eq!(rank(&layers), [1, 3, 0, 2]);
        assert_eq!(rank(&[]), [0usize; 0]);
    }

    #[test]
    fn bad_values_are_named() {
        assert!(matches!(LayerSensitivity::new(4, vec![]), Err(CurvatureError::NoSamples { layer: 4 })));
        let message = LayerSensitivity::new(4, vec![1.0, f64::NAN]).unwrap_err().to_string();
        assert!(message.contains("layer 4") && message.contains("sample 1"), "{message}");
    }
}
