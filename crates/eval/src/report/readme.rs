//! The README's tables, made from result files between pairs of markers.
//!
//! `<!-- results:NAME -->` … `<!-- /results -->` holds the table of `results/NAME.json`. What stands between the
//! markers is replaced; everything else stays as it is, to the byte.

use super::table::{Cell, Column, Table, escape_markdown};
use super::{curvature, number, qbert, study, text};
use crate::result::RunResult;

const OPENING: &str = "<!-- results:";
const OPENING_END: &str = " -->";
const CLOSING: &str = "<!-- /results -->";

/// Fills in every table of the README.
///
/// # Errors
/// A marker whose result is not among `results`, or one that is not closed, with the line it stands on.
pub fn fill(readme: &str, results: &[RunResult]) -> Result<String, ReadmeError> {
    let mut filled = String::with_capacity(readme.len());
    let mut rest = readme;
    while let Some((before, after)) = rest.split_once(OPENING) {
        let line = readme[..readme.len() - after.len()].lines().count();
        let (name, body) = after.split_once(OPENING_END).ok_or(ReadmeError::Malformed { line })?;
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '<' || c == '>') {
            return Err(ReadmeError::Malformed { line });
        }
        let unclosed = || ReadmeError::Unclosed { name: name.into(), line };
        let (old, after) = body.split_once(CLOSING).ok_or_else(unclosed)?;
        if old.contains(OPENING) {
            return Err(unclosed());
        }
        let run = results.iter().find(|run| run.name == name);
        let run = run.ok_or_else(|| ReadmeError::NoResult { name: name.into(), line })?;
        filled.push_str(before);
        filled.push_str(&format!("{OPENING}{name}{OPENING_END}\n\n{}\n{CLOSING}", block(run)));
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// One result's tables and, below it, where it came from.
fn block(run: &RunResult) -> String {
    let seeds = match qbert::seeds(&run.metrics) {
        Some(1) | None => format!("Seed {}", run.seed),
        Some(count) => format!("Mean ± standard deviation of {count} seeds"),
    };
    let commit = run.commit.get(..10).unwrap_or(&run.commit);
    let device = if run.device == "cpu" { String::new() } else { format!("{}; ", run.device) };
    let origin = format!(
        "{seeds}; {} on {} ({device}{}, {} threads); {}, commit {commit}, results/{}.json.",
        number::duration(run.seconds),
        run.machine,
        run.isa,
        run.threads,
        run.date.get(..10).unwrap_or(&run.date),
        run.name,
    );
    let tables: Vec<String> = tables(run).iter().map(Table::to_markdown).collect();
    let mut text = tables.join("\n");
    text.push_str(&format!("\n{}\n", escape_markdown(&origin)));
    for note in &run.notes {
        text.push_str(&format!("\n- {}", escape_markdown(note)));
    }
    if !run.notes.is_empty() {
        text.push('\n');
    }
    text
}

/// The tables that fit a result: Q-BERT's for a quantization, the peers for a bench, passages for that of writing, models
/// and tasks for text, all metrics for anything else.
pub fn tables(run: &RunResult) -> Vec<Table> {
    vec![if run.name.starts_with("qbert-") {
        qbert::table(run)
    } else if run.name.starts_with("curvature-") {
        curvature::table(run)
    } else if run.name == "bench-write" {
        passages(run)
    } else if text::is_text(run) {
        return text::tables(run);
    } else if study::is_study(run) {
        study::table(run)
    } else if !run.peers.is_empty() {
        peers(run)
    } else {
        metrics(run)
    }]
}

/// What was timed against whom. Peer names are `work.variant.ratio_to_PEER` (time over time) or `….rate_to_PEER`.
fn peers(run: &RunResult) -> Table {
    // The last part of a work's name is the precision of its products or, where all is in one, the part timed.
    let works = run.peers.iter().filter_map(|(name, _)| name.rsplit_once('.')?.0.rsplit_once('.'));
    let precisions = works.into_iter().all(|(_, variant)| ["f32", "bf16", "f64"].contains(&variant));
    let columns = ["Work", if precisions { "Precision" } else { "Part" }, "Against"].map(Column::text);
    let mut table = Table::new(columns.into_iter().chain([
        Column::number("time, ours / theirs (below 1 is faster)"),
        Column::number("rate, ours / theirs (above 1 is faster)"),
    ]));
    for (name, value) in run.peers.iter().filter(|(name, _)| qbert::seed_of(name).is_none()) {
        let (work, comparison) = name.rsplit_once('.').unwrap_or((name, ""));
        let (work, variant) = work.rsplit_once('.').unwrap_or((work, ""));
        let (time, rate, peer) = match (comparison.strip_prefix("ratio_to_"), comparison.strip_prefix("rate_to_")) {
            (Some(peer), _) => (Cell::number(value, 2), Cell::Missing, peer),
            (_, Some(peer)) => (Cell::Missing, Cell::number(value, 2), peer),
            // Named otherwise: shown whole rather than left out.
            (None, None) => (Cell::number(value, 2), Cell::Missing, comparison),
        };
        let words =
            [qbert::capitalised(&work.replace('.', " ")), variant.replace('_', " "), peer_name(peer).to_owned()];
        table = table.row(words.map(Cell::from).into_iter().chain([time, rate]));
    }
    table.without_empty_columns()
}

/// A row for each model and precision that wrote a passage in both ways. Metrics are `passage_MODEL.PRECISION.WHAT`, and
/// the times of the ways `ar_…` and `canvas_…`.
fn passages(run: &RunResult) -> Table {
    const FASTER: &str = "times_as_fast_in_8_passes";
    let columns = [Column::text("Parameters"), Column::text("Precision")].into_iter().chain(
        ["One by one (s)", "Canvas, 8 passes (s)", "Times as fast", "Tokens a pass to break even"].map(Column::number),
    );
    run.metrics.iter().fold(Table::new(columns), |table, (name, faster)| {
        let found = name.strip_prefix("passage_").and_then(|name| name.strip_suffix(FASTER));
        let Some(work) = found.map(|work| work.trim_end_matches('.')) else { return table };
        let (size, precision) = work.split_once('.').unwrap_or((work, ""));
        let number = |name: String, decimals| Cell::optional(run.metrics.get(&name), decimals);
        let words = [size.to_uppercase(), precision.to_owned()].map(Cell::from);
        table.row(words.into_iter().chain([
            number(format!("ar_{work}.seconds"), 2),
            number(format!("canvas_{work}.seconds"), 2),
            Cell::number(faster, 2),
            number(format!("passage_{work}.tokens_a_pass_to_break_even"), 1),
        ]))
    })
}

/// How a peer writes its own name.
fn peer_name(peer: &str) -> &str {
    match peer {
        "pytorch" => "PyTorch",
        "onednn" => "oneDNN",
        "numpy" => "NumPy",
        "llama_cpp" => "llama.cpp",
        other => other,
    }
}

/// All metrics by name; single seeds give the spread of their mean.
fn metrics(run: &RunResult) -> Table {
    let means = run.metrics.iter().filter(|(name, _)| qbert::seed_of(name).is_none());
    means.fold(Table::new([Column::text("Metric"), Column::number("Value")]), |table, (name, value)| {
        let text = match qbert::spread(&run.metrics, name) {
            Some(spread) => format!("{} ± {}", number::significant(value), number::significant(spread)),
            None => number::significant(value),
        };
        table.row([name.to_owned(), text])
    })
}

/// Why the README could not be filled in.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ReadmeError {
    #[error("README line {line}: there is no result {name:?}: run it and put its JSON at results/{name}.json")]
    NoResult { name: String, line: usize },
    #[error("README line {line}: the results of {name:?} are not closed: write {CLOSING} after them")]
    Unclosed { name: String, line: usize },
    #[error("README line {line}: a results marker must be written {OPENING}NAME{OPENING_END}")]
    Malformed { line: usize },
}
