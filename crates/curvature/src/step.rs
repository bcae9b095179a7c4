//! Hessian-vector products from two gradients, and the step they take.
//!
//! The central difference `D(h) = (g(w + h v) - g(w - h v)) / 2h` is `H v` up to two errors: truncation, which grows
//! as `h^2`, and the rounding of the gradients and parameters, which grows as `1/h`. Between them lies a narrow
//! best step that depends on the model, the data and `v`. [`settle`] finds it from the differences themselves.
//!
//! Let `c` be the truncation error of `D(h)` and `r` the size of its rounding error, which is independent from one
//! evaluation to the next. Then `D(h/2)`, `D(h)`, `D(2h)` carry the truncation errors `c/4`, `c`, `4c` (along one
//! vector) and rounding errors of sizes `2r`, `r`, `r/2` (in unrelated directions), so that
//!
//! ```text
//! near  = |D(h) - D(h/2)|^2                   =  9/16 c^2 +    5 r^2
//! far   = |D(2h) - D(h)|^2                    =     9 c^2 + 5/4 r^2
//! cross = <D(2h) - D(h), D(h) - D(h/2)>       =   9/4 c^2 -      r^2
//! ```
//!
//! The sign of `cross` tells the two apart, and `c^2`, `r^2` follow. The squared error `c^2 t^4 + r^2 / t^2` of a step
//! `t h` is least at `t^6 = r^2 / 2c^2`.

use serde::{Deserialize, Serialize};

use crate::CurvatureError;

/// A step for central differences, settled on one vector.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// `h`, in units of the vector's length: the gradient is taken at `w + h v` and `w - h v`.
    pub step: f64,
    /// Estimated `||D(h) - H v|| / ||H v||`. About 1 or more where the product drowns in rounding.
    pub error: f64,
}

/// Writes the gradient at `w + step v` (`step` has a sign) into the slice.
pub type GradientAt<'a> = dyn FnMut(f64, &mut [f64]) -> Result<(), CurvatureError> + 'a;

/// Where a search begins and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// A length over which the gradient may change altogether: `||w|| / ||v||`.
    pub scale: f64,
    /// The first step, relative to the scale.
    first: f64,
    /// The shortest: what is shorter is lost in the rounding of `w` itself.
    shortest: f64,
    /// A step with less error than this (relative) is not improved any further.
    good: f64,
    /// What a product may be off by (relative).
    promised: f64,
}

impl Search {
    /// For gradients that are computed in `f32`.
    pub fn of_f32(scale: f64) -> Self {
        Self { scale, first: 2e-4, shortest: 1e-8, good: 1e-5, promised: 1e-3 }
    }

    /// For gradients that are computed in `f64`.
    pub fn of_f64(scale: f64) -> Self {
        Self { scale, first: 1e-5, shortest: 1e-13, good: 1e-9, promised: 1e-6 }
    }
}

impl Search {
    /// One that ends as soon as products are within what is promised of them, with some room. For a step that serves one
    /// product: the best step costs many rounds where the error is nearly the same over a wide range of steps, as it is
    /// along a random vector.
    pub(crate) fn for_one_product(self) -> Self {
        Self { good: self.good * 30.0, ..self }
    }

    /// The same, beginning where another search ended, if that one found anything.
    pub(crate) fn from(self, found: Difference) -> Self {
        if found.error > 0.0 { Self { first: (found.step / self.scale).max(self.shortest), ..self } } else { self }
    }

    /// Whether a step is as accurate as promised. One whose products are zero says nothing of others.
    pub(crate) fn is_kept_by(&self, settled: Difference) -> bool {
        settled.error > 0.0 && settled.error <= self.promised
    }
}

/// Products from one that is tested to the next.
pub(crate) const TESTED: usize = 16;

/// How much larger than when it was settled the error may be found, before a step is settled anew.
const GROWN: f64 = 10.0;

impl Search {
    /// Whether a tested product calls for another step. An error ten times what counts as good is no reason yet.
    pub(crate) fn has_grown(&self, error: f64, settled: Difference) -> bool {
        error > GROWN * settled.error.max(GROWN * self.good)
    }
}

/// The longest step, relative to the scale.
const LONGEST: f64 = 1.0;
/// A search costs six gradients a round; two rounds are usual.
const ROUNDS: usize = 10;
/// The most that the step changes in one round.
const JUMP: f64 = 16.0;
/// `out = D(step)`, two gradients. A gradient that is not finite leaves an `out` that is not finite.
pub fn product(grad_at: &mut GradientAt<'_>, step: f64, out: &mut [f64]) -> Result<(), CurvatureError> {
    let mut behind = vec![0.0; out.len()];
    difference(grad_at, step, out, &mut behind)
}

/// `D(step)` and an estimate of its relative error, four gradients: how far `D(2 step)` is from it. Three times the
/// truncation error where that is the larger, and about the rounding error where that is: never much too low.
pub fn tested_product(grad_at: &mut GradientAt<'_>, step: f64, out: &mut [f64]) -> Result<f64, CurvatureError> {
    product(grad_at, step, out)?;
    let mut double = vec![0.0; out.len()];
    product(grad_at, 2.0 * step, &mut double)?;
    let apart: f64 = out.iter().zip(&double).map(|(a, b)| (a - b) * (a - b)).sum();
    let size: f64 = out.iter().map(|a| a * a).sum();
    Ok(if apart == 0.0 { 0.0 } else { (apart / size).sqrt() })
}

/// Finds the step for products with one `v`; steps found on one vector serve others of the same length well.
///
/// Where no step is good, the best one seen is returned with its error, which the caller has to judge. A product that is
/// zero at every step gives error 0. Fails on `dim` 0, a scale that is not positive, and if no step gives finite
/// gradients.
pub fn settle(grad_at: &mut GradientAt<'_>, dim: usize, search: Search) -> Result<Difference, CurvatureError> {
    let scale = search.scale;
    if dim == 0 {
        return Err(CurvatureError::Empty);
    }
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(CurvatureError::Step(scale));
    }
    let (mut shortest, mut longest) = (search.shortest * scale, LONGEST * scale);
    let mut products = Products::new(dim);
    let mut step = search.first * scale;
    let mut best: Option<Difference> = None;
    let mut finite = false;
    for _ in 0..ROUNDS {
        let factor = match products.take(grad_at, step)? {
            Outcome::NotFinite => {
                longest = step;
                1.0 / JUMP
            }
            Outcome::Zero => {
                // Perhaps the step is too short to change any gradient.
                (finite, shortest) = (true, step);
                JUMP
            }
            Outcome::Errors(errors) => {
                finite = true;
                let seen = Difference { step, error: errors.at(1.0) };
                if seen.error <= search.good {
                    return Ok(seen);
                }
                if best.is_none_or(|best| seen.error < best.error) {
                    best = Some(seen);
                }
                let factor = errors.best_factor();
                if errors.regime == Regime::Balanced && step * factor <= longest {
                    return Ok(Difference { step: step * factor, error: errors.at(factor) });
                }
                if factor > 1.0 {
                    shortest = step;
                } else {
                    longest = step;
                }
                factor
            }
        };
        // Between the longest step known to be too short and the shortest known to be too long.
        if longest < 2.0 * shortest {
            break;
        }
        step *= factor;
        if step <= shortest || step >= longest {
            step = (shortest * longest).sqrt();
        }
    }
    match best {
        Some(best) => Ok(best),
        None if finite => Ok(Difference { step, error: 0.0 }),
        None => Err(CurvatureError::NoStep { smallest: step, largest: search.first * scale }),
    }
}

fn difference(
    grad_at: &mut GradientAt<'_>,
    step: f64,
    out: &mut [f64],
    behind: &mut [f64],
) -> Result<(), CurvatureError> {
    if !(step > 0.0 && step.is_finite()) {
        return Err(CurvatureError::Step(step));
    }
    grad_at(step, out)?;
    grad_at(-step, behind)?;
    let over = 0.5 / step;
    for (ahead, &behind) in out.iter_mut().zip(behind.iter()) {
        *ahead = (*ahead - behind) * over;
    }
    Ok(())
}

/// `D(h/2)`, `D(h)` and `D(2h)`.
struct Products {
    half: Vec<f64>,
    whole: Vec<f64>,
    double: Vec<f64>,
    scratch: Vec<f64>,
}

enum Outcome {
    NotFinite,
    Zero,
    Errors(Errors),
}

impl Products {
    fn new(dim: usize) -> Self {
        Self { half: vec![0.0; dim], whole: vec![0.0; dim], double: vec![0.0; dim], scratch: vec![0.0; dim] }
    }

    fn take(&mut self, grad_at: &mut GradientAt<'_>, step: f64) -> Result<Outcome, CurvatureError> {
        difference(grad_at, step, &mut self.whole, &mut self.scratch)?;
        difference(grad_at, 0.5 * step, &mut self.half, &mut self.scratch)?;
        difference(grad_at, 2.0 * step, &mut self.double, &mut self.scratch)?;
        let (mut near, mut far, mut cross, mut size) = (0f64, 0f64, 0f64, 0f64);
        for ((&half, &whole), &double) in self.half.iter().zip(&self.whole).zip(&self.double) {
            let (inner, outer) = (whole - half, double - whole);
            near += inner * inner;
            far += outer * outer;
            cross += inner * outer;
            size += whole * whole;
        }
        let size = size.sqrt();
        Ok(if !(near + far + size).is_finite() {
            Outcome::NotFinite
        } else if near == 0.0 && far == 0.0 && size == 0.0 {
            Outcome::Zero
        } else {
            Outcome::Errors(Errors::new(near, far, cross, size))
        })
    }
}

/// The two errors of `D(h)`, squared, relative to `||D(h)||^2`.
struct Errors {
    truncation: f64,
    rounding: f64,
    regime: Regime,
}

#[derive(PartialEq)]
enum Regime {
    /// What little truncation there seems to be may itself be rounding.
    Rounding,
    Balanced,
    /// The differences agree in direction: what little rounding there seems to be may be terms beyond `h^2`.
    Truncation,
    /// They agree without growing fourfold: `h` is past the reach of the `h^2` law.
    TooLong,
}

impl Errors {
    fn new(near: f64, far: f64, cross: f64, size: f64) -> Self {
        let rounding = ((near - cross / 4.0) / 5.25).max(0.0);
        let truncation = ((cross + rounding) / 2.25).max(0.0);
        // By the equations above the cosine is 0.6 where truncation is six times rounding, and far is then seven
        // times near.
        let coherent = cross > 0.6 * (near * far).sqrt();
        let size = size * size;
        if coherent && far < 4.0 * near {
            return Self { truncation: near.max(far) / size, rounding: 0.0, regime: Regime::TooLong };
        }
        let regime = if coherent {
            Regime::Truncation
        } else if rounding > 8.0 * truncation {
            Regime::Rounding
        } else {
            Regime::Balanced
        };
        Self { truncation: truncation / size, rounding: rounding / size, regime }
    }

    /// Estimated relative error of the step `factor h`.
    fn at(&self, factor: f64) -> f64 {
        (self.truncation * factor.powi(4) + self.rounding / factor.powi(2)).sqrt()
    }

    /// What to multiply `h` with for the least error.
    fn best_factor(&self) -> f64 {
        let factor = (self.rounding / (2.0 * self.truncation)).powf(1.0 / 6.0);
        match self.regime {
            Regime::Rounding => factor.clamp(4.0, JUMP),
            Regime::Truncation => factor.clamp(1.0 / JUMP, 0.5),
            Regime::TooLong => 1.0 / 8.0,
            // NaN where neither error was seen.
            Regime::Balanced if factor.is_nan() => 1.0,
            Regime::Balanced => factor,
        }
    }
}
