//! Many sequences at once are each what they are alone.

use lapidary_decode::{DecodeError, KvCache, PackedDecoder, Positions, generate, generate_all, most_likely};
use lapidary_kernels::precision::Precision;

use super::{decoder, decoders, prompted};

const PROMPTS: [&[u32]; 3] = [&[1, 2, 3], &[7], &[50, 4, 9, 9, 30, 2, 6]];

#[test]
fn reading_gives_the_same_bits() {
    for decoder in &decoders() {
        for precision in [Precision::F32, Precision::Bf16] {
            let packed = PackedDecoder::new(decoder, precision).unwrap();
            let mut caches: Vec<KvCache> = PROMPTS.iter().map(|_| packed.cache(40)).collect();
            let all = packed.read_all(&PROMPTS, &mut caches, Positions::All).unwrap();
            let last = packed.read_all(&[&[11, 12], &[], &[13]], &mut caches, Positions::Last).unwrap();
            let (mut of_all, mut of_last) = (all.as_slice(), last.as_slice());
            for (prompt, next) in PROMPTS.iter().zip([&[11, 12][..], &[], &[13]]) {
                let mut cache = packed.cache(40);
                let alone = packed.read(prompt, &mut cache, Positions::All).unwrap();
                let (found, rest) = of_all.split_at(alone.len());
                assert!(found == alone, "{precision}");
                of_all = rest;
                let alone = packed.read(next, &mut cache, Positions::Last).unwrap();
                let (found, rest) = of_last.split_at(alone.len());
                assert!(found == alone, "{precision}");
                of_last = rest;
            }
            assert!(of_all.is_empty() && of_last.is_empty());
            assert_eq!(caches.iter().map(KvCache::len).collect::<Vec<_>>(), [5, 1, 8]);
        }
    }
}

#[test]
fn writing_gives_the_same_texts() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    // Texts that end at different times.
    let until = |text: Option<u32>| text.filter(|token| token % 11 != 3);
    let alone = PROMPTS.map(|prompt| {
        generate(&packed, prompt, 20, &mut packed.cache(40), |logits| until(most_likely(logits))).unwrap()
    });
    let mut caches = vec![packed.cache(40); 3];
    let all = generate_all(&packed, &PROMPTS, 20, &mut caches, |_, logits| until(most_likely(logits))).unwrap();
    assert_eq!(all, alone);
    let none = generate_all(&packed, &PROMPTS, 0, &mut caches, |_, logits| most_likely(logits)).unwrap();
    assert!(none.len() == 3 && none.iter().all(Vec::is_empty));
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let packed = PackedDecoder::new(&decoder(), Precision::F32).unwrap();
    let mut caches = vec![prompted(&packed, &[1, 2]), packed.cache(5)];
    let read = |rows: &[&[u32]], caches: &mut [KvCache]| packed.read_all(rows, caches, Positions::Last).unwrap_err();
    assert_eq!(read(&[&[1]], &mut caches), DecodeError::Caches { sequences: 1, caches: 2 });
    assert_eq!(read(&[&[1], &[1; 6]], &mut caches), DecodeError::TooLong { tokens: 6, capacity: 5 });
    assert_eq!(read(&[&[1], &[99]], &mut caches), DecodeError::Token { id: 99, vocabulary: 53 });
    assert_eq!((caches[0].len(), caches[1].len()), (2, 0), "as they were");
    let error = generate_all(&packed, &[&[1], &[]], 3, &mut caches, |_, logits| most_likely(logits)).unwrap_err();
    assert_eq!(error, DecodeError::EmptyPrompt);
}
