//! `result.json` and `report.html` of a study.

use lapidary_eval::report::{
    Axis, Cell, Column, KeyNumber, LineChart, Point, Report, ScatterChart, ScatterSeries, Section, Series, Table,
};
use lapidary_train::study::{Status, StudyStore, StudyTrial};

use super::super::PictureRun;
use super::super::report::{Written, empty_result};
use super::analysis::{OfOptimizer, analyse, words};
use super::plan::{damping, searched};
use crate::recipe::{Study, metric_key};

/// Writes both, of as many trials as are done.
///
/// # Errors
/// A file that cannot be read, a number that is not finite, a disk that is full.
pub fn write(run: &PictureRun, study: &Study, store: &StudyStore) -> anyhow::Result<Written> {
    let trials = store.trials()?;
    let mut batches = study.batch_sizes.clone();
    batches.sort_unstable();
    let names: Vec<String> = study.optimizers.iter().map(|studied| studied.name.clone()).collect();
    let found = analyse(&names, &batches, &trials);

    let mut result = empty_result(run, &run.recipe.name);
    let done: Vec<&StudyTrial> = trials.iter().filter(|trial| trial.status == Status::Done).collect();
    let outcomes = || done.iter().filter_map(|trial| trial.outcome.as_ref());
    let seconds: f64 = outcomes().map(|outcome| outcome.seconds).sum();
    for (what, count) in [
        ("trials", trials.len() as f64),
        ("trials_done", done.len() as f64),
        ("target_loss", study.target_loss),
        ("seconds", seconds),
    ] {
        result.metrics.insert(format!("study.{what}"), count)?;
    }
    for of in &found {
        let name = metric_key(&of.name);
        if let Some(critical) = &of.critical {
            result.metrics.insert(format!("study.{name}.critical_batch"), critical.batch)?;
            result.metrics.insert(format!("study.{name}.fewest_steps"), critical.fewest_steps)?;
        }
        for size in &of.sizes {
            let mut put = |what: &str, value: Option<f64>| match value {
                Some(value) => result.metrics.insert(format!("study.{name}.b{}.{what}", size.batch), value),
                None => Ok(()),
            };
            put("trials", Some(size.trials as f64))?;
            put("trials_at_target", Some(size.reached as f64))?;
            put("trials_diverged", Some(size.diverged as f64))?;
            let Some(best) = &size.best else { continue };
            put("steps_to_loss", best.steps.map(|[median, ..]| median))?;
            put("steps_to_loss_fewest", best.steps.map(|[_, fewest, _]| fewest))?;
            put("steps_to_loss_most", best.steps.map(|[.., most]| most))?;
            put("steps_to_accuracy", best.steps_to_accuracy)?;
            put("seconds_to_loss", best.seconds)?;
            put("kept_accuracy", best.accuracy)?;
            put("noise_scale", best.noise_scale)?;
            put("learning_rate", Some(best.rate))?;
            put("damping", best.damping)?;
            put("last_loss", best.loss)?;
        }
    }
    let words = words(&found);
    result.notes.extend(words.iter().cloned());
    result.notes.push(format!(
        "{} settings of each optimizer at each size of batch, the best {} times with seeds of their own; steps are the \
         median until the loss on {} training pictures, as they are, is {} nats. Accuracies are on pictures kept from \
         training.",
        study.settings,
        study.seeds,
        super::SAMPLE.min(run.pictures.train.len()),
        study.target_loss
    ));
    if done.len() < trials.len() {
        result.notes.push(format!("{} of {} trials are done.", done.len(), trials.len()));
    }
    result.finish(seconds);

    let table = table(study, &found, run.pictures.train.len());
    let page = page(run, study, &found, &trials, &words, table.clone(), &result)?;
    let (json, html) = (run.folder.path().join("result.json"), run.folder.path().join("report.html"));
    result.write(&json)?;
    page.write(&html)?;
    Ok(Written { result: json, report: html, run: result, table })
}

fn table(study: &Study, found: &[OfOptimizer], pictures: usize) -> Table {
    let columns = [Column::text("Optimizer"), Column::number("Batch")].into_iter();
    let numbers = [
        "Steps to the target",
        "Fewest",
        "Most",
        "Epochs",
        "Seconds",
        "Accuracy, kept (%)",
        "Learning rate",
        "Damping",
        "Best, at the target",
        "Settings at the target",
        "Diverged",
        "Noise scale",
    ];
    let mut table = Table::new(columns.chain(numbers.map(Column::number)));
    for of in found {
        for size in &of.sizes {
            let best = size.best.as_ref();
            let steps = best.and_then(|best| best.steps);
            let epochs = steps.map(|[median, ..]| median * size.batch as f64 / pictures as f64);
            table = table.row([
                Cell::from(of.name.as_str()),
                Cell::number(size.batch as f64, 0),
                Cell::optional(steps.map(|steps| steps[0]), 0),
                Cell::optional(steps.map(|steps| steps[1]), 0),
                Cell::optional(steps.map(|steps| steps[2]), 0),
                Cell::optional(epochs, 2),
                Cell::optional(best.and_then(|best| best.seconds), 1),
                Cell::optional(best.and_then(|best| best.accuracy), 1),
                Cell::optional(best.map(|best| best.rate), 4),
                Cell::optional(best.and_then(|best| best.damping), 4),
                Cell::from(best.map_or(String::new(), |best| format!("{} of {}", best.reached, best.trainings))),
                Cell::from(format!("{} of {}", size.reached, size.done)),
                Cell::number(size.diverged as f64, 0),
                Cell::optional(best.and_then(|best| best.noise_scale), 0),
            ]);
        }
    }
    table
        .caption(format!("The best setting of each size, until a loss of {} nats", study.target_loss))
        .without_empty_columns()
}

fn page(
    run: &PictureRun,
    study: &Study,
    found: &[OfOptimizer],
    trials: &[StudyTrial],
    words: &[String],
    table: Table,
    result: &lapidary_eval::result::RunResult,
) -> anyhow::Result<Report> {
    let recipe = run.recipe;
    let title = if recipe.description.is_empty() { &recipe.name } else { &recipe.description };
    let finding = words.first().cloned().unwrap_or_default();
    let mut report = Report::new(title, finding);
    for of in found {
        if let Some(critical) = &of.critical {
            let number = KeyNumber::new(format!("{:.0}", critical.batch), "pictures", of.name.as_str());
            report = report.key_number(number.note("critical batch: twice the fewest steps"));
        }
    }
    let mut answer = Section::new("The answer");
    for line in words {
        answer = answer.paragraph(line.clone());
    }
    let answer = answer.table(table);

    let over_batch = |title: &str, y: Axis, of: &dyn Fn(&super::analysis::Best, usize) -> Option<f64>| {
        let mut chart = LineChart::new(title, Axis::new("Pictures a step").log(), y);
        for one in found {
            let points =
                one.sizes.iter().filter_map(|size| Some((size.batch as f64, of(size.best.as_ref()?, size.batch)?)));
            chart = chart.series(Series::new(&one.name, points));
        }
        chart
    };
    let mut steps = over_batch("Steps to the target", Axis::new("Steps").log(), &|best, _| Some(best.steps?[0]));
    for one in found {
        let first = one.sizes.iter().find_map(|size| Some((size.batch as f64, size.best.as_ref()?.steps?[0])));
        if let Some((batch, first)) = first {
            let ideal = one.sizes.iter().map(|size| (size.batch as f64, first * batch / size.batch as f64));
            steps = steps.series(Series::new(format!("{}, ideal", one.name), ideal));
        }
    }
    let steps = steps.caption("Ideal: half the steps for twice the batch.");
    let seconds = over_batch("Time to the target", Axis::new("Time").unit("s").log(), &|best, _| best.seconds);
    let pictures = over_batch("Pictures shown until the target", Axis::new("Pictures").log(), &|best, batch| {
        Some(best.steps?[0] * batch as f64)
    });
    let accuracy =
        over_batch("Accuracy on the kept pictures", Axis::new("Accuracy").unit("%"), &|best, _| best.accuracy);
    let noise = over_batch("Noise scale of the gradient", Axis::new("Pictures").log(), &|best, _| best.noise_scale);
    let mut scaling = Section::new("Larger batches").charts([steps, seconds, pictures, accuracy].map(Into::into));
    if found.iter().any(|of| of.sizes.iter().any(|it| it.best.as_ref().is_some_and(|best| best.noise_scale.is_some())))
    {
        scaling = scaling.chart(noise.caption(
            "What the noise says of the batch up to which larger ones pay: a training of the best setting in two halves of each batch.",
        ));
    }

    let mut sensitivity = Section::new("Sensitivity").paragraph(
        "Each setting that was tried, and what became of it. The more of the plane is good, the less an optimizer has to \
         be tuned.",
    );
    for of in found {
        for size in &of.sizes {
            sensitivity = sensitivity.chart(settings(of, size.batch, trials));
        }
    }
    let mut curves = Section::new("Curves");
    for of in found {
        for size in &of.sizes {
            let title = format!("{}, batch {}: training loss", of.name, size.batch);
            let mut chart = LineChart::new(title, Axis::new("Step"), Axis::new("Cross-entropy").unit("nats").log());
            chart = chart.reference("target", study.target_loss);
            for trial in searched(trials, &of.name, size.batch) {
                let Some(outcome) = &trial.outcome else { continue };
                let points = outcome.curve.iter().map(|look| (look.step as f64, look.loss));
                chart = chart.series(Series::new(format!("rate {:.1e}", trial.options.schedule.peak), points));
            }
            curves = curves.chart(chart);
        }
    }
    let details = Section::new("In full")
        .details("Result as JSON", serde_json::to_value(result)?)
        .details("Recipe", serde_json::to_value(recipe)?);
    let report = [answer, scaling, sensitivity, curves, details].into_iter().fold(report, Report::section);
    Ok(report.run(result.clone()))
}

/// What became of the settings of one optimizer at one size: over rate and damping, or over the rate alone.
fn settings(of: &OfOptimizer, batch: usize, trials: &[StudyTrial]) -> ScatterChart {
    let fewest = of.sizes.iter().find(|size| size.batch == batch);
    let fewest = searched(trials, &of.name, batch)
        .filter_map(|trial| trial.outcome.as_ref()?.steps_to_loss)
        .reduce(f64::min)
        .or(fewest.and_then(|size| Some(size.best.as_ref()?.steps?[0])));
    let has_damping = searched(trials, &of.name, batch).any(|trial| damping(&trial.options).is_some());
    let classes = ["within 1.5 times the fewest steps", "at the target later", "not at the target", "diverged"];
    let mut points: [Vec<Point>; 4] = Default::default();
    for trial in searched(trials, &of.name, batch) {
        let Some(outcome) = &trial.outcome else { continue };
        let (class, label) = match (outcome.steps_to_loss, outcome.diverged_at, fewest) {
            (Some(steps), _, Some(fewest)) if steps <= 1.5 * fewest => (0, format!("{steps:.0}")),
            (Some(steps), ..) => (1, format!("{steps:.0}")),
            (None, None, _) => (2, String::new()),
            (None, Some(_), _) => (3, String::new()),
        };
        let rate = trial.options.schedule.peak;
        let y = match damping(&trial.options) {
            Some(damping) => damping,
            None => outcome.last_loss().unwrap_or(f64::NAN),
        };
        points[class].push(Point::new(rate, y, label));
    }
    let y = if has_damping { Axis::new("Damping").log() } else { Axis::new("Last loss").unit("nats").log() };
    let title = format!("{}, batch {batch}", of.name);
    let chart =
        ScatterChart::new(title, Axis::new("Learning rate").log(), y).caption("Numbers are steps to the target.");
    let series = classes.into_iter().zip(points).filter(|(_, points)| !points.is_empty());
    series.fold(chart, |chart, (name, points)| chart.series(ScatterSeries::new(name, points)))
}
