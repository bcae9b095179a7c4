use burn::tensor::Device;
use lapidary_data::{Batch, Encoded, Target};

use super::{GOLDEN, Golden, logits};

/// Bit for bit, and whether or not it is padded there.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    for golden in GOLDEN.map(Golden::open) {
        let (model, batch) = (golden.model(&Device::flex()), golden.batch());
        let classes = golden.config().labels.len();
        for (row, logits_in_batch) in logits(&model, &batch).chunks(classes).enumerate() {
            let tokens = row * batch.length..row * batch.length + batch.lengths[row];
            let (ids, types) = (batch.ids[tokens.clone()].to_vec(), batch.types[tokens].to_vec());
            let alone = Encoded { ids, types, image: None, target: Target::Class(0) };
            let alone = Batch::collate(&[&alone], golden.config().pad_id);
            assert_eq!(logits(&model, &alone), logits_in_batch, "row {row} of {}", golden.path.display());
        }
    }
}
