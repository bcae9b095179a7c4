use burn::tensor::Tensor;
use lapidary_ops::layer_norm;
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same, vector};

const EPS: f32 = 1e-5;

fn twin(sum: Tensor<2>, gamma: Tensor<2>, beta: Tensor<2>) -> Tensor<2> {
    let centred = sum.clone() - sum.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    centred / variance.add_scalar(EPS).sqrt() * gamma + beta
}

#[test]
fn agrees_with_pytorch() {
    for case in [Case("layer_norm.plain"), Case("layer_norm.shifted")] {
        let eps = case.numbers("eps")[0] as f32;
        case.check(["x", "gamma", "beta"], "y", |[x, gamma, beta]| {
            layer_norm(x, None, vector(gamma), vector(beta), eps)
        });
    }
    for case in [Case("layer_norm.residual"), Case("layer_norm.wide")] {
        let eps = case.numbers("eps")[0] as f32;
        case.check(["x", "residual", "gamma", "beta"], "y", |[x, residual, gamma, beta]| {
            layer_norm(x, Some(residual), vector(gamma), vector(beta), eps)
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    // Narrower rows may be nearly constant, and then few digits of their variance are left in either.
    #[test]
    fn agrees_with_its_twin(n in 1usize..12, width in 8usize..70) {
        let matrix = |name| Input::random(name, n, width);
        let row = |name| Input::random(name, 1, width);
        assert_same(
            [matrix("x"), row("gamma"), row("beta")],
            TOLERANCE,
            |[x, gamma, beta]| layer_norm(x, None, vector(gamma), vector(beta), EPS),
            |[x, gamma, beta]| twin(x, gamma, beta),
        );
        assert_same(
            [matrix("x"), matrix("residual"), row("gamma"), row("beta")],
            TOLERANCE,
            |[x, residual, gamma, beta]| layer_norm(x, Some(residual), vector(gamma), vector(beta), EPS),
            |[x, residual, gamma, beta]| twin(x + residual, gamma, beta),
        );
    }
}

#[test]
fn a_residual_may_be_the_input_itself() {
    assert_same(
        [Input::random("x", 3, 17), Input::random("gamma", 1, 17), Input::random("beta", 1, 17)],
        TOLERANCE,
        |[x, gamma, beta]| layer_norm(x.clone(), Some(x), vector(gamma), vector(beta), EPS),
        |[x, gamma, beta]| twin(x.clone() + x, gamma, beta),
    );
}
