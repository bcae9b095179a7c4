use burn::tensor::{DType, Device};
use lapidary_kernels as kernels;
use lapidary_ops::{DropoutKey, dropout};
use proptest::prelude::*;

use super::{Input, TOLERANCE, assert_same, constant, tensors_of, values};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn the_backward_pass_drops_what_the_forward_pass_dropped(
        n in 1usize..12, width in 1usize..70, p in 0f32..0.9, (seed, step, place) in any::<(u64, u64, u64)>(),
    ) {
        let mut kept = vec![f32::NAN; n * width];
        kernels::dropout::dropout(&vec![1.0; n * width], p, seed, step, place, &mut kept);
        let key = DropoutKey { seed, step, place };
        assert_same(
            [Input::random("x", n, width)],
            TOLERANCE,
            |[x]| dropout(x, p, key),
            |[x]| x.clone() * constant(&kept, [n, width], &x),
        );
    }
}

#[test]
fn a_probability_of_0_drops_nothing() {
    let input = Input::random("x", 3, 5);
    let key = DropoutKey { seed: 1, step: 2, place: 3 };
    for dtype in [DType::F32, DType::F64] {
        let [x] = tensors_of(std::array::from_ref(&input), &Device::flex(), dtype);
        assert_eq!(values(dropout(x.clone(), 0.0, key)), values(x));
    }
}
