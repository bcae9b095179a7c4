//! The table of what `lapidary curvature` found, from a result's metrics.

use super::table::{Cell, Column, Table};
use crate::result::RunResult;

/// A row for each number: the loss and its gradient, both ends of the spectrum with their residuals, the trace with its
/// standard error, and the sensitivity of each block with the deviation over its samples,
/// if there were several.
pub fn table(run: &RunResult) -> Table {
    let columns =
        [Column::text("Quantity"), Column::number("Value"), Column::number("± (residual, error or deviation)")];
    let mut table = Table::new(columns);
    let get = |name: &str| run.metrics.get(&format!("curvature.{name}"));
    let mut row = |quantity: String, value: Option<f64>, doubt: Option<f64>| {
        if value.is_some() {
            table = std::mem::take(&mut table).row([
                Cell::from(quantity),
                Cell::optional(value, 4),
                Cell::optional(doubt, 4),
            ]);
        }
    };
    row("Loss".into(), get("loss"), None);
    row("Length of the gradient".into(), get("gradient_norm"), None);
    for (end, name) in [("largest", "Largest eigenvalue"), ("smallest", "Smallest eigenvalue")] {
        for number in (1..).take_while(|number| get(&format!("{end}.{number}")).is_some()) {
            row(format!("{name} {number}"), get(&format!("{end}.{number}")), get(&format!("{end}.{number}.residual")));
        }
    }
    row("Trace".into(), get("trace"), get("trace.standard_error"));
    let blocks = run.metrics.iter().filter_map(|(name, value)| {
        let block = name.strip_prefix("curvature.omega.block")?;
        Some((format!("Ω of block {block}"), value, get(&format!("std.block{block}")).filter(|it| *it > 0.0)))
    });
    blocks.for_each(|(name, value, deviation)| row(name, Some(value), deviation));
    table.without_empty_columns()
}
