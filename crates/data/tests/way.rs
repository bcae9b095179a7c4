//! The whole way of the data: from a file, or from the synthetic world, to batches and back to scores.

use std::num::NonZeroUsize;

use lapidary_data::synth::{self, Split};
use lapidary_data::{Accuracy, Batch, BatchOptions, Columns, Encoded, SortedPlan, Tokenizer, batch, source};

const BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

#[test]
fn from_a_world_to_batches_and_scores() {
    let tokenizer = Tokenizer::from_words(&synth::words()).unwrap();
    let examples = synth::text_examples(1, 200, Split::Validation);
    let set = tokenizer.encode_all(&examples, 64).unwrap();
    assert_eq!(set.truncated, 0);
    let lengths: Vec<usize> = set.rows.iter().map(|row| row.ids.len()).collect();

    let options = BatchOptions { batch_size: BATCH_SIZE, bucket_batches: NonZeroUsize::new(4).unwrap(), seed: 1 };
    let mut rows = 0;
    for indices in batch::plan(&lengths, &options, 0) {
        let chosen: Vec<&Encoded> = indices.iter().map(|&index| &set.rows[index]).collect();
        let batch = Batch::collate(&chosen, tokenizer.pad_id().unwrap());
        assert_eq!(batch.ids.len(), batch.rows * batch.length);
        rows += batch.rows;
    }
    assert_eq!(rows, 200);

    // A model that is always right, evaluated in sorted order.
    let plan = SortedPlan::new(&lengths, BATCH_SIZE);
    let predictions = plan.batches.iter().flatten().filter_map(|&index| set.rows[index].target.class()).collect();
    let labels: Vec<u32> = set.rows.iter().filter_map(|row| row.target.class()).collect();
    let classes = synth::answers().len() as u32;
    assert_eq!(Accuracy::new(&plan.restore(predictions), &labels, classes).unwrap().percent(), 100.0);
}

#[test]
fn a_table_is_the_same_plain_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let table = "sentence\tlabel\n\"so good \t1\nso bad\" \t0\n";
    let columns: Columns = toml::from_str("text = 'sentence'\nlabel = 'label'\nlabels = 2").unwrap();
    let (plain, packed) = (folder.path().join("a.tsv"), folder.path().join("a.tsv.zst"));
    std::fs::write(&plain, table).unwrap();
    std::fs::write(&packed, zstd::encode_all(table.as_bytes(), 3).unwrap()).unwrap();
    let examples = source::read(&plain, &columns).unwrap();
    assert_eq!(examples.len(), 2);
    assert_eq!(examples, source::read(&packed, &columns).unwrap());

    let lines = folder.path().join("a.jsonl");
    std::fs::write(&lines, "{\"sentence\": \"\\\"so good \", \"label\": 1}\n").unwrap();
    assert_eq!(source::read(&lines, &columns).unwrap(), examples[..1]);
}
