//! Ranges, codes and what they stand for.

use lapidary_kernels::fake_quantize::fake_quantize;
use lapidary_quant::{Method, QuantError, Ranges, dequantize, find_ranges, group_rows, quantize_codes};
use proptest::prelude::*;

use crate::support::{normal, one_group, plain};

const METHODS: [Method; 2] = [Method::MinMax, Method::LeastSquares];

#[test]
fn the_whole_range_by_hand() {
    // 0 to 3 in steps of 1; -1 to 2 with the zero one up; all negative; 0 below all weights.
    assert_eq!(one_group(&[0.0, 3.0], 2, Method::MinMax), (1.0, 0.0));
    assert_eq!(one_group(&[-1.0, 2.0], 2, Method::MinMax), (1.0, 1.0));
    assert_eq!(one_group(&[-3.0, -2.0], 2, Method::MinMax), (1.0, 3.0));
    assert_eq!(one_group(&[5.0, 7.5], 4, Method::MinMax), (0.5, 0.0));
}

#[test]
fn constant_and_empty_groups() {
    for method in METHODS {
        for bits in [2, 4, 8] {
            assert_eq!(one_group(&[0.0; 12], bits, method), (1.0, 0.0));
            for constant in [0.7f32, -0.7, 1e-20] {
                let (scale, zero) = one_group(&[constant; 12], bits, method);
                let (_, back) = plain(constant, scale, zero, bits);
                assert!((back - f64::from(constant)).abs() <= 1e-6 * f64::from(constant.abs()), "{constant} {back}");
            }
        }
        assert_eq!(find_ranges(&[], 3, 0, 2, 4, method).unwrap().scales, [1.0, 1.0]);
    }
}

#[test]
fn groups_that_do_not_divide_the_rows() {
    let sizes: Vec<usize> = (0..4).map(|group| group_rows(10, 4, group).len()).collect();
    assert_eq!(sizes, [2, 3, 2, 3]);
    for (rows, groups) in [(10, 4), (7, 7), (238, 128), (30522, 128), (5, 1)] {
        let mut next = 0;
        for group in 0..groups {
            let range = group_rows(rows, groups, group);
            assert_eq!(range.start, next);
            assert!(!range.is_empty());
            next = range.end;
        }
        assert_eq!(next, rows);
    }
}

#[test]
fn bad_input_is_named() {
    let w = normal(12, 1);
    let find = |w: &[f32], groups, bits| find_ranges(w, 4, 3, groups, bits, Method::LeastSquares);
    for bits in [0, 1, 9, 32, 1000] {
        assert!(matches!(find(&w, 1, bits), Err(QuantError::Bits(b)) if b == bits));
    }
    assert!(find(&w, 5, 4).unwrap_err().to_string().contains("groups must be at most rows"));
    assert!(matches!(find(&w, 0, 4), Err(QuantError::NoGroups)));
    assert!(matches!(find(&w[1..], 2, 4), Err(QuantError::Shape { found: 11, .. })));
    assert!(matches!(find_ranges(&w, usize::MAX, 2, 1, 4, Method::MinMax), Err(QuantError::Shape { .. })));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut w = w.clone();
        w[7] = bad;
        w[11] = bad;
        for method in METHODS {
            let error = find_ranges(&w, 4, 3, 4, 4, method).unwrap_err();
            assert!(matches!(error, QuantError::Weight { group: 2, row: 2, col: 1, .. }), "{error}");
        }
    }
}

#[test]
fn ranges_are_checked_before_use() {
    let w = normal(12, 1);
    let codes = |scales: &[f32], zeros: &[f32]| {
        quantize_codes(&w, 4, 3, &Ranges { scales: scales.to_vec(), zeros: zeros.to_vec() }, 2)
    };
    assert!(codes(&[1.0, 1.0], &[0.0, 3.0]).is_ok());
    for (scale, zero) in [(0.0, 1.0), (-1.0, 1.0), (f32::NAN, 1.0), (f32::INFINITY, 1.0), (1.0, 4.0), (1.0, 0.5)] {
        assert!(matches!(codes(&[1.0, scale], &[0.0, zero]), Err(QuantError::Range { group: 1, .. })));
    }
    assert!(matches!(codes(&[1.0], &[]), Err(QuantError::Unpaired { .. })));
    assert!(matches!(codes(&[1.0; 5], &[0.0; 5]), Err(QuantError::Groups { .. })));
    let ranges = Ranges { scales: vec![1.0], zeros: vec![0.0] };
    assert!(matches!(dequantize(&[0; 11], 4, 3, &ranges, 2), Err(QuantError::Shape { .. })));
}

proptest! {
    #[test]
    fn codes_agree_with_the_formula_and_with_fake_quantization(
        rows in 1usize..9,
        cols in 1usize..40,
        share in 0.0f64..1.0,
        bits in 2u32..=8,
        method in prop::sample::select(METHODS.to_vec()),
        seed in 0u64..1000,
        shift in -2f32..2.0,
    ) {
        let groups = 1 + (share * rows as f64) as usize;
        let w: Vec<f32> = normal(rows * cols, seed).iter().map(|w| w + shift).collect();
        let ranges = find_ranges(&w, rows, cols, groups, bits, method).unwrap();
        ranges.check(rows, bits).unwrap();
        let codes = quantize_codes(&w, rows, cols, &ranges, bits).unwrap();
        let weights = dequantize(&codes, rows, cols, &ranges, bits).unwrap();
        let mut fake = vec![0.0; w.len()];
        fake_quantize(&w, rows, cols, &ranges.scales, &ranges.zeros, bits, &mut fake);
        // 0 in one is -0 in the other.
        prop_assert!(fake.iter().zip(&weights).all(|(a, b)| a == b));

        let steps = ((1u32 << bits) - 1) as f32;
        for group in 0..groups {
            let (scale, zero) = (ranges.scales[group], ranges.zeros[group]);
            prop_assert_eq!(plain(0.0, scale, zero, bits).1, 0.0);
            let here = group_rows(rows, groups, group);
            for i in here.start * cols..here.end * cols {
                prop_assert_eq!(codes[i], plain(w[i], scale, zero, bits).0);
                let inside = (-zero - 0.5..=steps - zero + 0.5).contains(&(w[i] / scale));
                if inside || method == Method::MinMax {
                    let bound = 0.5 * scale * (1.0 + 1e-5) + 1e-6 * w[i].abs();
                    prop_assert!((w[i] - weights[i]).abs() <= bound, "{} {} {}", w[i], weights[i], scale);
                }
            }
        }

        // Once on the grid, always on the grid.
        prop_assert_eq!(quantize_codes(&weights, rows, cols, &ranges, bits).unwrap(), codes);
    }

    /// A group's range depends on its own weights alone, and on no thread count.
    #[test]
    fn groups_are_independent(rows in 2usize..12, seed in 0u64..100, bits in 2u32..=8) {
        let w = normal(rows * 5, seed);
        let ranges = find_ranges(&w, rows, 5, rows, bits, Method::LeastSquares).unwrap();
        for row in 0..rows {
            let (scale, zero) = one_group(&w[row * 5..(row + 1) * 5], bits, Method::LeastSquares);
            prop_assert_eq!((ranges.scales[row], ranges.zeros[row]), (scale, zero));
        }
    }
}
