use burn::tensor::Tensor;
use lapidary_kernels::attention::AttentionShape;
use lapidary_kernels::mask::{Mask, MaskKind};
use lapidary_ops::attention;
use proptest::prelude::*;

use super::golden::Case;
use super::{Input, TOLERANCE, assert_same, constant};

/// 1 where a query sees a key, `[B, 1, L, L]`.
fn visible(shape: AttentionShape, mask: &Mask, like: &Tensor<2>) -> Tensor<4> {
    let AttentionShape { rows, length, .. } = shape;
    let pairs = (0..rows).flat_map(|row| (0..length * length).map(move |at| (row, at / length, at % length)));
    let visible: Vec<f32> = pairs.map(|(row, query, key)| f32::from(mask.visible(row, query, key))).collect();
    constant(&visible, [rows, 1, length, length], like)
}

fn twin([q, k, v]: [Tensor<2>; 3], shape: AttentionShape, mask: &Mask) -> Tensor<2> {
    let AttentionShape { rows, length, heads, head_width, .. } = shape;
    let visible = visible(shape, mask, &q);
    let split = |x: Tensor<2>| x.reshape([rows, length, heads, head_width]).swap_dims(1, 2); // [B, H, L, K]
    let (q, k, v) = (split(q), split(k), split(v));
    let scores = q.matmul(k.swap_dims(2, 3)).mul_scalar(1.0 / (head_width as f64).sqrt()); // [B, H, L, L]
    let weights = scores.exp() * visible.clone();
    // A query that sees no key has weights of 0 and divides them by 1.
    let sees_none = visible.max_dim(3).neg().add_scalar(1.0); // [B, 1, L, 1]
    let out = weights.clone().matmul(v) / (weights.sum_dim(3) + sees_none); // [B, H, L, K]
    out.swap_dims(1, 2).reshape([rows * length, heads * head_width])
}

fn check(shape: AttentionShape, mask: &Mask) {
    let input = |name| Input::random(name, shape.rows * shape.length, shape.heads * shape.head_width);
    assert_same(
        [input("q"), input("k"), input("v")],
        TOLERANCE,
        |[q, k, v]| attention(q, k, v, shape, &mask.clone().into()),
        |inputs| twin(inputs, shape, mask),
    );
}

#[test]
fn agrees_with_pytorch() {
    for (name, kind) in [
        ("attention.full", MaskKind::Full),
        ("attention.padding", MaskKind::Full),
        ("attention.causal", MaskKind::Causal),
        ("attention.causal_padding", MaskKind::Causal),
        ("attention.prefix", MaskKind::Prefix),
        ("attention.prefix_padding", MaskKind::Prefix),
        ("attention.empty", MaskKind::Full),
    ] {
        let case = Case(name);
        let [rows, length, heads, head_width] = case.sizes("shape").expect("there")[..] else { panic!("{name}") };
        let shape = AttentionShape::new(rows, length, heads, head_width);
        let of_rows = |name| case.sizes(name).map(Into::into);
        let mask = Mask { kind, lengths: of_rows("lengths"), prefix: of_rows("prefix"), window: None };
        case.check(["q", "k", "v"], "out", |[q, k, v]| attention(q, k, v, shape, &mask.clone().into()));
    }
}

/// Every kind of mask, with and without padding, down to rows of nothing but padding.
fn cases() -> impl Strategy<Value = (AttentionShape, Mask)> {
    (1..4usize, 1..20usize, 1..4usize, 1..14usize).prop_flat_map(|(rows, length, heads, head_width)| {
        let kind =
            prop_oneof![Just(MaskKind::Full), Just(MaskKind::Causal), Just(MaskKind::Prefix), Just(MaskKind::Canvas)];
        let of_rows = || prop::option::of(prop::collection::vec(0..=length, rows));
        let mask = (kind, of_rows(), of_rows()).prop_map(|(kind, lengths, prefix)| Mask {
            kind,
            lengths: lengths.map(Into::into),
            prefix: prefix.map(Into::into),
            window: None,
        });
        (Just(AttentionShape::new(rows, length, heads, head_width)), mask)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn agrees_with_its_twin((shape, mask) in cases()) {
        check(shape, &mask);
    }
}

#[test]
fn agrees_with_its_twin_over_several_blocks_of_queries() {
    let shape = AttentionShape::new(2, 53, 1, 5);
    for mask in [Mask::full(), Mask::causal().with_lengths([53, 50]), Mask::prefix([50, 7]).with_lengths([51, 9])] {
        check(shape, &mask);
    }
}
