//! `result.json` and `report.html` of the trainings.

use std::path::PathBuf;

use lapidary_eval::report::{Axis, Cell, Chart, Column, KeyNumber, LineChart, Report, Section, Series, Table};
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;
use lapidary_train::MetricsRow;
use lapidary_train::optimizer::Block;

use super::{PictureRun, Trained};
use crate::device;
use crate::recipe::metric_key;

/// Where the two files were written.
pub struct Written {
    /// `result.json`.
    pub result: PathBuf,
    /// `report.html`.
    pub report: PathBuf,
    /// What `result.json` holds.
    pub run: RunResult,
    /// For the terminal.
    pub table: Table,
}

/// The first of many names, and how many more there are.
fn shortened(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// A result with nothing in it yet.
pub fn empty_result(run: &PictureRun, name: &str) -> RunResult {
    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: device::name(run.device),
        threads: rayon::current_num_threads(),
        seed: run.recipe.seed,
    };
    let mut result = RunResult::new(name, settings);
    result.notes.extend(device::note(run.device));
    result
}

/// Writes both into the run's folder.
///
/// # Errors
/// A number that is not finite, a disk that is full.
pub fn write(run: &PictureRun, trained: &[Trained]) -> anyhow::Result<Written> {
    let mut result = empty_result(run, &run.recipe.name);
    let pictures = run.pictures;
    for (what, count) in [("train", pictures.train.len()), ("kept", pictures.kept.len()), ("test", pictures.test.len())]
    {
        result.metrics.insert(format!("pictures.data.{what}"), count as f64)?;
    }
    for one in trained {
        let key = metric_key(&one.name);
        let mut put = |what: &str, value: f64| result.metrics.insert(format!("pictures.{what}.{key}"), value);
        put("test.accuracy", one.accuracy)?;
        put("test.loss", one.loss)?;
        put("kept.accuracy", one.kept_accuracy)?;
        put("parameters", one.parameters as f64)?;
        put("steps", one.steps as f64)?;
        put("best_step", one.best_step as f64)?;
        put("seconds", one.seconds)?;
        put("seconds_a_step", one.seconds / one.steps.max(1) as f64)?;
        if let Some(scale) = one.noise_scale {
            put("noise_scale", scale)?;
            result.notes.push(format!(
                "{}: at the end the gradient's noise weighs as much as itself in a batch of {scale:.0} pictures: larger \
                 ones pay less and less, much smaller ones are steps as good for each picture.",
                one.name
            ));
        }
        let plain: Vec<&str> = one
            .blocks
            .iter()
            .filter_map(|(path, block)| (*block == Block::Gradient).then_some(path.as_str()))
            .collect();
        if !plain.is_empty() {
            result.notes.push(format!(
                "{}: {} of {} parameters have no block of curvature and go by their plain gradient: {}.",
                one.name,
                plain.len(),
                one.blocks.len(),
                shortened(&plain)
            ));
        }
    }
    let peak = trained.iter().map(|one| one.peak_rss_bytes).max().unwrap_or_default();
    result.finish(trained.iter().map(|one| one.seconds).sum());
    result.peak_rss_bytes = result.peak_rss_bytes.max(peak);
    let table = table(trained);
    let page = page(run, trained, &result, table.clone())?;
    let (json, html) = (run.folder.path().join("result.json"), run.folder.path().join("report.html"));
    result.write(&json)?;
    page.write(&html)?;
    Ok(Written { result: json, report: html, run: result, table })
}

fn table(trained: &[Trained]) -> Table {
    let columns = [Column::text("Training"), Column::text("Optimizer")].into_iter();
    let numbers =
        ["Accuracy, test (%)", "Accuracy, kept (%)", "Steps", "Hours", "Seconds a step", "Noise scale (pictures)"];
    trained
        .iter()
        .fold(Table::new(columns.chain(numbers.map(Column::number))), |table, one| {
            table.row([
                Cell::from(one.name.as_str()),
                Cell::from(one.optimizer.as_str()),
                Cell::number(one.accuracy, 2),
                Cell::number(one.kept_accuracy, 2),
                Cell::number(one.steps as f64, 0),
                Cell::number(one.seconds / 3600.0, 2),
                Cell::number(one.seconds / one.steps.max(1) as f64, 3),
                Cell::optional(one.noise_scale, 0),
            ])
        })
        .without_empty_columns()
}

fn page(run: &PictureRun, trained: &[Trained], result: &RunResult, table: Table) -> anyhow::Result<Report> {
    let recipe = run.recipe;
    let title = if recipe.description.is_empty() { &recipe.name } else { &recipe.description };
    let finding = format!(
        "Residual networks of {} layers on {} pictures in {} classes, tested on {}.",
        recipe.model.layers,
        run.pictures.train.len(),
        run.pictures.train.classes.len(),
        run.pictures.test.len()
    );
    let mut report = Report::new(title, finding);
    for one in trained {
        let number = KeyNumber::new(format!("{:.1}", one.accuracy), "% accuracy", one.name.as_str());
        report = report.key_number(number.note(format!("of the test, by {}", one.optimizer)));
    }
    let line = |title: &str, x: &str, y: Axis, of: fn(&MetricsRow) -> Option<(f64, f64)>, smooth: f64| {
        let series = trained.iter().map(|one| {
            let series = Series::new(&one.name, one.curve.iter().filter_map(of));
            if smooth > 0.0 { series.smoothed(smooth) } else { series }
        });
        let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
        let chart = LineChart::new(title, Axis::new(x), y);
        (!series.is_empty()).then(|| Chart::from(series.into_iter().fold(chart, LineChart::series)))
    };
    let loss = Axis::new("Cross-entropy").unit("nats");
    let charts = [
        line("Training loss", "Step", loss.clone().log(), |row| Some((row.step as f64, row.loss?)), 40.0),
        line("Training loss over time", "Seconds", loss.log(), |row| Some((row.seconds, row.loss?)), 40.0),
        line(
            "Accuracy on the kept pictures",
            "Step",
            Axis::new("Accuracy").unit("%"),
            |row| Some((row.step as f64, row.validation?)),
            0.0,
        ),
        line("Learning rate", "Step", Axis::new("Learning rate"), |row| Some((row.step as f64, row.rate?)), 0.0),
        line(
            "Norm of the gradient",
            "Step",
            Axis::new("Norm").log(),
            |row| Some((row.step as f64, row.gradient_norm?)),
            40.0,
        ),
        line("Damping", "Step", Axis::new("Damping").log(), |row| Some((row.step as f64, row.damping?)), 0.0),
        line("Noise scale", "Step", Axis::new("Pictures").log(), |row| Some((row.step as f64, row.noise_scale?)), 0.0),
    ];
    let blocks = trained.iter().find(|one| !one.blocks.is_empty()).map(|one| {
        let columns = ["Parameter", "Block"].map(Column::text);
        let rows = one.blocks.iter().fold(Table::new(columns), |table, (path, block)| {
            let block = match block {
                Block::Kronecker { weight } => format!("Kronecker factors of {weight}"),
                Block::Diagonal => "diagonal".to_owned(),
                Block::Gradient => "none: plain gradient".to_owned(),
            };
            table.row([path.clone(), block])
        });
        Section::new("Blocks of K-FAC").table(rows.caption(format!("{}: what each gradient goes through", one.name)))
    });
    let details = Section::new("In full")
        .details("Result as JSON", serde_json::to_value(result)?)
        .details("Recipe", serde_json::to_value(recipe)?);
    let report = report.section(Section::new("Networks").table(table));
    let report = report.section(Section::new("Training").charts(charts.into_iter().flatten()));
    let report = blocks.into_iter().fold(report, Report::section);
    Ok(report.section(details).run(result.clone()))
}
