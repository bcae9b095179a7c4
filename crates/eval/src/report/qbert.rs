//! Q-BERT's table (1909.05840, Table 1) from a result's metrics: scores and sizes at every bit width.

use std::collections::BTreeSet;

use super::table::{Cell, Column, Table};
use crate::result::{Metrics, RunResult};

/// Bit widths in the order of the table, and how a reader calls them.
const WIDTHS: [(&str, &str); 8] = [
    ("f32", "32 (f32)"),
    ("bf16", "16 (bf16)"),
    ("w8", "8"),
    ("w4", "4"),
    ("w3", "3"),
    ("mp24", "2/4 mixed"),
    ("mp23", "2/3 mixed"),
    ("w2", "2"),
];

/// How weights came to their bits, rounding first.
const METHODS: [(&str, &str); 4] =
    [("direct", "rounded directly"), ("gptq", "GPTQ"), ("qat", "Q-BERT"), ("distill", "distilled")];

/// Rows are bit widths; columns are each score by method and the size in MB with and without embeddings.
///
/// Scores are the metrics `TASK.SPLIT.METRIC.f32` and `TASK.SPLIT.METRIC.WIDTH.METHOD`, with the sample standard
/// deviation over `….seedN` where there are at least two; sizes are `TASK.size_mb.WIDTH` and
/// `TASK.size_mb_without_embeddings.WIDTH`. A number that is not there is a dash, a column without numbers is left out.
pub fn table(run: &RunResult) -> Table {
    let scores = scores(&run.metrics);
    let mut columns = vec![Column::text("Weight bits")];
    for score in &scores {
        columns
            .extend(METHODS.map(|(_, method)| Column::number(method).group(format!("{} (%)", score.title(&scores)))));
    }
    columns.push(Column::number("whole model").group("Size (MB)"));
    columns.push(Column::number("without embeddings").group("Size (MB)"));

    let mut table = Table::new(columns);
    for (width, width_name) in WIDTHS {
        let mut row = vec![Cell::from(width_name)];
        for score in &scores {
            row.extend(METHODS.map(|(method, _)| score.cell(&run.metrics, width, method)));
        }
        row.push(size(&run.metrics, "size_mb", width));
        row.push(size(&run.metrics, "size_mb_without_embeddings", width));
        if row[1..].iter().any(|cell| *cell != Cell::Missing) {
            table = table.row(row);
        }
    }
    table.without_empty_columns()
}

/// How many seeds the scores are the mean of; `None` if single seeds are not given.
pub fn seeds(metrics: &Metrics) -> Option<usize> {
    let seeds: BTreeSet<&str> = metrics.iter().filter_map(|(name, _)| seed_of(name)).map(|(_, seed)| seed).collect();
    (!seeds.is_empty()).then_some(seeds.len())
}

/// Splits `name.seedN` into the name and N.
pub(super) fn seed_of(name: &str) -> Option<(&str, &str)> {
    let (rest, seed) = name.rsplit_once(".seed")?;
    (!seed.is_empty() && seed.bytes().all(|b| b.is_ascii_digit())).then_some((rest, seed))
}

/// `task.split.metric`, such as `sst2.dev.accuracy`.
struct Score<'a> {
    prefix: &'a str,
    split: &'a str,
    metric: &'a str,
}

/// The scores that are given in f32, in the order of the metrics.
fn scores(metrics: &Metrics) -> Vec<Score<'_>> {
    fn score(name: &str) -> Option<Score<'_>> {
        let prefix = name.strip_suffix(".f32")?;
        match prefix.split('.').collect::<Vec<_>>()[..] {
            [_, split, metric] => Some(Score { prefix, split, metric }),
            _ => None,
        }
    }
    metrics.iter().filter_map(|(name, _)| score(name)).collect()
}

impl Score<'_> {
    /// `Accuracy`, or where several splits are scored `Accuracy, dev matched`.
    fn title(&self, all: &[Self]) -> String {
        let metric = match self.metric {
            "f1" => "F1".into(),
            metric => capitalised(metric),
        };
        let is_only_split = all.iter().all(|other| other.split == self.split);
        if is_only_split { metric } else { format!("{metric}, {}", self.split.replace('_', " ")) }
    }

    fn cell(&self, metrics: &Metrics, width: &str, method: &str) -> Cell {
        // Full precision has no method: its score stands in the method's column, as in the paper's baseline row.
        let name = match (width, method) {
            ("f32" | "bf16", "qat") => format!("{}.{width}", self.prefix),
            ("f32" | "bf16", _) => return Cell::Missing,
            _ => format!("{}.{width}.{method}", self.prefix),
        };
        match metrics.get(&name) {
            Some(value) => Cell::Number { value, decimals: 1, spread: spread(metrics, &name) },
            None => Cell::Missing,
        }
    }
}

/// Sample standard deviation of a metric over its seeds, if there are at least two.
pub fn spread(metrics: &Metrics, name: &str) -> Option<f64> {
    let is_its_seed = |seeded: &str| seed_of(seeded).is_some_and(|(rest, _)| rest == name);
    let values: Vec<f64> = metrics.iter().filter(|(seeded, _)| is_its_seed(seeded)).map(|(_, value)| value).collect();
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The size of any task with this bit width: a result file holds one model, so there is one.
fn size(metrics: &Metrics, kind: &str, width: &str) -> Cell {
    let ending = format!(".{kind}.{width}");
    let found =
        metrics.iter().find(|(name, _)| name.strip_suffix(ending.as_str()).is_some_and(|task| !task.contains('.')));
    Cell::optional(found.map(|(_, value)| value), 1)
}

pub(super) fn capitalised(word: &str) -> String {
    let spaced = word.replace('_', " ");
    let mut characters = spaced.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
