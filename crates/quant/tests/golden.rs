//! Fake quantization against PyTorch's: `oracles/quantizer.py`.

use std::path::Path;

use approx::{assert_abs_diff_eq, assert_relative_eq};
use lapidary_kernels::fake_quantize::{fake_quantize, fake_quantize_backward, fake_quantize_codes, fake_quantize_rows};
use lapidary_models::checkpoint::SafetensorsFile;
use lapidary_quant::{Method, Ranges, dequantize, find_ranges, group_rows, quantize_codes};

const BITS: [u32; 4] = [2, 3, 4, 8];

/// The tensors of one case.
struct Case<'a> {
    file: &'a SafetensorsFile,
    name: String,
    bits: u32,
}

impl Case<'_> {
    fn floats(&self, tensor: &str) -> Vec<f32> {
        self.file.tensor(&format!("{}.{tensor}", self.name)).unwrap().data
    }

    fn bytes(&self, tensor: &str) -> Vec<u8> {
        self.file.bytes(&format!("{}.{tensor}", self.name)).unwrap()
    }

    fn shape(&self, tensor: &str) -> [usize; 2] {
        let info = self.file.info(&format!("{}.{tensor}", self.name)).unwrap();
        [info.shape[0] as usize, info.shape[1] as usize]
    }
}

fn open() -> SafetensorsFile {
    SafetensorsFile::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/quantizer.safetensors")).unwrap()
}

#[test]
fn weights_in_groups_of_rows() {
    let file = open();
    for bits in BITS {
        let groups = [1, 4, 11].map(|groups| format!("weights.b{bits}.g{groups}"));
        for name in groups.into_iter().chain([format!("ties.b{bits}")]) {
            check_weights(&Case { file: &file, name, bits });
        }
    }
}

fn check_weights(case: &Case<'_>) {
    let Case { name, bits, .. } = case;
    let [rows, cols] = case.shape("w");
    let (w, scales, zeros) = (case.floats("w"), case.floats("scales"), case.floats("zeros"));

    let mut y = vec![0.0; w.len()];
    fake_quantize(&w, rows, cols, &scales, &zeros, *bits, &mut y);
    assert_relative_eq!(y[..], case.floats("y")[..], epsilon = 0.0, max_relative = 1e-6);
    let mut codes = vec![0; w.len()];
    fake_quantize_codes(&w, rows, cols, &scales, &zeros, *bits, &mut codes);
    assert_eq!(codes, case.bytes("codes"), "{name}");

    let dy = case.floats("dy");
    let (mut dw, mut dscales) = (vec![0.0; w.len()], vec![0.0; scales.len()]);
    fake_quantize_backward(&w, rows, cols, &scales, &zeros, *bits, &dy, &mut dw, &mut dscales);
    let masked: Vec<f32> = dy.iter().zip(case.bytes("mask")).map(|(dy, mask)| dy * f32::from(mask)).collect();
    assert_eq!(dw, masked, "{name}");
    assert_eq!(dw, case.floats("dw"), "{name}");
    for (group, expected) in case.floats("dscales").into_iter().enumerate() {
        let rows = group_rows(rows, scales.len(), group);
        // No term is larger than dy times the greatest code.
        let largest: f32 = dy[rows.start * cols..rows.end * cols].iter().map(|dy| dy.abs()).sum();
        assert_abs_diff_eq!(dscales[group], expected, epsilon = 1e-6 * largest * (1u32 << bits) as f32);
    }

    let ranges = Ranges { scales, zeros };
    assert_eq!(quantize_codes(&w, rows, cols, &ranges, *bits).unwrap(), codes, "{name}");
    assert_eq!(dequantize(&codes, rows, cols, &ranges, *bits).unwrap(), y, "{name}");
}

#[test]
fn activations_and_tables_row_by_row() {
    let file = open();
    for bits in BITS {
        let case = Case { file: &file, name: format!("rows.b{bits}"), bits };
        let [rows, cols] = case.shape("x");
        let x = case.floats("x");
        let mut y = vec![0.0; x.len()];
        fake_quantize_rows(&x, cols, bits, &mut y);
        assert_relative_eq!(y[..], case.floats("y")[..], epsilon = 0.0, max_relative = 1e-6);

        // A table is packed as its rows are rounded.
        let ranges = find_ranges(&x, rows, cols, rows, bits, Method::MinMax).unwrap();
        assert_relative_eq!(ranges.scales[..], case.floats("scales")[..], epsilon = 0.0, max_relative = 1e-6);
        assert_eq!(ranges.zeros, case.floats("zeros"));
        let codes = quantize_codes(&x, rows, cols, &ranges, bits).unwrap();
        assert_eq!(codes, case.bytes("codes"));
        assert_eq!(dequantize(&codes, rows, cols, &ranges, bits).unwrap(), y);
    }
}
