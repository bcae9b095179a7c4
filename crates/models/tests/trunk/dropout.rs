use burn::tensor::Device;
use lapidary_kernels::mask::Mask;
use lapidary_models::Pass;

use super::{decoder, logits, tokens, values};

#[test]
fn masks_belong_to_the_seed_and_the_micro_batch() {
    let model = decoder(1, &Device::flex());
    let ids = tokens(2 * 9, 2);
    let trained = |p, seed, micro_batch| {
        let pass = Pass::training(p, seed, micro_batch);
        values(model.logits(&ids, 2, &Mask::causal(), &pass).unwrap())
    };
    assert_eq!(trained(0.1, 5, 6), trained(0.1, 5, 6));
    assert_ne!(trained(0.1, 5, 6), trained(0.1, 4, 6));
    assert_ne!(trained(0.1, 5, 6), trained(0.1, 5, 7));
    assert_ne!(trained(0.1, 5, 6), logits(&model, &ids, 2));
    assert_eq!(trained(0.0, 5, 6), logits(&model, &ids, 2));
}

/// Masks of one seed and step that were the same everywhere would still pass the test above.
#[test]
fn every_place_has_a_mask_of_its_own() {
    let pass = Pass::training(0.5, 1, 2);
    let ones = burn::tensor::Tensor::<2>::ones([8, 16], &Device::flex());
    let masks: Vec<Vec<f32>> = (0..6).map(|place| values(pass.dropout(ones.clone(), place))).collect();
    for (place, mask) in masks.iter().enumerate() {
        assert!(masks[..place].iter().all(|other| other != mask), "place {place}");
    }
}
