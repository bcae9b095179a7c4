use std::f64::consts::FRAC_1_SQRT_2;

use lapidary_ops::gelu;
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same};

#[test]
fn agrees_with_pytorch() {
    Case("gelu.plain").check(["x"], "y", |[x]| gelu(x));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn agrees_with_its_twin(n in 1usize..12, width in 1usize..70) {
        assert_same(
            [Input::random("x", n, width)],
            TOLERANCE,
            |[x]| gelu(x.mul_scalar(3.0)),
            |[x]| {
                let x = x.mul_scalar(3.0);
                x.clone() * (x.mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0)).mul_scalar(0.5)
            },
        );
    }
}
