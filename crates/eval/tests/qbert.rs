//! Q-BERT's table from flat metrics.

use lapidary_eval::report::qbert;
use lapidary_eval::result::RunResult;

use crate::result::run;

/// The metrics of the issue: f32, three widths, one mixed plan, three seeds of one of them.
pub fn sst2() -> RunResult {
    let mut result = run("qbert-sst2");
    for (name, value) in [
        ("sst2.dev.accuracy.f32", 89.6),
        ("sst2.dev.accuracy.w8.direct", 89.4),
        ("sst2.dev.accuracy.w8.qat", 89.5),
        ("sst2.dev.accuracy.w4.direct", 71.6),
        ("sst2.dev.accuracy.w4.qat", 89.0),
        ("sst2.dev.accuracy.w4.qat.seed1", 88.8),
        ("sst2.dev.accuracy.w4.qat.seed2", 89.0),
        ("sst2.dev.accuracy.w4.qat.seed3", 89.2),
        ("sst2.dev.accuracy.w3.qat", 88.3),
        ("sst2.dev.accuracy.mp23.qat", 87.5),
        ("sst2.size_mb.f32", 90.9),
        ("sst2.size_mb.w4", 17.7),
        ("sst2.size_mb_without_embeddings.w4", 5.6),
        ("sst2.seconds.fine_tuning", 600.0),
    ] {
        result.metrics.insert(name, value).unwrap();
    }
    result
}

#[test]
fn rows_are_widths_and_columns_methods_and_sizes() {
    let markdown = qbert::table(&sst2()).to_markdown();
    let expected = "\
| Weight bits | Accuracy (%), rounded directly | Accuracy (%), Q-BERT | Size (MB), whole model | Size (MB), without embeddings |
| ----------- | -----------------------------: | -------------------: | ---------------------: | ----------------------------: |
| 32 (f32)    |                              – |                 89.6 |                   90.9 |                             – |
| 8           |                           89.4 |                 89.5 |                      – |                             – |
| 4           |                           71.6 |           89.0 ± 0.2 |                   17.7 |                           5.6 |
| 3           |                              – |                 88.3 |                      – |                             – |
| 2/3 mixed   |                              – |                 87.5 |                      – |                             – |
";
    assert_eq!(markdown, expected);
    assert_eq!(qbert::seeds(&sst2().metrics), Some(3));
}

#[test]
fn several_scores_are_told_apart() {
    let mut result = run("qbert-mnli");
    for (name, value) in [
        ("mnli.dev_matched.accuracy.f32", 82.2),
        ("mnli.dev_mismatched.accuracy.f32", 82.6),
        ("mnli.dev_matched.accuracy.w4.qat", 81.9),
        ("mnli.dev_mismatched.accuracy.w4.gptq", 80.1),
    ] {
        result.metrics.insert(name, value).unwrap();
    }
    let table = qbert::table(&result);
    let groups: Vec<_> = table.columns.iter().map(|column| (column.group.as_str(), column.name.as_str())).collect();
    let expected = [
        ("", "Weight bits"),
        ("Accuracy, dev matched (%)", "Q-BERT"),
        ("Accuracy, dev mismatched (%)", "GPTQ"),
        ("Accuracy, dev mismatched (%)", "Q-BERT"),
    ];
    assert_eq!(groups, expected);
}

#[test]
fn a_result_without_scores_gives_an_empty_table() {
    let table = qbert::table(&run("qbert-sst2"));
    assert_eq!((table.columns.len(), table.rows.len()), (1, 0));
}
