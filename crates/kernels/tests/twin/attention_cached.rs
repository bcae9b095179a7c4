use lapidary_kernels::attention::{
    AttentionOptions, AttentionShape, CachedOptions, CachedShape, attention, attention_cached, attention_cached_head,
};
use lapidary_kernels::mask::Mask;
use proptest::prelude::*;

use super::{assert_close, random};

/// A sequence's queries, and caches in which what lies beyond its end is not a number.
struct Sequence {
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    shape: CachedShape,
}

impl Sequence {
    fn new(length: usize, kv_heads: usize, group: usize, head_width: usize) -> Self {
        let capacity = length + 3;
        let cache = |seed| {
            let mut cache = random(kv_heads * capacity * head_width, seed);
            cache.chunks_mut(capacity * head_width).for_each(|head| head[length * head_width..].fill(f32::NAN));
            cache
        };
        let heads = kv_heads * group;
        Self {
            q: random(length * heads * head_width, 1),
            keys: cache(2),
            values: cache(3),
            shape: CachedShape { tokens: length, past: 0, capacity, heads, kv_heads, head_width },
        }
    }

    /// The output of some tokens, given the cache of all before.
    fn run(&self, past: usize, tokens: usize, options: &CachedOptions) -> Vec<f32> {
        let width = self.shape.heads * self.shape.head_width;
        let mut out = vec![f32::NAN; tokens * width];
        let q = &self.q[past * width..][..tokens * width];
        attention_cached(q, &self.keys, &self.values, CachedShape { tokens, past, ..self.shape }, options, &mut out);
        out
    }

    /// What ordinary attention gives.
    fn expected(&self, options: &CachedOptions) -> Vec<f32> {
        let CachedShape { tokens: length, capacity, heads, kv_heads, head_width, .. } = self.shape;
        let tokens = |cache: &[f32]| {
            let mut rows = Vec::new();
            for (token, head) in (0..length).flat_map(|token| (0..kv_heads).map(move |head| (token, head))) {
                rows.extend(&cache[(head * capacity + token) * head_width..][..head_width]);
            }
            rows
        };
        let shape = AttentionShape { rows: 1, length, heads, kv_heads, head_width };
        let mask = Mask { window: options.window, ..Mask::causal() };
        let all = AttentionOptions { mask, rotary: None, scale: options.scale, soft_cap: options.soft_cap };
        let mut out = vec![0.0; self.q.len()];
        attention(&self.q, &tokens(&self.keys), &tokens(&self.values), shape, &all, &mut out, None);
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_attention_in_any_parts(
        length in 1usize..200,
        kv_heads in 1usize..3,
        group in 1usize..4,
        head_width in 1usize..90,
        window in prop::option::of(0usize..220),
        scale in prop::option::of(0.05f32..0.5),
        soft_cap in prop::option::of(0.5f32..30.0),
        step in 1usize..30,
    ) {
        let options = CachedOptions { window, scale, soft_cap };
        let sequence = Sequence::new(length, kv_heads, group, head_width);
        let whole = sequence.run(0, length, &options);
        assert_close(&whole, &sequence.expected(&options), 1e-5, "out");
        for step in [1, step] {
            let parts = (0..length).step_by(step);
            let parts: Vec<f32> =
                parts.flat_map(|past| sequence.run(past, step.min(length - past), &options)).collect();
            prop_assert!(parts == whole, "in steps of {step}");
        }
    }
}

#[test]
fn a_head_and_some_tokens_by_themselves() {
    let sequence = Sequence::new(70, 2, 3, 20);
    let whole = sequence.run(0, 70, &CachedOptions::default());
    let cache = sequence.shape.capacity * 20;
    let mut out = vec![f32::NAN; 5 * 60];
    let (keys, values) = (&sequence.keys[cache..], &sequence.values[cache..]);
    attention_cached_head(&sequence.q, keys, values, sequence.shape, &CachedOptions::default(), 1, 61..66, &mut out);
    for (token, out) in (61..66).zip(out.chunks(60)) {
        assert_eq!(out, &whole[token * 120 + 60..][..60]);
    }
}

#[test]
fn no_tokens() {
    let shape = CachedShape { tokens: 0, past: 2, capacity: 3, heads: 2, kv_heads: 1, head_width: 4 };
    attention_cached(&[], &[0.0; 12], &[0.0; 12], shape, &CachedOptions::default(), &mut []);
}
