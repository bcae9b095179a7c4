use lapidary_kernels::pool::{global_average_pool, global_average_pool_backward};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

fn check(n: usize, pixels: usize, channels: usize) {
    let (x, dy) = (random(n * pixels * channels, 1), random(n * channels, 2));
    let mut expected = vec![0.0; n * channels];
    for (i, x) in to_f64(&x).iter().enumerate() {
        expected[i / (pixels * channels) * channels + i % channels] += x / pixels as f64;
    }
    let mut y = vec![f32::NAN; n * channels];
    global_average_pool(&x, pixels, channels, &mut y);
    assert_close(&y, &expected, 1e-6, "y");

    let share = |i: usize| f64::from(dy[i / (pixels * channels) * channels + i % channels]) / pixels as f64;
    let expected: Vec<f64> = (0..x.len()).map(share).collect();
    let mut dx = vec![f32::NAN; x.len()];
    global_average_pool_backward(&dy, pixels, channels, &mut dx);
    assert_close(&dx, &expected, 1e-6, "dx");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn agrees_with_f64(n in 0usize..6, pixels in 1usize..100, channels in 1usize..70) {
        check(n, pixels, channels);
    }
}

#[test]
fn agrees_with_f64_on_several_chunks() {
    check(70, 64, 64);
    check(3, 50_000, 2);
}

#[test]
fn the_mean_of_nothing_is_nan() {
    let mut y = [0.0; 2];
    global_average_pool(&[], 0, 2, &mut y);
    assert!(y.iter().all(|y| y.is_nan()));
    global_average_pool_backward(&y, 0, 2, &mut []);
}
