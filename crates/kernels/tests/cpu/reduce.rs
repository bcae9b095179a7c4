use lapidary_kernels::cpu::reduce::{all_finite, sum_of_squares};

use super::{random, to_f64};

#[test]
fn sums_of_every_length() {
    for n in [0, 1, 15, 16, 17, 1000, 65_536, 65_537, 300_001] {
        let x = random(n, 1);
        let expected: f64 = to_f64(&x).iter().map(|x| x * x).sum();
        assert!((sum_of_squares(&x) - expected).abs() <= 1e-12 * expected, "{n}");
    }
}

#[test]
fn large_squares_do_not_overflow() {
    assert!((sum_of_squares(&[1e30; 4]) / 4e60 - 1.0).abs() < 1e-6);
}

#[test]
fn one_bad_element_is_found_anywhere() {
    let mut x = random(200_003, 1);
    assert!(all_finite(&x) && all_finite(&[]) && all_finite(&[f32::MAX, f32::MIN, -0.0]));
    for (at, bad) in [(0, f32::NAN), (100_000, f32::INFINITY), (200_002, f32::NEG_INFINITY)] {
        let good = std::mem::replace(&mut x[at], bad);
        assert!(!all_finite(&x));
        x[at] = good;
    }
}
