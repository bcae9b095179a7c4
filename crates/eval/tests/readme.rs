//! The README's tables, filled in from results.

use lapidary_eval::report::readme::{ReadmeError, fill};

use crate::qbert::sst2;
use crate::result::run;

#[test]
fn tables_are_replaced_and_the_rest_is_kept() {
    let mut bench = run("bench-train");
    bench.machine = "A <b>machine</b>, 2 cores".into();
    bench.commit = "0123456789abcdef".into();
    bench.date = "2026-01-02T03:04:05Z".into();
    bench.isa = "avx2".into();
    bench.peers.insert("decoder_step.f32.ratio_to_pytorch", 1.31).unwrap();
    bench.notes.push("a note".into());
    let readme = "# Title\r\n\n<!-- results:bench-train -->old\nlines<!-- /results -->\nbetween\n<!-- results:qbert-sst2 --><!-- /results -->";
    let filled = fill(readme, &[sst2(), bench.clone()]).unwrap();
    let expected = "\
<!-- results:bench-train -->

| Work         | Precision | Against | time, ours / theirs (below 1 is faster) |
| ------------ | --------- | ------- | --------------------------------------: |
| Decoder step | f32       | PyTorch |                                    1.31 |

Seed 7; 12 min 5 s on A &lt;b&gt;machine&lt;/b&gt;, 2 cores (avx2, 2 threads); 2026-01-02, commit 0123456789, results/bench-train.json.

- a note

<!-- /results -->
between
";
    assert!(filled.starts_with("# Title\r\n\n<!-- results:bench-train -->\n\n"), "{filled}");
    assert!(filled.contains(expected), "{filled}");
    assert!(filled.contains("| 2/3 mixed ") && filled.contains("of 3 seeds") && filled.ends_with("<!-- /results -->"));
    // Filling in twice changes nothing more.
    assert_eq!(fill(&filled, &[sst2(), bench]).unwrap(), filled);
}

/// Of works in parts, none of which is a precision.
#[test]
fn parts_are_called_so() {
    let mut bench = run("bench-parts");
    bench.peers.insert("product.last_layer.ratio_to_pytorch", 0.5).unwrap();
    let filled = fill("<!-- results:bench-parts --><!-- /results -->", &[bench]).unwrap();
    assert!(filled.contains("| Work    | Part       |") && filled.contains("| Product | last layer |"), "{filled}");
}

#[test]
fn a_readme_without_markers_stays_as_it_is() {
    assert_eq!(fill("no markers\r\n", &[]).unwrap(), "no markers\r\n");
    assert_eq!(fill("", &[]).unwrap(), "");
}

#[test]
fn a_wrong_marker_is_an_error_with_its_line() {
    let results = [run("a")];
    let no_result = fill("\n\n<!-- results:b --><!-- /results -->", &results).unwrap_err();
    assert_eq!(no_result, ReadmeError::NoResult { name: "b".into(), line: 3 });
    assert!(no_result.to_string().contains("results/b.json"));
    let unclosed = ReadmeError::Unclosed { name: "a".into(), line: 1 };
    assert_eq!(fill("<!-- results:a -->", &results).unwrap_err(), unclosed);
    assert_eq!(fill("<!-- results:a --><!-- results:a --><!-- /results -->", &results).unwrap_err(), unclosed);
    for marker in ["<!-- results:", "<!-- results:a b -->", "<!-- results: -->", "<!-- results:a\n-->"] {
        assert_eq!(fill(marker, &results).unwrap_err(), ReadmeError::Malformed { line: 1 }, "{marker}");
    }
}

#[test]
fn other_results_list_their_metrics() {
    let mut result = run("baselines");
    result.metrics.insert("sst2.layer_1.omega", 19.3).unwrap();
    let filled = fill("<!-- results:baselines --><!-- /results -->", &[result]).unwrap();
    assert!(filled.contains("| sst2.layer\\_1.omega | 19.30 |"), "{filled}");
}

#[test]
fn curvature_has_a_row_for_each_number_that_was_asked_for() {
    let mut result = run("curvature-sst2");
    for (name, value) in [
        ("loss", 0.072),
        ("largest.1", 26.9128),
        ("largest.1.residual", 0.1),
        ("smallest.1", -5.39),
        ("omega.block0", 6.4092),
        ("std.block0", 0.0),
    ] {
        result.metrics.insert(format!("curvature.{name}"), value).unwrap();
    }
    let filled = fill("<!-- results:curvature-sst2 --><!-- /results -->", &[result]).unwrap();
    for row in ["| Loss ", "| Largest eigenvalue 1 ", "| Smallest eigenvalue 1 ", "| Ω of block 0 "] {
        assert!(filled.contains(row), "{row} in {filled}");
    }
    assert!(!filled.contains("Trace") && filled.contains("| 26.9128 |") && filled.contains("| −5.3900 |"), "{filled}");
}

#[test]
fn text_has_its_models_and_its_tasks() {
    let mut result = run("books");
    for (name, value) in [
        ("text.held_out.bytes", 4e6),
        ("text.held_out.bits_per_byte.twin", 1.519),
        ("text.parameters.twin", 12.6e6),
        ("speculative.parallel.prompts", 200.0),
        ("speculative.parallel.equal_texts", 200.0),
        ("questions.test.copied.rouge_l", 27.75),
        ("questions.test.twin.greedy.rouge_l", 22.42),
        ("questions.test.parallel.ranked_by_likelihood.rouge_l", 24.94),
        ("questions.test.parallel.ranked_by_likelihood.rouge_l_of_twin", 1.112),
    ] {
        result.metrics.insert(name, value).unwrap();
    }
    let filled = fill("<!-- results:books --><!-- /results -->", &[result]).unwrap();
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>().join("|");
    let rows: Vec<String> = filled.lines().map(cells).collect();
    for row in [
        "|twin|12.6|1.519|",
        "|parallel|200|200|",
        "|questions|–|the source itself|27.75|–|",
        "|questions|twin|token after token|22.42|–|",
        "|questions|parallel|best canvas, by likelihood|24.94|111|",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {filled}");
    }
}

#[test]
fn another_device_than_the_cpu_is_named() {
    let mut result = run("bench-conv");
    result.device = "vulkan, A GPU".into();
    result.metrics.insert("resnet20_step.f32.seconds", 0.1).unwrap();
    let filled = fill("<!-- results:bench-conv --><!-- /results -->", &[result]).unwrap();
    assert!(filled.contains("(vulkan, A GPU; "), "{filled}");
}

#[test]
fn passages_have_a_row_for_each_model_and_precision() {
    let mut result = run("bench-write");
    for (name, value) in [
        ("ar_30m.f32.seconds", 0.25),
        ("canvas_30m.f32.seconds", 0.125),
        ("passage_30m.f32.seconds_a_pass", 0.01),
        ("passage_30m.f32.tokens_a_pass_to_break_even", 4.0),
        ("passage_30m.f32.times_as_fast_in_8_passes", 2.0),
    ] {
        result.metrics.insert(name, value).unwrap();
    }
    let filled = fill("<!-- results:bench-write --><!-- /results -->", &[result]).unwrap();
    let cells = |line: &str| line.split('|').map(str::trim).filter(|cell| !cell.is_empty()).map(String::from).collect();
    let row: Vec<String> = filled.lines().find(|line| line.contains("30M")).map(cells).unwrap_or_default();
    assert_eq!(row, ["30M", "f32", "0.25", "0.12", "2.00", "4.0"], "{filled}");
}
