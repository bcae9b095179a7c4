use lapidary_kernels::linear::linear;
use lapidary_kernels::packed::PackedLinear;
use lapidary_kernels::precision::Precision;

use super::random;

/// Packed weights give the bits of [`linear`], however many rows there are and however the panels are divided.
fn check(input: usize, output: usize, rows: &[usize]) {
    let (w, bias) = (random(output * input, 1), random(output, 2));
    for precision in [Precision::F32, Precision::Bf16] {
        let packed = PackedLinear::new(&w, output, input, precision);
        assert_eq!((packed.input(), packed.output(), packed.precision()), (input, output, precision));
        for &n in rows {
            let (x, residual) = (random(n * input, 3), random(n * output, 4));
            for (bias, residual) in [(None, None), (Some(&bias[..]), Some(&residual[..]))] {
                let mut expected = vec![f32::NAN; n * output];
                linear(&x, &w, bias, residual, n, input, output, precision, &mut expected);
                let mut y = vec![f32::NAN; n * output];
                packed.forward(&x, n, bias, residual, &mut y);
                assert_eq!(y, expected, "{n} rows of {input} to {output} in {precision:?}");

                let mut y = vec![f32::NAN; n * output];
                let cuts = [0, packed.panels() / 3, packed.panels() / 3, packed.panels()];
                for panels in cuts.windows(2).map(|cut| cut[0]..cut[1]) {
                    let columns = packed.columns(panels.clone());
                    let mut part = vec![f32::NAN; n * columns.len()];
                    packed.forward_panels(&x, n, panels, bias, residual, &mut part);
                    for (y, part) in y.chunks_exact_mut(output.max(1)).zip(part.chunks_exact(columns.len().max(1))) {
                        y[columns.clone()].copy_from_slice(part);
                    }
                }
                assert_eq!(y, expected, "{n} rows of {input} to {output} in {precision:?} by panels");
            }
        }
    }
}

#[test]
fn gives_the_bits_of_linear() {
    check(1, 1, &[1, 2]);
    check(45, 77, &[0, 1, 2, 3, 4, 5, 17, 33, 70]);
    check(64, 256, &[1, 2, 3, 4, 40]);
    check(17, 240, &[1, 2, 3, 4]);
}

#[test]
fn gives_the_bits_of_linear_on_more_than_one_block() {
    check(1301, 100, &[1, 2, 3, 4, 5, 7, 150]);
    check(700, 1100, &[1, 2, 3, 4, 9]);
}

#[test]
fn no_output_and_no_input() {
    check(5, 0, &[0, 1, 9]);
    check(0, 5, &[0, 1, 9]);
}
