//! Curvature matrices, known by their products with vectors, and what can be made of them.

mod combined;
mod dense;
mod diagonal;
mod inverse;
mod recorded;

use lapidary_kernels::rng::Stream;

use crate::{CurvatureError, dot, norm};

pub use combined::{Scaled, Shifted, Sum};
pub use dense::Dense;
pub use diagonal::{Diagonal, DiagonalEstimate, estimate_diagonal, exact_diagonal};
pub use inverse::{Inverse, InverseOptions};
pub use recorded::Recorded;

/// A square matrix that is known by its products with vectors: a Hessian, Gauss-Newton matrix, Fisher matrix or a
/// Kronecker factor, over the parameters laid out as one vector.
pub trait LinearOperator {
    /// Number of rows and of columns.
    fn dim(&self) -> usize;

    /// `out = A v`; both slices have `dim` entries. Takes `&mut self` because a product runs the model.
    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError>;

    /// The same for several vectors, one behind the other in `[n, dim]`: a matrix that has to be fetched or made for a
    /// product can then serve all of them.
    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        let dim = self.dim().max(1);
        vs.chunks_exact(dim).zip(outs.chunks_exact_mut(dim)).try_for_each(|(v, out)| self.apply(v, out))
    }
}

impl<O: LinearOperator + ?Sized> LinearOperator for &mut O {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        (**self).apply(v, out)
    }

    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        (**self).apply_block(vs, outs)
    }
}

impl<O: LinearOperator + ?Sized> LinearOperator for Box<O> {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        (**self).apply(v, out)
    }

    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        (**self).apply_block(vs, outs)
    }
}

/// How far the operator is from symmetric: the largest `|<u, A v> - <v, A u>| / (|u| |A v| + |v| |A u|)` over `probes`
/// random pairs. Rounding alone gives about the relative error of one product; a wrong product gives far more.
///
/// Two products a pair. NaN in a product gives NaN; the zero operator gives 0.
pub fn symmetric_error(operator: &mut dyn LinearOperator, probes: usize, seed: u64) -> Result<f64, CurvatureError> {
    let dim = operator.dim();
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    let (mut product_u, mut product_v) = (vec![0.0; dim], vec![0.0; dim]);
    let mut worst = 0f64;
    for probe in 0..probes {
        let mut stream = Stream::new(seed, probe as u64);
        let u: Vec<f32> = (0..dim).map(|_| stream.normal()).collect();
        let v: Vec<f32> = (0..dim).map(|_| stream.normal()).collect();
        operator.apply(&u, &mut product_u)?;
        operator.apply(&v, &mut product_v)?;
        let size = norm(&u) * norm(&product_v) + norm(&v) * norm(&product_u);
        let error = (dot(&u, &product_v) - dot(&v, &product_u)).abs() / size;
        if error.is_nan() && size != 0.0 {
            return Ok(f64::NAN);
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_shifted_and_written_out_again() {
        let dense = Dense::new(2, vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let mut shifted = Shifted { operator: dense, shift: -1.0 };
        assert_eq!(Dense::of(&mut shifted).unwrap().entries(), [0.0, 2.0, 3.0, 3.0]);
        assert!(Dense::new(2, vec![0.0; 3]).is_err());
    }

    #[test]
    fn tells_symmetric_from_not() {
        let mut symmetric = Dense::new(3, vec![1.0, 2.0, 3.0, 2.0, -5.0, 0.5, 3.0, 0.5, 0.1]).unwrap();
        assert!(symmetric_error(&mut symmetric, 4, 1).unwrap() < 1e-6);
        let mut rotation = Dense::new(2, vec![0.0, -1.0, 1.0, 0.0]).unwrap();
        assert!(symmetric_error(&mut rotation, 4, 1).unwrap() > 0.1);
        let mut zero = Dense::new(2, vec![0.0; 4]).unwrap();
        assert_eq!(symmetric_error(&mut zero, 4, 1).unwrap(), 0.0);
        let mut nan = Dense::new(1, vec![f32::NAN]).unwrap();
        assert!(symmetric_error(&mut nan, 1, 1).unwrap().is_nan());
        let mut empty = Dense::new(0, vec![]).unwrap();
        assert!(matches!(symmetric_error(&mut empty, 1, 1), Err(CurvatureError::Empty)));
    }
}
