//! The causal mask, on sequences longer than attention's block of queries. All equalities are bit for bit: a hidden
//! token's probability is exactly 0, and sums are taken in an order that neither length nor batch has a part in.

use burn::tensor::Device;

use super::{VOCABULARY, decoder, logits, tokens};

const LENGTH: usize = 61;

#[test]
fn later_tokens_do_not_change_earlier_outputs() {
    let model = decoder(1, &Device::flex());
    let ids = tokens(LENGTH, 2);
    let before = logits(&model, &ids, 1);
    for changed in [1, 17, 48, LENGTH - 1] {
        let mut ids = ids.clone();
        ids[changed..].iter_mut().for_each(|id| *id = (*id + 1) % VOCABULARY as u32);
        let after = logits(&model, &ids, 1);
        assert_eq!(after[..changed * VOCABULARY], before[..changed * VOCABULARY]);
        for token in changed..LENGTH {
            let here = token * VOCABULARY..(token + 1) * VOCABULARY;
            assert_ne!(after[here.clone()], before[here], "token {token}");
        }
    }
}

#[test]
fn a_beginning_gives_what_it_gives_in_the_whole() {
    let model = decoder(1, &Device::flex());
    let ids = tokens(LENGTH, 3);
    let whole = logits(&model, &ids, 1);
    for length in [1, 2, 16, 17, 47, 48, 49] {
        assert_eq!(logits(&model, &ids[..length], 1), whole[..length * VOCABULARY], "{length} tokens");
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let model = decoder(1, &Device::flex());
    let (rows, length) = (7, 19);
    let ids = tokens(rows * length, 4);
    let together = logits(&model, &ids, rows);
    for (ids, together) in ids.chunks(length).zip(together.chunks(length * VOCABULARY)) {
        assert_eq!(logits(&model, ids, 1), together);
    }
}
