//! Traces by Hutch++ (Meyer, Musco, Musco and Woodruff, "Hutch++: optimal stochastic trace estimation", SOSA 2021).
//!
//! A few random products find a space that holds most of the operator, and the trace within it is computed; only what
//! is outside is left to chance: the mean of `<g, A g>` over vectors of random signs that are made orthogonal to the
//! space. The spread of these tells how good the mean is, and so when to stop. Stopping as soon as the mean stands
//! still, as others do, stops at the first piece of luck.

use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use crate::basis::{Basis, unit};
use crate::vector::fill_signs;
use crate::{CurvatureError, LinearOperator, dot};

/// How accurate, and at what cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceOptions {
    /// Of the standard error, relative to the trace.
    pub tolerance: f64,
    /// Dimension of the space; two products each.
    pub sketch: usize,
    /// Most products in all.
    pub products: usize,
    pub seed: u64,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { tolerance: 0.02, sketch: 10, products: 200, seed: 0 }
    }
}

/// A trace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    pub value: f64,
    /// 0 where the space holds everything.
    pub standard_error: f64,
    pub products: usize,
    /// Whether the standard error is within the tolerance.
    pub converged: bool,
}

/// A spread over fewer samples than this is not to be trusted.
const SAMPLES: usize = 8;

/// The trace of a symmetric operator.
///
/// `progress` sees every estimate. Fails on dimension 0, with products for fewer than eight samples beside the space,
/// on NaN or infinity in a product, and with the operator's own errors.
pub fn trace(
    operator: &mut dyn LinearOperator,
    options: &TraceOptions,
    progress: &mut dyn FnMut(Trace),
) -> Result<Trace, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    let sketch = options.sketch.min(dim);
    let needed = 2 * sketch + if sketch < dim { SAMPLES } else { 0 };
    if options.products < needed {
        return Err(CurvatureError::Products { found: options.products, needed });
    }
    let mut products = 0;
    let (mut signs, mut product) = (vec![0.0; dim], vec![0.0; dim]);
    let mut basis = Basis::new(dim);
    for number in 0..sketch {
        fill_signs(&mut signs, &mut Stream::new(options.seed, number as u64));
        multiply(operator, &signs, &mut product, &mut products)?;
        let mut wide: Vec<f64> = product.iter().map(|&x| x.into()).collect();
        let before = wide.iter().map(|x| x * x).sum::<f64>().sqrt();
        basis.remove_from(&mut wide);
        let (vector, left) = unit(&wide);
        // What is left of a product that was all but inside the space is its rounding.
        if left > 1e-6 * before {
            basis.push(vector);
        }
    }
    let mut inside = 0.0;
    for vector in basis.vectors() {
        multiply(operator, vector, &mut product, &mut products)?;
        inside += dot(vector, &product);
    }
    if basis.len() == dim {
        return Ok(Trace { value: inside, standard_error: 0.0, products, converged: true });
    }
    let (mut samples, mut sum, mut squares) = (0.0, 0.0, 0.0);
    loop {
        fill_signs(&mut signs, &mut Stream::new(options.seed, (sketch as f64 + samples) as u64));
        let mut outside: Vec<f64> = signs.iter().map(|&x| x.into()).collect();
        basis.remove_from(&mut outside);
        let outside: Vec<f32> = outside.into_iter().map(|x| x as f32).collect();
        multiply(operator, &outside, &mut product, &mut products)?;
        let sample = dot(&outside, &product);
        samples += 1.0;
        sum += sample;
        squares += sample * sample;
        let mean: f64 = sum / samples;
        let variance = ((squares - samples * mean * mean) / (samples - 1.0)).max(0.0);
        let (value, standard_error) = (inside + mean, (variance / samples).sqrt());
        let enough = samples >= SAMPLES as f64;
        let estimate = Trace {
            value,
            standard_error,
            products,
            converged: enough && standard_error <= options.tolerance * value.abs(),
        };
        if samples > 1.0 {
            progress(estimate);
        }
        if estimate.converged || products >= options.products {
            return Ok(estimate);
        }
    }
}

fn multiply(
    operator: &mut dyn LinearOperator,
    v: &[f32],
    out: &mut [f32],
    products: &mut usize,
) -> Result<(), CurvatureError> {
    operator.apply(v, out)?;
    *products += 1;
    if dot(out, out).is_finite() { Ok(()) } else { Err(CurvatureError::NonFinite { product: *products }) }
}
