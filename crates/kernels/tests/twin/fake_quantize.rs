use lapidary_kernels::fake_quantize::{fake_quantize, fake_quantize_backward, fake_quantize_codes, fake_quantize_rows};
use proptest::prelude::*;

use super::{assert_close, random};

/// Which group each row is in, by the definition.
fn group_of_rows(rows: usize, groups: usize) -> Vec<usize> {
    let mut of_row = vec![usize::MAX; rows];
    for group in 0..groups {
        of_row[group * rows / groups..(group + 1) * rows / groups].fill(group);
    }
    of_row
}

struct Case {
    rows: usize,
    cols: usize,
    bits: u32,
    w: Vec<f32>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Case {
    fn new(rows: usize, cols: usize, groups: usize, bits: u32) -> Self {
        let codes = (1u32 << bits) - 1;
        let step = 3.0 / codes as f32;
        Self {
            rows,
            cols,
            bits,
            w: random(rows * cols, 1),
            scales: (0..groups).map(|g| step * (1.0 + (g % 5) as f32 / 7.0)).collect(),
            zeros: (0..groups as u32).map(|g| ((codes / 2 + g % 3).min(codes)) as f32).collect(),
        }
    }

    /// `(w / scale, its rounding, code less zero, scale)` of each weight. The division is that of `f32`: a tie must be
    /// a tie here too.
    fn twin(&self) -> Vec<(f64, f64, f64, f64)> {
        let of_row = group_of_rows(self.rows, self.scales.len());
        let last = f64::from((1u32 << self.bits) - 1);
        let one = |(i, &w): (usize, &f32)| {
            let group = of_row[i / self.cols];
            let zero = f64::from(self.zeros[group]);
            let ratio = f64::from(w / self.scales[group]);
            let rounded = ratio.round_ties_even();
            (ratio, rounded, (rounded + zero).clamp(0.0, last) - zero, f64::from(self.scales[group]))
        };
        self.w.iter().enumerate().map(one).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn weights_agree_with_f64(rows in 1usize..80, cols in 1usize..70, groups in 1usize..20, bits in 1u32..=8) {
        let case = Case::new(rows, cols, groups, bits);
        let twin = case.twin();
        let mut y = vec![f32::NAN; rows * cols];
        fake_quantize(&case.w, rows, cols, &case.scales, &case.zeros, bits, &mut y);
        assert_close(&y, &twin.iter().map(|(_, _, offset, scale)| offset * scale).collect::<Vec<_>>(), 1e-6, "y");

        let mut codes = vec![0; rows * cols];
        fake_quantize_codes(&case.w, rows, cols, &case.scales, &case.zeros, bits, &mut codes);
        let of_row = group_of_rows(rows, groups);
        for (i, code) in codes.into_iter().enumerate() {
            prop_assert_eq!(f32::from(code) - case.zeros[of_row[i / cols]], twin[i].2 as f32);
        }
    }

    #[test]
    fn gradients_agree_with_their_definition(
        rows in 1usize..80, cols in 1usize..70, groups in 1usize..20, bits in 1u32..=8,
    ) {
        let case = Case::new(rows, cols, groups, bits);
        let dy = random(rows * cols, 2);
        let (mut dw, mut dscales) = (vec![f32::NAN; rows * cols], vec![f32::NAN; groups]);
        fake_quantize_backward(
            &case.w, rows, cols, &case.scales, &case.zeros, bits, &dy, &mut dw, &mut dscales,
        );
        let of_row = group_of_rows(rows, groups);
        let (mut expected_dw, mut expected_dscales) = (vec![], vec![0.0; groups]);
        for (i, (ratio, rounded, offset, _)) in case.twin().into_iter().enumerate() {
            let inside = rounded == offset;
            expected_dw.push(if inside { f64::from(dy[i]) } else { 0.0 });
            expected_dscales[of_row[i / cols]] += f64::from(dy[i]) * if inside { offset - ratio } else { offset };
        }
        assert_close(&dw, &expected_dw, 0.0, "dw");
        assert_close(&dscales, &expected_dscales, 1e-4, "dscales");
    }

    #[test]
    fn activations_stay_within_half_a_step(n in 1usize..20, cols in 1usize..70, bits in 2u32..=8, shift in -4f32..4.0) {
        let x: Vec<f32> = random(n * cols, 3).iter().map(|x| x + shift).collect();
        let mut y = vec![f32::NAN; n * cols];
        fake_quantize_rows(&x, cols, bits, &mut y);
        for (x, y) in x.chunks(cols).zip(y.chunks(cols)) {
            let (least, greatest) = x.iter().fold((0f32, 0f32), |(a, b), &x| (a.min(x), b.max(x)));
            let step = f64::from(greatest - least) / f64::from((1 << bits) - 1);
            for (&x, &y) in x.iter().zip(y) {
                // The zero is rounded to a code, which moves the grid by up to half a step beyond the range.
                prop_assert!((f64::from(x) - f64::from(y)).abs() <= step * 1.0001);
                let code = f64::from(y) / step;
                prop_assert!((code - code.round()).abs() < 1e-3, "{y} is not on a grid of {step}");
            }
        }
    }
}

#[test]
fn ties_go_to_even() {
    let mut y = [0.0; 6];
    fake_quantize(&[0.5, 1.5, 2.5, -0.5, -1.5, 99.0], 1, 6, &[1.0], &[2.0], 3, &mut y);
    assert_eq!(y, [0.0, 2.0, 2.0, 0.0, -2.0, 5.0]);
}

#[test]
fn the_gradient_of_a_scale_is_a_derivative_of_the_straight_through_value() {
    // With rounding's residue held fixed, y = scale * (w / scale + residue) inside and scale * bound outside.
    let (w, scale, zero, bits) = ([0.26f32, -0.9, 5.0], 0.5f32, 2.0, 2);
    let (mut dw, mut dscales) = ([0.0; 3], [0.0]);
    fake_quantize_backward(&w, 1, 3, &[scale], &[zero], bits, &[1.0; 3], &mut dw, &mut dscales);
    assert_eq!(dw, [1.0, 1.0, 0.0]);
    let expected = (1.0 - 0.52) + (-2.0 + 1.8) + 1.0;
    assert!((f64::from(dscales[0]) - expected).abs() < 1e-6);
}

#[test]
fn rows_of_zeros_and_of_one_sign() {
    let x = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, -3.0, -2.0, -1.0];
    let mut y = [9.0; 9];
    fake_quantize_rows(&x, 3, 2, &mut y);
    assert_eq!(y, x);
}

#[test]
fn what_is_not_finite_shows() {
    let mut y = [0.0; 4];
    fake_quantize_rows(&[1.0, f32::NAN, 2.0, f32::INFINITY], 2, 8, &mut y);
    assert!(y[0] == 1.0 && y[1].is_nan() && y[2].is_nan() && y[3].is_nan());
    fake_quantize(&[f32::NAN, f32::INFINITY], 1, 2, &[1.0], &[0.0], 2, &mut y[..2]);
    assert!(y[0].is_nan() && y[1] == 3.0);
}
