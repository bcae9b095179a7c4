use lapidary_kernels::attention::{AttentionShape, attention, attention_backward};
use lapidary_kernels::mask::{Mask, MaskKind};
use proptest::prelude::*;

use super::{assert_close, difference, random, to_f64};

fn twin(q: &[f64], k: &[f64], v: &[f64], shape: AttentionShape, mask: &Mask) -> Vec<f64> {
    let AttentionShape { rows, length, heads, head_width } = shape;
    let at = |row: usize, token: usize, head: usize, i: usize| ((row * length + token) * heads + head) * head_width + i;
    let mut out = vec![0.0; q.len()];
    for row in 0..rows {
        for head in 0..heads {
            for query in 0..length {
                let mut weights = vec![0.0; length];
                for key in 0..length {
                    if mask.visible(row, query, key) {
                        let score: f64 =
                            (0..head_width).map(|i| q[at(row, query, head, i)] * k[at(row, key, head, i)]).sum();
                        weights[key] = (score / (head_width as f64).sqrt()).exp();
                    }
                }
                let total: f64 = weights.iter().sum();
                if total > 0.0 {
                    for key in 0..length {
                        for i in 0..head_width {
                            out[at(row, query, head, i)] += weights[key] / total * v[at(row, key, head, i)];
                        }
                    }
                }
            }
        }
    }
    out
}

/// A mask of each kind, with and without padding (down to rows of nothing but padding).
fn masks(rows: usize, length: usize) -> impl Strategy<Value = Mask> {
    let kinds = prop_oneof![Just(MaskKind::Full), Just(MaskKind::Causal), Just(MaskKind::Prefix)];
    let of_rows = || prop::option::of(prop::collection::vec(0..=length, rows));
    (kinds, of_rows(), of_rows()).prop_map(|(kind, lengths, prefix)| Mask {
        kind,
        lengths: lengths.map(Into::into),
        prefix: prefix.map(Into::into),
    })
}

fn cases(max_length: usize, max_width: usize) -> impl Strategy<Value = (AttentionShape, Mask)> {
    (1..4usize, 1..=max_length, 1..4usize, 1..=max_width).prop_flat_map(|(rows, length, heads, head_width)| {
        (Just(AttentionShape { rows, length, heads, head_width }), masks(rows, length))
    })
}

fn elements(shape: AttentionShape) -> usize {
    shape.rows * shape.length * shape.heads * shape.head_width
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn forward_agrees_with_f64((shape, mask) in cases(150, 70)) {
        let n = elements(shape);
        let (q, k, v) = (random(n, 1), random(n, 2), random(n, 3));
        let mut out = vec![f32::NAN; n];
        attention(&q, &k, &v, shape, &mask, &mut out);
        assert_close(&out, &twin(&to_f64(&q), &to_f64(&k), &to_f64(&v), shape, &mask), 4e-6, "out");
    }

    #[test]
    fn backward_agrees_with_differences((shape, mask) in cases(9, 5)) {
        check_backward(shape, &mask);
    }
}

fn check_backward(shape: AttentionShape, mask: &Mask) {
    let n = elements(shape);
    let (q, k, v, dout) = (random(n, 1), random(n, 2), random(n, 3), random(n, 4));
    let (q64, k64, v64) = (to_f64(&q), to_f64(&k), to_f64(&v));
    let (mut dq, mut dk, mut dv) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; n]);
    attention_backward(&q, &k, &v, &dout, shape, mask, &mut dq, &mut dk, &mut dv);
    assert_close(&dq, &difference(&q, &dout, |q| twin(q, &k64, &v64, shape, mask)), 1e-5, "dq");
    assert_close(&dk, &difference(&k, &dout, |k| twin(&q64, k, &v64, shape, mask)), 1e-5, "dk");
    assert_close(&dv, &difference(&v, &dout, |v| twin(&q64, &k64, v, shape, mask)), 1e-5, "dv");
}

#[test]
fn backward_over_several_blocks_of_queries() {
    let shape = AttentionShape { rows: 1, length: 101, heads: 1, head_width: 2 };
    for mask in [Mask::full(), Mask::causal(), Mask::prefix([60]).with_lengths([90])] {
        check_backward(shape, &mask);
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (one, two) = (
        AttentionShape { rows: 1, length: 21, heads: 3, head_width: 20 },
        AttentionShape { rows: 2, length: 21, heads: 3, head_width: 20 },
    );
    let n = elements(one);
    let (q, k, v) = (random(2 * n, 1), random(2 * n, 2), random(2 * n, 3));
    let (mut alone, mut both) = (vec![0.0; n], vec![0.0; 2 * n]);
    attention(&q[n..], &k[n..], &v[n..], one, &Mask::full().with_lengths([13]), &mut alone);
    attention(&q, &k, &v, two, &Mask::full().with_lengths([21, 13]), &mut both);
    assert_eq!(alone, both[n..]);
}

#[test]
fn hidden_values_have_no_influence() {
    let shape = AttentionShape { rows: 1, length: 20, heads: 2, head_width: 8 };
    let n = elements(shape);
    let (q, k, v) = (random(n, 1), random(n, 2), random(n, 3));
    let (mut k_other, mut v_other) = (k.clone(), v.clone());
    k_other[11 * 16..].fill(1e4);
    v_other[11 * 16..].fill(-1e4);
    let (mut out, mut out_other) = (vec![0.0; n], vec![0.0; n]);
    let mask = Mask::full().with_lengths([11]);
    attention(&q, &k, &v, shape, &mask, &mut out);
    attention(&q, &k_other, &v_other, shape, &mask, &mut out_other);
    assert_eq!(out, out_other);
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = AttentionShape { rows: 1, length: 3, heads: 1, head_width: 1 };
    let mut out = [0.0; 3];
    attention(&[1e3, -1e3, 0.0], &[1e3, -1e3, 0.0], &[1.0, 2.0, 3.0], shape, &Mask::full(), &mut out);
    assert_eq!(out, [1.0, 2.0, 2.0]);
}
