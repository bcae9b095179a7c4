use lapidary_kernels::attention::{
    AttentionOptions, AttentionShape, CachedOptions, KeyValueCache, NewTokens, attention_cached, attention_cached_head,
};
use lapidary_kernels::mask::Mask;
use proptest::prelude::*;

use super::attention::twin;
use super::{assert_close, random, to_f64};

/// A sequence's queries, keys and values, and a cache in which what lies beyond its end is not a number.
struct Sequence {
    shape: AttentionShape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    cache: KeyValueCache,
}

impl Sequence {
    fn new(length: usize, kv_heads: usize, group: usize, head_width: usize) -> Self {
        let shape = AttentionShape { rows: 1, length, heads: kv_heads * group, kv_heads, head_width };
        let (k, v) = (random(shape.key_len(), 2), random(shape.key_len(), 3));
        let mut cache = KeyValueCache::new(length + 3, kv_heads, head_width);
        let nothing = vec![f32::NAN; kv_heads * head_width];
        for position in 0..length + 3 {
            let of = |rows: &'_ [f32]| rows.chunks(kv_heads * head_width).nth(position).map(<[f32]>::to_vec);
            let [key, value] = [&k, &v].map(|rows| of(rows).unwrap_or_else(|| nothing.clone()));
            cache.put(position, &key, &value);
        }
        Self { shape, q: random(shape.query_len(), 1), k, v, cache }
    }

    fn new_tokens(&self, past: usize, tokens: usize) -> NewTokens<'_> {
        let width = self.shape.heads * self.shape.head_width;
        NewTokens { queries: &self.q[past * width..][..tokens * width], heads: self.shape.heads, past }
    }

    /// The output of some tokens, given the cache of all before.
    fn run(&self, past: usize, tokens: usize, options: &CachedOptions) -> Vec<f32> {
        let new = self.new_tokens(past, tokens);
        let mut out = vec![f32::NAN; new.queries.len()];
        attention_cached(new, &self.cache, options, &mut out);
        out
    }

    /// What attention gives in `f64`.
    fn expected(&self, past: usize, options: &CachedOptions) -> Vec<f64> {
        let kind = options.canvas.map_or(Mask::causal(), |canvas| Mask::canvas([past + canvas]));
        let mask = Mask { window: options.window, ..kind };
        let all = AttentionOptions { mask, rotary: None, scale: options.scale, soft_cap: options.soft_cap };
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| to_f64(x));
        twin(&q, &k, &v, &vec![0.0; q.len()], self.shape, &all).out
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
        let options = CachedOptions { window, scale, soft_cap, canvas: None };
        let sequence = Sequence::new(length, kv_heads, group, head_width);
        let whole = sequence.run(0, length, &options);
        assert_close(&whole, &sequence.expected(0, &options), 1e-5, "out");
        for step in [1, step] {
            let parts = (0..length).step_by(step);
            let parts: Vec<f32> =
                parts.flat_map(|past| sequence.run(past, step.min(length - past), &options)).collect();
            prop_assert!(parts == whole, "in steps of {step}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_canvas_sees_itself_and_what_is_before(
        past in 0usize..150,
        tokens in 1usize..60,
        first in 0usize..70,
        kv_heads in 1usize..3,
        group in 1usize..4,
        head_width in 1usize..40,
        window in prop::option::of(0usize..220),
    ) {
        let options = CachedOptions { window, canvas: Some(first), ..CachedOptions::default() };
        let sequence = Sequence::new(past + tokens, kv_heads, group, head_width);
        let width = kv_heads * group * head_width;
        assert_close(&sequence.run(past, tokens, &options), &sequence.expected(past, &options)[past * width..], 1e-5, "out");
    }
}

#[test]
fn a_head_by_itself() {
    let mut sequence = Sequence::new(70, 2, 3, 20);
    let whole = sequence.run(0, 70, &CachedOptions::default());
    let mut out = vec![f32::NAN; 5 * 60];
    let head = sequence.cache.heads_mut()[1].clone();
    head.prefetch(66);
    attention_cached_head(sequence.new_tokens(61, 5), &head, &CachedOptions::default(), 1, 2, &mut out);
    for (token, out) in (61..66).zip(out.chunks(60)) {
        assert_eq!(out, &whole[token * 120 + 60..][..60]);
    }
}

/// What is not a number reaches the tokens that see it and no others.
#[test]
fn nan_stays_where_it_is_seen() {
    let mut sequence = Sequence::new(90, 1, 2, 17);
    let before = sequence.run(0, 90, &CachedOptions::default());
    let row = |rows: &[f32], position: usize| rows[position * 17..][..17].to_vec();
    sequence.cache.put(40, &row(&sequence.k, 40), &[f32::NAN; 17]);
    let after = sequence.run(0, 90, &CachedOptions::default());
    for (token, (before, after)) in before.chunks(34).zip(after.chunks(34)).enumerate() {
        assert!(if token < 40 { before == after } else { after.iter().all(|out| out.is_nan()) }, "token {token}");
    }
}

#[test]
fn no_tokens() {
    let new = NewTokens { queries: &[], heads: 2, past: 2 };
    attention_cached(new, &KeyValueCache::new(3, 1, 4), &CachedOptions::default(), &mut []);
}
