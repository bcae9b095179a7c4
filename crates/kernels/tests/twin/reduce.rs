use lapidary_kernels::reduce::sum_of_squares;

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
