use burn::tensor::Device;
use lapidary_data::{Batch, Encoded, Target};
use lapidary_models::Task;

use super::{GOLDEN, Golden, logits};

/// Bit for bit, and whether or not it is padded there.
#[test]
fn a_row_does_not_depend_on_its_batch() {
    for golden in GOLDEN.map(Golden::open) {
        let (model, batch) = (golden.model(&Device::flex()), golden.batch());
        let all = logits(&model, &batch);
        for (row, in_batch) in all.chunks(all.len() / batch.rows).enumerate() {
            // But for its padding.
            let length = batch.lengths[row];
            let in_batch: Vec<f32> = match golden.config().task {
                Task::Classes(_) => in_batch.to_vec(),
                Task::Tags(tags) => in_batch[..length * tags.len()].to_vec(),
                Task::Spans => in_batch.chunks(batch.length).flat_map(|end| &end[..length]).copied().collect(),
            };
            let tokens = row * batch.length..row * batch.length + length;
            let (ids, types) = (batch.ids[tokens.clone()].to_vec(), batch.types[tokens].to_vec());
            let alone = Encoded { ids, types, image: None, target: Target::Class(0) };
            let alone = Batch::collate(&[&alone], golden.config().pad_id);
            assert_eq!(logits(&model, &alone), in_batch, "row {row} of {}", golden.path.display());
        }
    }
}
