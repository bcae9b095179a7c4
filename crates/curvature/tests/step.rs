//! Central differences of analytic gradients, rounded to `f32`, against exact products.

use lapidary_curvature::step::{GradientAt, Search, product, settle, tested_product};
use lapidary_curvature::{CurvatureError, Difference, norm};
use lapidary_kernels::rng::Stream;

const DIM: usize = 2000;

struct Problem {
    w: Vec<f32>,
    /// Of unit norm.
    v: Vec<f32>,
    /// Gradient and Hessian diagonal as functions of one coordinate: `f(w) = sum of phi(w_i)`.
    gradient: fn(f64) -> f64,
    curvature: fn(f64) -> f64,
    /// Standard deviation of the noise added to every gradient entry, relative to the entry.
    noise: f64,
}

impl Problem {
    fn new(gradient: fn(f64) -> f64, curvature: fn(f64) -> f64) -> Self {
        let mut stream = Stream::new(1, 0);
        let w: Vec<f32> = (0..DIM).map(|_| stream.normal()).collect();
        let v: Vec<f32> = (0..DIM).map(|_| stream.normal()).collect();
        let length = norm(&v) as f32;
        Self { w, v: v.into_iter().map(|v| v / length).collect(), gradient, curvature, noise: 0.0 }
    }

    /// The gradient as a model would give it: at parameters rounded to `f32`, rounded to `f32`.
    fn gradient_at(&self) -> impl FnMut(f64, &mut [f64]) -> Result<(), CurvatureError> {
        let mut stream = Stream::new(2, 0);
        move |step, out| {
            for ((out, &w), &v) in out.iter_mut().zip(&self.w).zip(&self.v) {
                let moved = w + (step as f32) * v;
                let noise = if self.noise > 0.0 { self.noise * f64::from(stream.normal()) } else { 0.0 };
                *out = f64::from(((self.gradient)(f64::from(moved)) * (1.0 + noise)) as f32);
            }
            Ok(())
        }
    }

    fn exact(&self) -> Vec<f64> {
        self.w.iter().zip(&self.v).map(|(&w, &v)| (self.curvature)(f64::from(w)) * f64::from(v)).collect()
    }

    fn true_error(&self, step: f64) -> f64 {
        let mut out = vec![0.0; DIM];
        product(&mut self.gradient_at(), step, &mut out).unwrap();
        let exact = self.exact();
        let apart: f64 = out.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum();
        (apart / exact.iter().map(|x| x * x).sum::<f64>()).sqrt()
    }

    fn settle(&self, scale: f64) -> Difference {
        settle(&mut self.gradient_at(), DIM, Search::of_f32(scale)).unwrap()
    }

    fn scale(&self) -> f64 {
        norm(&self.w)
    }

    /// The settled step is about as good as the best of a fine scan, and its error is known to a factor.
    fn check(&self, scale: f64) {
        let settled = self.settle(scale);
        let error = self.true_error(settled.step);
        let best =
            (-80..=0).map(|i| self.true_error(self.scale() * 10f64.powf(f64::from(i) / 10.0))).fold(1.0, f64::min);
        assert!(error < 3.0 * best.max(1e-5), "{settled:?}: error {error:e}, best {best:e}");
        assert!(settled.error < 4.0 * error.max(1e-5) && error < 4.0 * settled.error, "{settled:?}: true {error:e}");
    }
}

fn quadratic() -> Problem {
    Problem::new(|w| 3.0 * w, |_| 3.0)
}

fn quartic() -> Problem {
    Problem::new(|w| w * w * w, |w| 3.0 * w * w)
}

/// Sum of `tanh(8 w)^2 / 2`: wiggles on a scale much shorter than `w`.
fn tanh() -> Problem {
    Problem::new(
        |w| {
            let t = (8.0 * w).tanh();
            8.0 * t * (1.0 - t * t)
        },
        |w| {
            let t = (8.0 * w).tanh();
            64.0 * (1.0 - t * t) * (1.0 - 3.0 * t * t)
        },
    )
}

#[test]
fn near_the_best_step_whatever_the_first_guess() {
    for problem in [quartic(), tanh()] {
        for guess in [0.01, 0.1, 1.0, 10.0, 100.0] {
            problem.check(guess * problem.scale());
        }
    }
}

#[test]
fn noisy_gradients_ask_for_longer_steps() {
    let quiet = tanh().settle(tanh().scale());
    let noisy = Problem { noise: 1e-5, ..tanh() };
    let settled = noisy.settle(noisy.scale());
    assert!(settled.step > 2.0 * quiet.step && settled.error > 2.0 * quiet.error, "{quiet:?} {settled:?}");
    noisy.check(noisy.scale());
}

#[test]
fn a_quadratic_has_no_truncation() {
    let problem = quadratic();
    let settled = problem.settle(problem.scale());
    assert!(settled.error < 1e-4 && problem.true_error(settled.step) < 1e-4, "{settled:?}");
}

#[test]
fn a_tested_product_knows_its_error() {
    for (problem, step) in [(quartic(), 0.3), (tanh(), 0.05), (Problem { noise: 1e-5, ..tanh() }, 0.02)] {
        let mut out = vec![0.0; DIM];
        let estimate = tested_product(&mut problem.gradient_at(), step, &mut out).unwrap();
        let error = problem.true_error(step);
        assert!(estimate > 0.5 * error && estimate < 10.0 * error, "{estimate:e}, is {error:e}");
    }
}

#[test]
fn gradients_in_f64_ask_for_shorter_steps() {
    let problem = tanh();
    let mut gradient_at = |step: f64, out: &mut [f64]| {
        for ((out, &w), &v) in out.iter_mut().zip(&problem.w).zip(&problem.v) {
            *out = (problem.gradient)(f64::from(w) + step * f64::from(v));
        }
        Ok(())
    };
    let settled = settle(&mut gradient_at, DIM, Search::of_f64(problem.scale())).unwrap();
    let mut out = vec![0.0; DIM];
    product(&mut gradient_at, settled.step, &mut out).unwrap();
    let exact = problem.exact();
    let apart: f64 = out.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum();
    let error = (apart / exact.iter().map(|x| x * x).sum::<f64>()).sqrt();
    assert!(error < 1e-8 && settled.error < 1e-8, "{settled:?}: {error:e}");
}

#[test]
fn a_product_lost_in_noise_says_so() {
    let linear = Problem { noise: 1e-3, ..Problem::new(|_| 1.0, |_| 0.0) };
    assert!(linear.settle(linear.scale()).error > 0.5);
}

#[test]
fn a_linear_function_has_the_zero_product() {
    let linear = Problem::new(|_| 1.0, |_| 0.0);
    assert_eq!(linear.settle(linear.scale()).error, 0.0);
}

#[test]
fn steps_that_overflow_are_left() {
    // Finite only within a ten-thousandth of the first guess.
    let problem = Problem::new(|w| w, |_| 1.0);
    let mut inner = problem.gradient_at();
    let mut grad_at = |step: f64, out: &mut [f64]| {
        inner(step, out)?;
        if step.abs() > 1e-3 {
            out[0] = f64::NAN;
        }
        Ok(())
    };
    let settled = settle(&mut grad_at, DIM, Search::of_f32(100.0)).unwrap();
    assert!(settled.step <= 1e-3, "{settled:?}");
}

#[test]
fn bad_input_is_an_error() {
    let grad_at: &mut GradientAt<'_> = &mut |_, out| {
        out.fill(f64::NAN);
        Ok(())
    };
    assert!(matches!(settle(grad_at, 3, Search::of_f32(1.0)), Err(CurvatureError::NoStep { .. })));
    assert!(matches!(settle(grad_at, 0, Search::of_f32(1.0)), Err(CurvatureError::Empty)));
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(settle(grad_at, 3, Search::of_f32(scale)), Err(CurvatureError::Step(_))));
    }
    assert!(matches!(product(grad_at, 0.0, &mut [0.0]), Err(CurvatureError::Step(_))));
    let failing: &mut GradientAt<'_> = &mut |_, _| Err(CurvatureError::Operator("no batch".into()));
    assert_eq!(settle(failing, 3, Search::of_f32(1.0)).unwrap_err().to_string(), "no batch");
}
