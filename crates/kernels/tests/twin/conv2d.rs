use lapidary_kernels::conv2d::{Conv2dShape, conv2d, conv2d_backward_input, conv2d_backward_weight};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// Calls `f(x, w, y)` with the places of each product of the convolution, `x` absent in the padding.
fn for_each_product(shape: Conv2dShape, mut f: impl FnMut(Option<usize>, usize, usize)) {
    let [height, width] = shape.output_size();
    for n in 0..shape.batch {
        for (i, j) in (0..height).flat_map(|i| (0..width).map(move |j| (i, j))) {
            for o in 0..shape.output {
                let y = ((n * height + i) * width + j) * shape.output + o;
                for (a, b) in (0..shape.kernel[0]).flat_map(|a| (0..shape.kernel[1]).map(move |b| (a, b))) {
                    let row = (i * shape.stride[0] + a).checked_sub(shape.padding[0]).filter(|&row| row < shape.height);
                    let column =
                        (j * shape.stride[1] + b).checked_sub(shape.padding[1]).filter(|&column| column < shape.width);
                    for c in 0..shape.channels {
                        let pixel = row.zip(column).map(|(i, j)| (n * shape.height + i) * shape.width + j);
                        let w = ((o * shape.kernel[0] + a) * shape.kernel[1] + b) * shape.channels + c;
                        f(pixel.map(|pixel| pixel * shape.channels + c), w, y);
                    }
                }
            }
        }
    }
}

fn forward(x: &[f64], w: &[f64], shape: Conv2dShape) -> Vec<f64> {
    let mut result = vec![0.0; shape.output_len()];
    for_each_product(shape, |at, k, y| result[y] += at.map_or(0.0, |at| x[at]) * w[k]);
    result
}

fn check(shape: Conv2dShape) {
    let (x, w) = (random(shape.input_len(), 1), random(shape.weight_len(), 2));
    let (bias, dy) = (random(shape.output, 3), random(shape.output_len(), 4));
    let (x64, w64, dy64) = (to_f64(&x), to_f64(&w), to_f64(&dy));
    let tolerance = |terms: usize| 2e-6 * (terms.max(1) as f64).sqrt();
    let what = |name: &str| format!("{name} of {shape:?}");

    let expected = forward(&x64, &w64, shape);
    let mut y = vec![f32::NAN; shape.output_len()];
    conv2d(&x, &w, None, shape, &mut y);
    assert_close(&y, &expected, tolerance(shape.depth()), &what("y"));
    let with_bias: Vec<f64> = expected.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % shape.output])).collect();
    conv2d(&x, &w, Some(&bias), shape, &mut y);
    assert_close(&y, &with_bias, tolerance(shape.depth()), &what("y with bias"));

    let mut expected = vec![0.0; shape.input_len()];
    for_each_product(shape, |x, w, y| x.into_iter().for_each(|x| expected[x] += dy64[y] * w64[w]));
    let mut dx = vec![f32::NAN; shape.input_len()];
    conv2d_backward_input(&dy, &w, shape, &mut dx);
    assert_close(&dx, &expected, tolerance(shape.kernel[0] * shape.kernel[1] * shape.output), &what("dx"));

    let mut expected = vec![0.0; shape.weight_len()];
    for_each_product(shape, |x, w, y| x.into_iter().for_each(|x| expected[w] += dy64[y] * x64[x]));
    let mut dw = vec![f32::NAN; shape.weight_len()];
    conv2d_backward_weight(&dy, &x, shape, &mut dw);
    let [height, width] = shape.output_size();
    assert_close(&dw, &expected, tolerance(shape.batch * height * width), &what("dw"));
}

/// Images of `[height, width, channels]`; kernel, stride and padding alike in both directions.
fn shape(batch: usize, image: [usize; 3], output: usize, [kernel, stride, padding]: [usize; 3]) -> Conv2dShape {
    let [height, width, channels] = image;
    let [kernel, stride, padding] = [kernel, stride, padding].map(|n| [n; 2]);
    Conv2dShape { batch, height, width, channels, output, kernel, stride, padding }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_f64(
        batch in 0usize..4,
        size in [1usize..12, 1usize..12],
        channels in 1usize..20,
        output in 1usize..36,
        kernel in [0usize..3, 0usize..3],
        stride in [1usize..4, 1usize..4],
        padding in [0usize..3, 0usize..3],
    ) {
        let kernel = kernel.map(|n| [1, 3, 5][n]);
        let [height, width] = size;
        check(Conv2dShape { batch, height, width, channels, output, kernel, stride, padding });
    }
}

#[test]
fn agrees_with_f64_on_shapes_of_networks() {
    // Residual networks' 3x3, with and without a stride, their projection, and the first layer of a large one.
    check(shape(3, [32, 32, 16], 16, [3, 1, 1]));
    check(shape(2, [16, 16, 32], 64, [3, 2, 1]));
    check(shape(2, [16, 16, 32], 64, [1, 2, 0]));
    check(shape(1, [21, 19, 3], 24, [7, 2, 3]));
    // Patches that do not overlap, as a vision transformer cuts them.
    check(shape(2, [16, 16, 3], 33, [8, 8, 0]));
}

#[test]
fn agrees_with_f64_where_work_is_split() {
    // A depth of several blocks, an image of several bands, a batch of more images than chunks, several images at once.
    check(shape(1, [5, 4, 130], 9, [3, 1, 1]));
    check(shape(1, [3, 3, 700], 5, [1, 1, 0]));
    check(shape(1, [90, 20, 40], 3, [3, 2, 1]));
    check(shape(1, [300, 130, 1], 2, [1, 1, 0]));
    check(shape(70, [3, 5, 4], 6, [3, 1, 1]));
    // More output channels than panels of a group.
    check(shape(2, [4, 4, 3], 90, [3, 1, 1]));
}

#[test]
fn empty_inputs() {
    for empty in [
        shape(0, [4, 4, 2], 3, [3, 1, 1]),
        shape(2, [0, 4, 2], 3, [1, 1, 0]),
        shape(2, [4, 4, 2], 0, [3, 1, 1]),
        shape(2, [4, 4, 0], 3, [3, 1, 1]),
        // Only padding.
        shape(1, [0, 0, 2], 3, [3, 1, 2]),
        // A kernel larger than the image: no output.
        shape(1, [2, 2, 2], 3, [5, 1, 1]),
    ] {
        check(empty);
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let together = shape(5, [9, 7, 20], 18, [3, 2, 1]);
    let alone = Conv2dShape { batch: 1, ..together };
    let (x, w) = (random(together.input_len(), 1), random(together.weight_len(), 2));
    let mut y = vec![0.0; together.output_len()];
    conv2d(&x, &w, None, together, &mut y);
    let mut one = vec![0.0; alone.output_len()];
    for (x, y) in x.chunks(alone.input_len()).zip(y.chunks(alone.output_len())) {
        conv2d(x, &w, None, alone, &mut one);
        assert_eq!(one, y);
    }
}

#[test]
fn nan_and_infinity_reach_what_they_touch() {
    let shape = shape(2, [6, 5, 3], 17, [3, 1, 1]);
    let w = random(shape.weight_len(), 2);
    for value in [f32::NAN, f32::INFINITY] {
        let (mut x, mut dy) = (random(shape.input_len(), 1), random(shape.output_len(), 4));
        x[40] = value;
        dy[200] = value;
        let same = |actual: &[f32], expected: &[f64]| {
            for (actual, expected) in actual.iter().zip(expected) {
                assert_eq!(actual.is_nan(), expected.is_nan());
                assert_eq!(actual.is_infinite(), expected.is_infinite());
                assert!(!actual.is_infinite() || f64::from(*actual) == *expected);
            }
        };
        let mut y = vec![0.0; shape.output_len()];
        conv2d(&x, &w, None, shape, &mut y);
        same(&y, &forward(&to_f64(&x), &to_f64(&w), shape));

        let mut expected = vec![0.0; shape.input_len()];
        for_each_product(shape, |x, k, y| x.into_iter().for_each(|x| expected[x] += f64::from(dy[y] * w[k])));
        let mut dx = vec![0.0; shape.input_len()];
        conv2d_backward_input(&dy, &w, shape, &mut dx);
        same(&dx, &expected);

        let mut expected = vec![0.0; shape.weight_len()];
        for_each_product(shape, |at, w, y| expected[w] += f64::from(at.map_or(0.0, |at| x[at]) * dy[y]));
        let mut dw = vec![0.0; shape.weight_len()];
        conv2d_backward_weight(&dy, &x, shape, &mut dw);
        same(&dw, &expected);
    }
}
