use burn::tensor::{Int, Tensor, TensorData};
use lapidary_ops::{fake_quantize, fake_quantize_rows};
use proptest::prelude::*;

use super::{Input, TOLERANCE, assert_same, constant, vector};

/// Scales that leave some of the standard normal weights outside the range, and zeros to go with them.
fn ranges(groups: usize, bits: u32) -> (Input, Vec<f32>) {
    let codes = ((1u32 << bits) - 1) as f32;
    let scales = (0..groups).map(|g| 3.0 / codes * (1.0 + (g % 5) as f32 / 7.0)).collect();
    let zeros = (0..groups).map(|g| (codes / 2.0).floor() + (g % 2) as f32).collect();
    (Input { name: "scales", shape: [1, groups], data: scales }, zeros)
}

/// Each row's number of a group, `[rows, columns]`.
fn spread(of_group: Tensor<1>, rows: usize, columns: usize) -> Tensor<2> {
    let [groups] = of_group.dims();
    let size = |group: usize| (group + 1) * rows / groups - group * rows / groups;
    let group_of_row: Vec<i64> = (0..groups).flat_map(|group| vec![group as i64; size(group)]).collect();
    let group_of_row = Tensor::<1, Int>::from_data(TensorData::new(group_of_row, [rows]), &of_group.device());
    of_group.select(0, group_of_row).reshape([rows, 1]).repeat_dim(1, columns)
}

/// The straight-through estimator in one line: what rounding and clamping changed is a constant, and the result is
/// linear in the weights inside the range and in the scales.
fn twin(w: Tensor<2>, scales: Tensor<1>, zeros: Tensor<1>, bits: u32) -> Tensor<2> {
    let [rows, columns] = w.dims();
    let (scales, zeros) = (spread(scales, rows, columns), spread(zeros, rows, columns));
    let ratio = w.clone().detach() / scales.clone().detach();
    let rounded = ratio.clone().round();
    let highest = zeros.clone().neg().add_scalar(((1u32 << bits) - 1) as f32);
    let clamped = rounded.clone().max_pair(zeros.neg()).min_pair(highest);
    let inside = rounded.equal(clamped.clone()).float().cast(w.dtype());
    w * inside.clone() + scales * (clamped - inside * ratio)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn weights_agree_with_their_twin(rows in 1usize..30, columns in 1usize..40, groups in 1usize..6, bits in 2u32..=4) {
        let (scales, zeros) = ranges(groups, bits);
        let zeros = |like: &Tensor<2>| constant(&zeros, [groups], like);
        assert_same(
            [Input::random("w", rows, columns), scales],
            // A scale's gradient sums large numbers of either sign.
            10.0 * TOLERANCE,
            |[w, scales]| { let zeros = zeros(&w); fake_quantize(w, vector(scales), zeros, bits) },
            |[w, scales]| { let zeros = zeros(&w); twin(w, vector(scales), zeros, bits) },
        );
    }

    #[test]
    fn activations_agree_with_their_twin(n in 1usize..12, width in 1usize..70, bits in 2u32..=8, shift in -3f32..3.0) {
        let mut x = Input::random("x", n, width);
        x.data.iter_mut().for_each(|x| *x += shift);
        let highest = ((1u32 << bits) - 1) as f32;
        assert_same([x], TOLERANCE, |[x]| fake_quantize_rows(x, bits), |[x]| {
            let fixed = x.clone().detach();
            let (least, greatest) = (fixed.clone().min_dim(1).clamp_max(0.0), fixed.clone().max_dim(1).clamp_min(0.0));
            let scale = (greatest - least.clone()).div_scalar(highest); // [N, 1]
            let zero = (least.neg() / scale.clone()).round();
            let code = ((fixed.clone() / scale.clone()).round() + zero.clone()).clamp(0.0, highest);
            x + ((code - zero) * scale - fixed)
        });
    }
}
