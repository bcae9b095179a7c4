use lapidary_kernels::conv2d::{Conv2dShape, patch_products, patch_sums};
use proptest::prelude::*;

use super::{assert_close, random, to_f64};

/// All patches of all images, written out.
fn patches(x: &[f64], shape: Conv2dShape) -> Vec<Vec<f64>> {
    let [height, width] = shape.output_size();
    let mut patches = Vec::new();
    for (n, i, j) in (0..shape.batch).flat_map(|n| (0..height).flat_map(move |i| (0..width).map(move |j| (n, i, j)))) {
        let mut patch = Vec::with_capacity(shape.depth());
        for (a, b) in (0..shape.kernel[0]).flat_map(|a| (0..shape.kernel[1]).map(move |b| (a, b))) {
            let row = (i * shape.stride[0] + a).checked_sub(shape.padding[0]).filter(|&row| row < shape.height);
            let column = (j * shape.stride[1] + b).checked_sub(shape.padding[1]).filter(|&it| it < shape.width);
            for c in 0..shape.channels {
                let at = row.zip(column).map(|(i, j)| ((n * shape.height + i) * shape.width + j) * shape.channels + c);
                patch.push(at.map_or(0.0, |at| x[at]));
            }
        }
        patches.push(patch);
    }
    patches
}

fn check(shape: Conv2dShape) {
    let x = random(shape.input_len(), 1);
    let patches = patches(&to_f64(&x), shape);
    let depth = shape.depth();
    let mut expected = vec![0.0; depth * depth];
    for patch in &patches {
        for (i, a) in patch.iter().enumerate() {
            patch.iter().enumerate().for_each(|(j, b)| expected[i * depth + j] += a * b);
        }
    }
    let tolerance = 4e-6 * (patches.len().max(1) as f64).sqrt();
    let mut found = vec![f32::NAN; depth * depth];
    patch_products(&x, shape, &mut found);
    assert_close(&found, &expected, tolerance, &format!("products of the patches of {shape:?}"));

    let mut expected = vec![0.0; depth];
    patches.iter().for_each(|patch| expected.iter_mut().zip(patch).for_each(|(sum, x)| *sum += x));
    let mut found = vec![f32::NAN; depth];
    patch_sums(&x, shape, &mut found);
    assert_close(&found, &expected, tolerance, &format!("sums of the patches of {shape:?}"));
}

fn shape(batch: usize, [height, width, channels]: [usize; 3], [kernel, stride, padding]: [usize; 3]) -> Conv2dShape {
    let [kernel, stride, padding] = [kernel, stride, padding].map(|n| [n; 2]);
    Conv2dShape { batch, height, width, channels, output: 1, kernel, stride, padding }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agree_with_f64(
        batch in 0usize..4,
        size in [1usize..9, 1usize..9],
        channels in 1usize..18,
        kernel in [0usize..3, 0usize..3],
        stride in [1usize..3, 1usize..3],
        padding in [0usize..3, 0usize..3],
    ) {
        let kernel = kernel.map(|n| [1, 3, 5][n]);
        let [height, width] = size;
        check(Conv2dShape { batch, height, width, channels, output: 1, kernel, stride, padding });
    }

    /// The kernel that nearly all networks have.
    #[test]
    fn agree_with_f64_by_distance(batch in 1usize..4, size in [1usize..9, 1usize..9], channels in 1usize..18) {
        check(shape(batch, [size[0], size[1], channels], [3, 1, 1]));
    }
}

#[test]
fn agree_with_f64_on_shapes_of_networks() {
    check(shape(8, [32, 32, 3], [3, 1, 1]));
    check(shape(4, [16, 16, 32], [3, 1, 1]));
    check(shape(4, [16, 16, 32], [3, 2, 1]));
    check(shape(4, [16, 16, 32], [1, 2, 0]));
    check(shape(3, [8, 8, 64], [1, 1, 0]));
}
