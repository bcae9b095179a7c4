//! Sums and multiples of operators.

use super::LinearOperator;
use crate::CurvatureError;

/// `factor A`.
#[derive(Clone, Debug)]
pub struct Scaled<O> {
    pub operator: O,
    pub factor: f64,
}

impl<O: LinearOperator> LinearOperator for Scaled<O> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.apply_block(v, out)
    }

    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        self.operator.apply_block(vs, outs)?;
        outs.iter_mut().for_each(|out| *out = (f64::from(*out) * self.factor) as f32);
        Ok(())
    }
}

/// `A + shift I`: damping, or the other end of a spectrum (`A - top I` has its largest magnitude at A's bottom).
#[derive(Clone, Debug)]
pub struct Shifted<O> {
    pub operator: O,
    pub shift: f64,
}

impl<O: LinearOperator> LinearOperator for Shifted<O> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.apply_block(v, out)
    }

    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        self.operator.apply_block(vs, outs)?;
        for (out, &v) in outs.iter_mut().zip(vs) {
            *out = (f64::from(*out) + self.shift * f64::from(v)) as f32;
        }
        Ok(())
    }
}

/// `A + B`.
#[derive(Clone, Debug)]
pub struct Sum<A, B> {
    first: A,
    second: B,
}

impl<A: LinearOperator, B: LinearOperator> Sum<A, B> {
    /// Fails unless both have the same dimension.
    pub fn new(first: A, second: B) -> Result<Self, CurvatureError> {
        let (expected, found) = (first.dim(), second.dim());
        if expected != found {
            return Err(CurvatureError::Dimension { what: "the second operator of a sum", expected, found });
        }
        Ok(Self { first, second })
    }
}

impl<A: LinearOperator, B: LinearOperator> LinearOperator for Sum<A, B> {
    fn dim(&self) -> usize {
        self.first.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        self.apply_block(v, out)
    }

    fn apply_block(&mut self, vs: &[f32], outs: &mut [f32]) -> Result<(), CurvatureError> {
        let mut second = vec![0.0; outs.len()];
        self.first.apply_block(vs, outs)?;
        self.second.apply_block(vs, &mut second)?;
        outs.iter_mut().zip(second).for_each(|(out, second)| *out += second);
        Ok(())
    }
}
