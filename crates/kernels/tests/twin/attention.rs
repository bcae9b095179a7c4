use lapidary_kernels::attention::{AttentionOptions, AttentionShape, attention, attention_backward};
use lapidary_kernels::mask::{Mask, MaskKind};
use lapidary_kernels::rotary::Rotary;
use proptest::prelude::*;

use super::rotary::{turn, turn_back};
use super::{assert_close, difference, random, to_f64};

/// A head of a token in arrays of so many heads.
fn head(x: &[f64], heads: usize, shape: AttentionShape, row: usize, token: usize, head: usize) -> &[f64] {
    &x[((row * shape.length + token) * heads + head) * shape.head_width..][..shape.head_width]
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Output, logarithms of the denominators, and the gradients for `dout`.
pub struct Twin {
    pub out: Vec<f64>,
    log_sums: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

pub fn twin(q: &[f64], k: &[f64], v: &[f64], dout: &[f64], shape: AttentionShape, options: &AttentionOptions) -> Twin {
    let AttentionShape { rows, length, heads, kv_heads, head_width } = shape;
    let scale = options.scale.map_or(1.0 / (head_width as f64).sqrt(), f64::from);
    let angle = |row: usize, token: usize| -> Vec<f64> {
        let Some(rotary) = &options.rotary else { return Vec::new() };
        let position = rotary.offsets.as_ref().map_or(0, |offsets| offsets[row]) + token;
        rotary.frequencies.iter().map(|frequency| position as f64 * frequency).collect()
    };
    let mut twin = Twin {
        out: vec![0.0; q.len()],
        log_sums: vec![f64::NEG_INFINITY; rows * heads * length],
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    for (row, query_head) in (0..rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let kv_head = query_head / (heads / kv_heads);
        for query in 0..length {
            let q = turn(head(q, heads, shape, row, query, query_head), &angle(row, query));
            let visible: Vec<usize> = (0..length).filter(|&key| options.mask.visible(row, query, key)).collect();
            let turned = |key: usize| turn(head(k, kv_heads, shape, row, key, kv_head), &angle(row, key));
            // Scores and the derivatives of the soft cap.
            let (scores, slopes): (Vec<f64>, Vec<f64>) = visible
                .iter()
                .map(|&key| {
                    let score = scale * dot(&q, &turned(key));
                    let Some(cap) = options.soft_cap.map(f64::from) else { return (score, 1.0) };
                    (cap * (score / cap).tanh(), 1.0 - (score / cap).tanh().powi(2))
                })
                .unzip();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
            if visible.is_empty() {
                continue;
            }
            let log_sum = largest + sum.ln();
            twin.log_sums[(row * heads + query_head) * length + query] = log_sum;
            let at = ((row * length + query) * heads + query_head) * head_width;
            let dout = &dout[at..][..head_width];
            for (&key, score) in visible.iter().zip(&scores) {
                for (out, v) in twin.out[at..].iter_mut().zip(head(v, kv_heads, shape, row, key, kv_head)) {
                    *out += (score - log_sum).exp() * v;
                }
            }
            let mean = dot(dout, &twin.out[at..][..head_width]);
            let mut dq = vec![0.0; head_width];
            for ((&key, score), slope) in visible.iter().zip(&scores).zip(&slopes) {
                let p = (score - log_sum).exp();
                let dp = dot(dout, head(v, kv_heads, shape, row, key, kv_head));
                let ds = p * (dp - mean) * slope * scale;
                let at = ((row * length + key) * kv_heads + kv_head) * head_width;
                let dk: Vec<f64> = q.iter().map(|q| ds * q).collect();
                for (sum, dk) in twin.dk[at..].iter_mut().zip(turn_back(&dk, &angle(row, key))) {
                    *sum += dk;
                }
                twin.dv[at..].iter_mut().zip(dout).for_each(|(sum, dout)| *sum += p * dout);
                dq.iter_mut().zip(turned(key)).for_each(|(sum, k)| *sum += ds * k);
            }
            twin.dq[at..][..head_width].copy_from_slice(&turn_back(&dq, &angle(row, query)));
        }
    }
    twin
}

/// A mask of each kind, with and without window and padding (down to rows of nothing but padding).
fn masks(rows: usize, length: usize) -> impl Strategy<Value = Mask> {
    let kinds =
        prop_oneof![Just(MaskKind::Full), Just(MaskKind::Causal), Just(MaskKind::Prefix), Just(MaskKind::Canvas)];
    let of_rows = || prop::option::of(prop::collection::vec(0..=length, rows));
    let window = prop::option::of(0..=length + 1);
    (kinds, of_rows(), of_rows(), window).prop_map(|(kind, lengths, prefix, window)| Mask {
        kind,
        lengths: lengths.map(Into::into),
        prefix: prefix.map(Into::into),
        window,
    })
}

fn options(rows: usize, length: usize, head_width: usize) -> impl Strategy<Value = AttentionOptions> {
    let rotary = prop::option::of(prop::option::of(prop::collection::vec(0..9000usize, rows)));
    let rotary = rotary.prop_map(move |rotary| {
        let offsets = rotary?;
        let rotary = Rotary::new(1e4, head_width);
        Some(match offsets {
            Some(offsets) => rotary.with_offsets(offsets),
            None => rotary,
        })
    });
    let (scale, soft_cap) = (prop::option::of(0.05f32..0.5), prop::option::of(0.5f32..30.0));
    (masks(rows, length), rotary, scale, soft_cap).prop_map(move |(mask, rotary, scale, soft_cap)| AttentionOptions {
        mask,
        rotary: rotary.filter(|_| head_width.is_multiple_of(2)),
        scale,
        soft_cap,
    })
}

fn cases(max_length: usize, max_width: usize) -> impl Strategy<Value = (AttentionShape, AttentionOptions)> {
    (1..4usize, 1..=max_length, 1..4usize, 1..4usize, 1..=max_width).prop_flat_map(
        |(rows, length, kv_heads, group, head_width)| {
            let shape = AttentionShape { rows, length, heads: kv_heads * group, kv_heads, head_width };
            (Just(shape), options(rows, length, head_width))
        },
    )
}

struct Inputs {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

impl Inputs {
    fn new(shape: AttentionShape) -> Self {
        let (n, m) = (shape.query_len(), shape.key_len());
        Self { q: random(n, 1), k: random(m, 2), v: random(m, 3), dout: random(n, 4) }
    }

    fn twin(&self, shape: AttentionShape, options: &AttentionOptions) -> Twin {
        twin(&to_f64(&self.q), &to_f64(&self.k), &to_f64(&self.v), &to_f64(&self.dout), shape, options)
    }

    fn forward(&self, shape: AttentionShape, options: &AttentionOptions) -> (Vec<f32>, Vec<f32>) {
        let mut out = vec![f32::NAN; self.q.len()];
        let mut log_sums = vec![f32::NAN; shape.rows * shape.heads * shape.length];
        attention(&self.q, &self.k, &self.v, shape, options, &mut out, Some(&mut log_sums));
        (out, log_sums)
    }

    fn backward(&self, shape: AttentionShape, options: &AttentionOptions) -> [Vec<f32>; 3] {
        let (out, log_sums) = self.forward(shape, options);
        let [mut dq, mut dk, mut dv] = [&self.q, &self.k, &self.v].map(|x| vec![f32::NAN; x.len()]);
        let Self { q, k, v, dout } = self;
        attention_backward(q, k, v, &out, &log_sums, dout, shape, options, &mut dq, &mut dk, &mut dv);
        [dq, dk, dv]
    }
}

fn check(shape: AttentionShape, options: &AttentionOptions) {
    let inputs = Inputs::new(shape);
    let expected = inputs.twin(shape, options);
    let (out, log_sums) = inputs.forward(shape, options);
    assert_close(&out, &expected.out, 1e-5, "out");
    for (actual, expected) in log_sums.iter().zip(&expected.log_sums) {
        assert!(
            f64::from(*actual) == *expected || (f64::from(*actual) - expected).abs() < 1e-5 * expected.abs().max(1.0)
        );
    }
    let [dq, dk, dv] = inputs.backward(shape, options);
    assert_close(&dq, &expected.dq, 2e-5, "dq");
    assert_close(&dk, &expected.dk, 3e-5, "dk");
    assert_close(&dv, &expected.dv, 2e-5, "dv");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_f64((shape, options) in cases(120, 40)) {
        check(shape, &options);
    }

    #[test]
    fn the_twins_gradients_are_those_of_its_output((shape, options) in cases(6, 4)) {
        let inputs = Inputs::new(shape);
        let expected = inputs.twin(shape, &options);
        let out = |q: &[f64], k: &[f64], v: &[f64]| twin(q, k, v, &to_f64(&inputs.dout), shape, &options).out;
        let (q, k, v) = (to_f64(&inputs.q), to_f64(&inputs.k), to_f64(&inputs.v));
        let to_f32 = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
        let close = |actual: &[f64], expected: Vec<f64>, what| assert_close(&to_f32(actual), &expected, 1e-6, what);
        close(&expected.dq, difference(&inputs.q, &inputs.dout, |q| out(q, &k, &v)), "dq");
        close(&expected.dk, difference(&inputs.k, &inputs.dout, |k| out(&q, k, &v)), "dk");
        close(&expected.dv, difference(&inputs.v, &inputs.dout, |v| out(&q, &k, v)), "dv");
    }
}

#[test]
fn several_chunks_of_keys() {
    let shape = AttentionShape { rows: 1, length: 613, heads: 2, kv_heads: 1, head_width: 6 };
    let rotary = Rotary::new(1e4, 6).scaled(8.0);
    let masks = [
        Mask::full(),
        Mask::causal(),
        Mask::prefix([300]).with_lengths([600]),
        Mask::causal().with_window(70),
        Mask::prefix([500]).with_window(290),
    ];
    for mask in masks {
        check(shape, &mask.clone().into());
        check(shape, &AttentionOptions { mask, rotary: Some(rotary.clone()), scale: None, soft_cap: Some(2.0) });
    }
}

#[test]
fn wide_heads_and_whole_panels() {
    let shape = AttentionShape { rows: 2, length: 96, heads: 2, kv_heads: 2, head_width: 128 };
    check(shape, &Mask::causal().into());
    let shape = AttentionShape { rows: 18, length: 1, heads: 1, kv_heads: 1, head_width: 16 };
    check(shape, &Mask::full().into());
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let shape = |rows, length| AttentionShape { rows, length, heads: 3, kv_heads: 3, head_width: 20 };
    let options = |lengths: &[usize], mask: &Mask| AttentionOptions {
        mask: mask.clone().with_lengths(lengths),
        rotary: Some(Rotary::new(1e4, 20)),
        ..AttentionOptions::default()
    };
    // Row 1 has 13 tokens that are the only real ones of the longer rows, too.
    let (both, width) = (Inputs::new(shape(2, 300)), 60);
    for mask in [Mask::full(), Mask::causal(), Mask::causal().with_window(5)] {
        let (expected, _) = both.forward(shape(2, 300), &options(&[300, 13], &mask));
        for length in [13, 14, 50, 300] {
            let part = |x: &[f32]| x[300 * width..][..length * width].to_vec();
            let alone = Inputs { q: part(&both.q), k: part(&both.k), v: part(&both.v), dout: part(&both.dout) };
            let (actual, _) = alone.forward(shape(1, length), &options(&[13], &mask));
            assert_eq!(actual[..13 * width], expected[300 * width..][..13 * width]);
        }
    }
}

#[test]
fn padding_has_no_influence() {
    let shape = AttentionShape { rows: 1, length: 20, heads: 2, kv_heads: 2, head_width: 8 };
    let options = AttentionOptions::from(Mask::full().with_lengths([11]));
    let inputs = Inputs::new(shape);
    let (out, _) = inputs.forward(shape, &options);
    let [_, dk, dv] = inputs.backward(shape, &options);
    assert!(dk[11 * 16..].iter().chain(&dv[11 * 16..]).all(|&gradient| gradient == 0.0));
    let mut other = Inputs::new(shape);
    other.k[11 * 16..].fill(f32::NAN);
    other.v[11 * 16..].fill(f32::INFINITY);
    assert_eq!(other.forward(shape, &options).0, out);
}

#[test]
fn what_is_not_a_number_is_not_lost() {
    let shape = AttentionShape { rows: 1, length: 300, heads: 1, kv_heads: 1, head_width: 4 };
    for value in [f32::NAN, f32::INFINITY] {
        let mut inputs = Inputs::new(shape);
        inputs.k[40 * 4] = value;
        let (out, log_sums) = inputs.forward(shape, &Mask::causal().into());
        let finite =
            |token: usize| out[token * 4..][..4].iter().chain(&log_sums[token..token + 1]).all(|x| x.is_finite());
        assert!((0..40).all(finite));
        let lost = (40..300).filter(|&token| finite(token)).count();
        // Half of the products with infinity are minus infinity, whose exponential is 0.
        assert!(if value.is_nan() { lost == 0 } else { (80..180).contains(&lost) }, "{lost}");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = AttentionShape::new(1, 3, 1, 1);
    let mut out = [0.0; 3];
    attention(&[1e3, -1e3, 0.0], &[1e3, -1e3, 0.0], &[1.0, 2.0, 3.0], shape, &Mask::full().into(), &mut out, None);
    assert_eq!(out, [1.0, 2.0, 2.0]);
}

#[test]
fn no_rows_and_no_tokens() {
    for shape in [AttentionShape::new(0, 3, 2, 4), AttentionShape::new(2, 0, 2, 4)] {
        attention(&[], &[], &[], shape, &AttentionOptions::default(), &mut [], Some(&mut []));
        let options = AttentionOptions::default();
        attention_backward(&[], &[], &[], &[], &[], &[], shape, &options, &mut [], &mut [], &mut []);
    }
}
