//! How likely a text is to a model that repairs: a bound, since such a model gives no probability of a whole text.
//!
//! Corruption that takes each token's place by a uniform one with probability `t` is a diffusion from the text at
//! `t = 0` to noise at `t = 1`. A model that predicts the text from what is left of it at any `t` defines the way back,
//! and the evidence lower bound of that way is an integral over `t` (Schiff et al., "Simple guidance mechanisms for
//! discrete diffusion models", 2412.10193, the bound in continuous time for uniform noise, with their `α = 1 - t`).
//!
//! What that equation wants of the model is what it says of a place from all *other* places. A model that is trained to
//! predict the text from all that is left, the place itself included, says more, and [`own_odds`] is what has to be taken
//! off again; any other number gives a bound too, but a looser one.

/// The logarithm of how much more often a place holds a token at time `t` if it is the text's own than if it is not: what
/// seeing the token there adds to its logit.
pub fn own_odds(vocabulary: usize, t: f64) -> f64 {
    ((vocabulary as f64 * (1.0 - t) + t) / t).ln()
}

/// The integrand of the bound on `-log p(text)` at one place, in nats: `logits [V]` for the place, `token` that the text
/// has there, `noisy` that is left there at time `t`, which is within 0 and 1. The bound is the sum over all places, its
/// mean over `t` uniform in `[0, 1]` and over what corruption leaves.
///
/// With `x̄_j = V (1 - t) [j = token] + t`, `x̄'_j = V (1 - t) p_j + t` and `z` for `noisy`:
/// `1 / (V (1 - t)) · (V / x̄'_z - V / x̄_z + Σ_{j ≠ z} x̄_j / x̄_z · log(x̄_j x̄'_z / (x̄_z x̄'_j)))`.
pub fn denoising_bound(logits: &[f32], token: usize, noisy: usize, t: f64) -> f64 {
    let vocabulary = logits.len() as f64;
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| (f64::from(logit) - f64::from(largest)).exp();
    let sum: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let kept = vocabulary * (1.0 - t);
    let predicted = |j: usize| kept * weight(logits[j]) / sum + t;
    let actual = |j: usize| if j == token { kept + t } else { t };
    let (at, at_predicted) = (actual(noisy), predicted(noisy));
    // All j but the token have x̄ = t, so that only the sum of the logarithms of x̄' is over the whole vocabulary.
    let others = logits.iter().enumerate().filter(|(j, _)| *j != noisy && *j != token);
    let (logs, count) = others.fold((0.0, 0.0), |(logs, count), (j, _)| (logs + predicted(j).ln(), count + 1.0));
    let mut terms = t / at * (count * (t * at_predicted / at).ln() - logs);
    if token != noisy {
        terms += actual(token) / at * (actual(token) * at_predicted / (at * predicted(token))).ln();
    }
    (vocabulary / at_predicted - vocabulary / at + terms) / kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of one token of a known distribution: the model that predicts them best has a bound that is their entropy.
    #[test]
    fn the_best_model_reaches_the_entropy() {
        let p: [f64; 4] = [0.6, 0.3, 0.1, 0.0];
        let vocabulary = p.len();
        let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        // By the midpoint rule; `taken_off` other than 1 makes of what the best model says too little or too much.
        let bound = |taken_off: f64| {
            const STEPS: usize = 2000;
            let at = |step: usize| {
                let t = (step as f64 + 0.5) / STEPS as f64;
                let left = |z: usize, x: usize| t / vocabulary as f64 + if z == x { 1.0 - t } else { 0.0 };
                let mut sum = 0.0;
                for z in 0..vocabulary {
                    let posterior: Vec<f64> = (0..vocabulary).map(|x| p[x] * left(z, x)).collect();
                    let mut logits: Vec<f32> = posterior.iter().map(|p| p.max(1e-30).ln() as f32).collect();
                    logits[z] -= (taken_off * own_odds(vocabulary, t)) as f32;
                    sum += (0..vocabulary).map(|x| p[x] * left(z, x) * denoising_bound(&logits, x, z, t)).sum::<f64>();
                }
                sum
            };
            (0..STEPS).map(at).sum::<f64>() / STEPS as f64
        };
        assert!((bound(1.0) - entropy).abs() < 1e-3, "{} for {entropy}", bound(1.0));
        assert!(bound(0.0) > entropy + 0.1 && bound(1.5) > entropy + 0.01, "{} {}", bound(0.0), bound(1.5));
    }

    /// Every term of the equation as it stands.
    #[test]
    fn the_sum_over_the_vocabulary_is_that_of_the_equation() {
        let logits = [0.3f32, -1.2, 2.0, 0.7, -0.1];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let v = logits.len() as f64;
        for (token, noisy, t) in [(2, 2, 0.3), (2, 0, 0.3), (1, 4, 0.9), (3, 3, 0.01)] {
            let actual = |j: usize| v * (1.0 - t) * f64::from(u8::from(j == token)) + t;
            let predicted = |j: usize| v * (1.0 - t) * f64::from(logits[j]).exp() / sum + t;
            let term = |j: usize| {
                actual(j) / actual(noisy) * (actual(j) * predicted(noisy) / (actual(noisy) * predicted(j))).ln()
            };
            let terms: f64 = (0..logits.len()).filter(|j| *j != noisy).map(term).sum();
            let expected = (v / predicted(noisy) - v / actual(noisy) + terms) / (v * (1.0 - t));
            let found = denoising_bound(&logits, token, noisy, t);
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} for {expected}");
            assert!(found >= 0.0);
        }
    }
}
