//! The operators of decoders against PyTorch.

use burn::tensor::Device;
use lapidary_kernels::activation::Activation;
use lapidary_kernels::attention::{AttentionOptions, AttentionShape};
use lapidary_kernels::mask::{Mask, MaskKind};
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rotary::Rotary;
use lapidary_ops::{attention, gated, linear_cross_entropy, rms_norm};

use super::golden::Case;
use super::{differentiate, tensors, vector};

#[test]
fn rms_norm_agrees() {
    for case in ["rms_norm.plain", "rms_norm.odd", "rms_norm.small"].map(Case) {
        let eps = case.number("eps") as f32;
        case.check(["x", "w"], "y", |[x, w]| rms_norm(x, None, vector(w), eps));
    }
    for case in ["rms_norm.residual", "rms_norm.residual_odd"].map(Case) {
        let eps = case.number("eps") as f32;
        case.check(["x", "residual", "w"], "y", |[x, r, w]| rms_norm(x, Some(r), vector(w), eps));
    }
}

#[test]
fn gated_units_agree() {
    for (activation, names) in [
        (Activation::Gelu, ["geglu.plain", "geglu.odd", "geglu.wide"]),
        (Activation::GeluTanh, ["geglu_tanh.plain", "geglu_tanh.odd", "geglu_tanh.wide"]),
        (Activation::Silu, ["swiglu.plain", "swiglu.odd", "swiglu.wide"]),
    ] {
        for case in names.map(Case) {
            case.check(["x"], "y", |[x]| gated(x, activation));
        }
    }
}

#[test]
fn attention_agrees() {
    use MaskKind::{Causal, Full, Prefix};
    for (name, kind) in [
        ("attention.full_padding_rotary", Full),
        ("attention.causal_padding_rotary", Causal),
        ("attention.prefix_padding_rotary", Prefix),
        ("attention.window", Causal),
        ("attention.window_padding", Causal),
        ("attention.window_padding_rotary", Causal),
    ] {
        grouped(&Case(name), kind);
    }
}

fn grouped(case: &Case, kind: MaskKind) {
    let [rows, length, heads, kv_heads, head_width] = case.sizes("shape").expect("there")[..] else {
        panic!("five sizes")
    };
    let shape = AttentionShape { rows, length, heads, kv_heads, head_width };
    let of_rows = |name| case.sizes(name).map(Into::into);
    let window = case.sizes("window").map(|window| window[0]);
    let mask = Mask { kind, lengths: of_rows("lengths"), prefix: of_rows("prefix"), window };
    let rotary = case.sizes("positions").map(|positions| {
        let offsets: Vec<usize> = positions.chunks(length).map(|row| row[0]).collect();
        let expected = offsets.iter().flat_map(|first| (0..length).map(move |i| first + i));
        assert!(positions.iter().copied().eq(expected), "positions count up in each row");
        Rotary::new(10_000.0, head_width).with_offsets(offsets)
    });
    let options = AttentionOptions { mask, rotary, ..AttentionOptions::default() };
    case.check(["q", "k", "v"], "out", |[q, k, v]| attention(q, k, v, shape, &options));
}

#[test]
fn the_loss_of_a_head_agrees() {
    for case in ["linear_cross_entropy.plain", "linear_cross_entropy.odd", "linear_cross_entropy.normalized"].map(Case)
    {
        let targets: Vec<i64> = case.numbers("targets").into_iter().map(|target| target as i64).collect();
        let normalizer = case.number("normalizer") as f32;
        let inputs = [case.input("x"), case.input("w")];
        let leaves = tensors(&inputs, &Device::flex());
        let loss = differentiate(leaves, &[1.0], |[x, w]| {
            linear_cross_entropy(x, w, &targets, normalizer, Precision::F32).expect("good targets").reshape([1, 1])
        });
        case.assert_close(&loss.output, "loss");
        case.assert_close(&loss.gradients[0], "dx");
        case.assert_close(&loss.gradients[1], "dw");
    }
}
