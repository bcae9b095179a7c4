//! The table of a study of larger batches, from a result's metrics.

use super::table::{Cell, Column, Table};
use crate::result::RunResult;

/// Whether a result is of such a study.
pub fn is_study(run: &RunResult) -> bool {
    run.metrics.get("study.trials_done").is_some()
}

/// A row for each optimizer and size of batch.
pub fn table(run: &RunResult) -> Table {
    let numbers = [
        "Pictures a step",
        "Steps to the target",
        "Seconds",
        "Accuracy, kept (%)",
        "Learning rate",
        "Damping",
        "Settings tried",
        "At the target",
        "Diverged",
        "Noise scale (pictures)",
    ];
    let columns = [Column::text("Optimizer")].into_iter().chain(numbers.map(Column::number));
    let rows = run.metrics.iter().filter_map(|(name, trials)| {
        let place = name.strip_prefix("study.")?.strip_suffix(".trials")?;
        let (optimizer, batch) = place.rsplit_once(".b")?;
        Some((place, optimizer, batch.parse::<f64>().ok()?, trials))
    });
    rows.fold(Table::new(columns), |table, (place, optimizer, batch, trials)| {
        let get = |name: &str| run.metrics.get(&format!("study.{place}.{name}"));
        table.row([
            Cell::from(optimizer.replace('_', "-").to_uppercase()),
            Cell::number(batch, 0),
            Cell::optional(get("steps_to_loss"), 0),
            Cell::optional(get("seconds_to_loss"), 1),
            Cell::optional(get("kept_accuracy"), 1),
            Cell::optional(get("learning_rate"), 3),
            Cell::optional(get("damping"), 4),
            Cell::number(trials, 0),
            Cell::optional(get("trials_at_target"), 0),
            Cell::optional(get("trials_diverged"), 0),
            Cell::optional(get("noise_scale"), 0),
        ])
    })
    .without_empty_columns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::RunSettings;

    #[test]
    fn a_row_for_each_size() {
        let settings = RunSettings { isa: "avx2".into(), device: "cpu".into(), threads: 2, seed: 1 };
        let mut run = RunResult::new("kfac-test", settings);
        for (name, value) in [
            ("study.trials_done", 4.0),
            ("study.k_fac.b64.trials", 8.0),
            ("study.k_fac.b64.steps_to_loss", 120.4),
            ("study.k_fac.b128.trials", 8.0),
        ] {
            run.metrics.insert(name.to_owned(), value).unwrap();
        }
        assert!(is_study(&run));
        let markdown = table(&run).to_markdown();
        assert!(markdown.contains("| K-FAC     |              64 |                 120 |"), "{markdown}");
        assert!(markdown.contains("| K-FAC     |             128 |                   – |"), "{markdown}");
        assert!(!markdown.contains("Damping"), "{markdown}");
    }
}
