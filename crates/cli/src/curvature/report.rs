//! `result.json` and `report.html`.

use std::fmt;
use std::path::PathBuf;

use lapidary_curvature::density::Density;
use lapidary_eval::report::number::{duration, fixed, scientific, significant};
use lapidary_eval::report::{
    Axis, Bar, BarChart, Cell, Chart, Column, KeyNumber, LineChart, Report, Section, Series, SurfaceChart, Table,
};
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;

use super::questions::{Answers, Landscape, Layers, Place, Value};
use super::subject::name_of;
use super::{Matrix, Run};
use crate::device;

/// Where the two files were written.
pub struct Written {
    /// `result.json`.
    pub result: PathBuf,
    /// `report.html`.
    pub report: PathBuf,
    /// What `result.json` holds.
    pub run: RunResult,
    /// What it means.
    finding: String,
    table: Table,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.finding, self.table.to_markdown())?;
        writeln!(f, "{}\n{}", self.result.display(), self.report.display())
    }
}

/// Writes both files into the run's folder.
///
/// # Errors
/// A number that is not finite, a disk that is full.
pub fn write(run: &Run, answers: &Answers) -> anyhow::Result<Written> {
    let (finding, table) = (finding(run.settings.matrix, answers), table(answers));
    let result = result(run, answers, &finding)?;
    let page = page(run, answers, &result, &finding, table.clone());
    let (json, html) = (run.folder.path().join("result.json"), run.folder.path().join("report.html"));
    result.write(&json)?;
    page.write(&html)?;
    Ok(Written { result: json, report: html, run: result, finding, table })
}

fn result(run: &Run, answers: &Answers, finding: &str) -> anyhow::Result<RunResult> {
    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: device::name(run.device),
        threads: rayon::current_num_threads(),
        seed: run.settings.seed,
    };
    let mut result = RunResult::new(format!("curvature-{}", run.settings.name), settings);
    let Answers { place, ends, trace, density, layers, .. } = answers;
    let mut put = |name: String, value: f64| result.metrics.insert(format!("curvature.{name}"), value);
    put("examples".into(), place.examples as f64)?;
    put("parameters".into(), place.parameters as f64)?;
    put("loss".into(), place.loss)?;
    put("gradient_norm".into(), place.gradient_norm)?;
    put("product_error".into(), place.difference.map_or(0.0, |difference| difference.error))?;
    put("seconds_per_gradient".into(), place.gradient_seconds)?;
    for (end, values) in [("largest", &ends.largest), ("smallest", &ends.smallest)] {
        for (number, value) in values.iter().enumerate() {
            put(format!("{end}.{}", number + 1), value.value)?;
            put(format!("{end}.{}.residual", number + 1), value.residual)?;
        }
    }
    put("products".into(), ends.products as f64)?;
    if let Some((trace, _)) = trace {
        put("trace".into(), trace.value)?;
        put("trace.standard_error".into(), trace.standard_error)?;
    }
    if let Some((density, _)) = density {
        let threshold = threshold(density);
        put("share_below".into(), density.share_below(-threshold))?;
        put("share_above".into(), 1.0 - density.share_below(threshold))?;
        put("share.threshold".into(), threshold)?;
    }
    for layer in layers.iter().flat_map(|layers| &layers.layers) {
        put(format!("omega.block{}", layer.layer), layer.omega)?;
        put(format!("mean.block{}", layer.layer), layer.mean)?;
        put(format!("std.block{}", layer.layer), layer.std)?;
    }
    result.notes = [vec![finding.to_owned()], notes(run, answers)].concat();
    result.finish(seconds(answers));
    Ok(result)
}

/// Of all questions.
fn seconds(answers: &Answers) -> f64 {
    let trace = answers.trace.as_ref().map(|(_, seconds)| *seconds);
    let density = answers.density.as_ref().map(|(_, seconds)| *seconds);
    let layers = answers.layers.as_ref().map(|layers| layers.seconds);
    let landscape = answers.landscape.as_ref().map(|landscape| landscape.seconds);
    answers.ends.seconds + [trace, density, layers, landscape].into_iter().flatten().sum::<f64>()
}

fn notes(run: &Run, answers: &Answers) -> Vec<String> {
    let place = &answers.place;
    let mut notes: Vec<String> = device::note(run.device).into_iter().collect();
    notes.push(format!(
        "Over {}, {} parameters, on {} {}; computed in {}.",
        run.settings.over,
        fixed(place.parameters as f64, 0),
        fixed(place.examples as f64, 0),
        place.noun,
        name_of(run.settings.numbers)
    ));
    if let Some(difference) = place.difference {
        notes.push(format!(
            "A product is a central difference with a step of {}, its relative error about {}.",
            scientific(difference.step, 1),
            scientific(difference.error, 0)
        ));
    }
    let open = answers.ends.largest.iter().chain(&answers.ends.smallest).filter(|value| !value.converged).count();
    if open > 0 {
        notes.push(format!("{open} eigenvalues are not settled: their residuals are above the tolerance."));
    }
    if let Some((trace, _)) = answers.trace.as_ref().filter(|(trace, _)| !trace.converged) {
        notes.push(format!(
            "The trace is known to {} %, less well than asked, after {} products.",
            fixed(100.0 * trace.standard_error / trace.value.abs(), 1),
            trace.products
        ));
    }
    if let Some(layers) = answers.layers.as_ref().filter(|layers| layers.unsettled > 0) {
        notes.push(format!("{} of the blocks' eigenvalues are not settled.", layers.unsettled));
    }
    notes
}

/// What a point is, told from both ends of its spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The loss falls along some direction as fast as it rises along others.
    Saddle,
    /// It falls along some direction, and rises far more steeply along others.
    NearlyMinimum,
    /// It rises wherever it is curved at all.
    Minimum,
    Flat,
}

/// Curvature below this share of the largest is that of rounding and of the error of products.
const NOISE: f64 = 2e-3;

fn shape(largest: Option<&Value>, smallest: Option<&Value>, error: f64) -> Option<Shape> {
    let (largest, smallest) = (largest?, smallest?);
    let size = largest.value.abs().max(smallest.value.abs());
    let noise = size * NOISE.max(3.0 * error);
    Some(if size < 1e-6 {
        Shape::Flat
    } else if smallest.value + smallest.residual >= -noise {
        Shape::Minimum
    } else if smallest.value > -0.1 * largest.value {
        Shape::NearlyMinimum
    } else {
        Shape::Saddle
    })
}

/// One sentence or two.
fn finding(matrix: Matrix, answers: &Answers) -> String {
    let place = &answers.place;
    let (largest, smallest) = (answers.ends.largest.first(), answers.ends.smallest.first());
    if largest.is_none() && smallest.is_none() {
        let sharpest =
            answers.layers.iter().flat_map(|layers| &layers.layers).max_by(|a, b| a.omega.total_cmp(&b.omega));
        return sharpest.map_or_else(String::new, |layer| {
            format!("The loss bends most along block {}, with an Ω of {}.", layer.layer + 1, two(layer.omega))
        });
    }
    let error = place.difference.map_or(0.0, |difference| difference.error);
    let sharp = largest.map_or(String::new(), |largest| sharpness(largest.value, place));
    let shape = if matrix == Matrix::Hessian { shape(largest, smallest, error) } else { None };
    let low = smallest.map_or(0.0, |smallest| smallest.value);
    match shape {
        Some(Shape::Saddle) => format!(
            "This is a saddle, no minimum: along one direction the loss bends down with curvature {}. {sharp}",
            two(low)
        ),
        Some(Shape::NearlyMinimum) => format!(
            "Not quite a minimum: the loss bends down along some direction, with curvature {}, much less than it bends \
             up along others. {sharp}",
            two(low)
        ),
        Some(Shape::Minimum) => format!("No direction was found along which the loss bends down. {sharp}"),
        Some(Shape::Flat) => "The loss is flat: it has no curvature to speak of along these parameters.".to_owned(),
        None => sharp,
    }
}

/// How far one can go along the sharpest direction.
fn sharpness(largest: f64, place: &Place) -> String {
    if largest <= 0.0 {
        return "No direction was found along which it bends up.".to_owned();
    }
    let step = (2.0 / largest).sqrt();
    let share = 100.0 * step / place.length;
    let word = if share < 0.1 { "sharp" } else { "flat" };
    format!(
        "Where it bends up most it is {word}: a parabola of its curvature, {}, rises by one nat within {} % of the \
         parameters' length.",
        two(largest),
        two(share)
    )
}

fn table(answers: &Answers) -> Table {
    let columns = vec![Column::text("Eigenvalue"), Column::number("Value"), Column::number("Residual")];
    let mut table = Table::new(columns);
    let rows = |end: &str, values: &[Value]| -> Vec<Vec<Cell>> {
        let row = |(number, value): (usize, &Value)| {
            let name = if number == 0 { end.to_owned() } else { format!("{end}, number {}", number + 1) };
            let name = if value.converged { name } else { format!("{name} (not settled)") };
            vec![Cell::from(name), Cell::from(significant(value.value)), Cell::from(significant(value.residual))]
        };
        values.iter().enumerate().map(row).collect()
    };
    let ends = &answers.ends;
    for row in rows("Largest", &ends.largest).into_iter().chain(rows("Smallest", &ends.smallest)) {
        table = table.row(row);
    }
    table
}

fn page(run: &Run, answers: &Answers, result: &RunResult, finding: &str, table: Table) -> Report {
    let place = &answers.place;
    let title = format!("Curvature of {}", run.settings.name);
    let mut report = Report::new(title, finding)
        .key_number(
            KeyNumber::new(significant(place.loss), "", "loss").note(format!("on {} {}", place.examples, place.noun)),
        )
        .key_number(KeyNumber::new(significant(place.gradient_norm), "", "length of the gradient"));
    if let Some(largest) = answers.ends.largest.first() {
        report = report.key_number(KeyNumber::new(significant(largest.value), "", "largest eigenvalue"));
    }
    if let Some(smallest) = answers.ends.smallest.first() {
        report = report.key_number(KeyNumber::new(significant(smallest.value), "", "smallest eigenvalue"));
    }
    if let Some((trace, _)) = &answers.trace {
        let note = format!("± {}", significant(trace.standard_error));
        report = report.key_number(KeyNumber::new(significant(trace.value), "", "trace").note(note));
    }
    let named = match run.settings.matrix {
        Matrix::Hessian => "Hessian",
        Matrix::GaussNewton => "Gauss-Newton matrix",
        Matrix::Fisher => "empirical Fisher matrix",
    };
    let spectrum = Section::new("Spectrum");
    let spectrum = match run.settings.eigenvalues() {
        0 => spectrum.paragraph(format!("Of the {named}.")),
        _ => spectrum
            .paragraph(format!(
                "Eigenvalues of the {named}, found by {} products in {}.",
                answers.ends.products,
                duration(answers.ends.seconds)
            ))
            .table(table),
    };
    let spectrum = match &answers.density {
        Some((density, _)) => spectrum.chart(density_chart(density)).paragraph(format!(
            "{} % of the eigenvalues lie below −{1}, and {2} % above {1}, a hundredth of the largest magnitude; by \
             stochastic Lanczos quadrature with {3} products.",
            two(100.0 * density.share_below(-threshold(density))),
            two(threshold(density)),
            two(100.0 * (1.0 - density.share_below(threshold(density)))),
            density.products
        )),
        None => spectrum,
    };
    if run.settings.eigenvalues() > 0 || answers.density.is_some() {
        report = report.section(spectrum);
    }
    if let Some(landscape) = &answers.landscape {
        report = report.section(landscape_section(landscape, place));
    }
    if let Some(layers) = &answers.layers {
        report = report.section(layers_section(layers, place));
    }
    // The page has the finding under its title.
    let notes = result.notes.iter().filter(|note| *note != finding).cloned().collect();
    report.run(RunResult { notes, ..result.clone() })
}

/// Below this an eigenvalue counts as none.
fn threshold(density: &Density) -> f64 {
    0.01 * density.nodes.iter().fold(0.0, |most: f64, node| most.max(node.value.abs()))
}

/// To two places that count.
fn two(value: f64) -> String {
    let places = if value == 0.0 { 0.0 } else { 1.0 - value.abs().log10().floor() };
    if (0.0..6.0).contains(&places) { fixed(value, places as usize) } else { significant(value) }
}

/// Where all eigenvalues lie; logarithmic, since nearly all of them are near zero.
fn density_chart(density: &Density) -> LineChart {
    const POINTS: usize = 400;
    let (low, high) = density
        .nodes
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), node| (low.min(node.value), high.max(node.value)));
    let width = ((high - low) / 150.0).max(1e-12);
    let (low, high) = (low - 4.0 * width, high + 4.0 * width);
    let places: Vec<f64> = (0..POINTS).map(|i| low + (high - low) * i as f64 / (POINTS - 1) as f64).collect();
    let heights = density.at(&places, width);
    // What is far below an eigenvalue's share is the tail of the bells.
    let floor = heights.iter().copied().fold(0.0, f64::max) * 1e-9;
    let points = places.into_iter().zip(heights).map(|(place, height)| (place, height.max(floor)));
    LineChart::new("Density of the eigenvalues", Axis::new("Eigenvalue"), Axis::new("Density").log())
        .series(Series::new("density", points))
        .caption(format!("Each eigenvalue as a bell of deviation {}.", significant(width)))
}

fn landscape_section(landscape: &Landscape, place: &Place) -> Section {
    let mut lines: Vec<Chart> = Vec::new();
    for ((line, name), curvature) in landscape.lines.iter().zip(&landscape.names).zip(landscape.values) {
        let middle = line.losses.get(line.losses.len() / 2).copied().unwrap_or(place.loss);
        let (least, most) = ends(&line.losses);
        // Not so far that nothing is seen of the loss.
        let room = (most - least).max(1e-9);
        let parabola = line.places.iter().map(|&step| (step, middle + 0.5 * curvature * step * step));
        let parabola = parabola.filter(|(_, loss)| (least - room..=most + room).contains(loss));
        let chart = LineChart::new(format!("Along the {name}"), Axis::new("Step"), Axis::new("Loss"))
            .series(Series::new("loss", line.places.iter().copied().zip(line.losses.iter().copied())))
            .series(Series::new("parabola of this curvature", parabola));
        lines.push(chart.into());
    }
    let plane = &landscape.plane;
    let positive = plane.losses.iter().all(|&loss| loss > 0.0);
    let (least, most) = plane
        .losses
        .iter()
        .filter(|loss| loss.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &loss| (least.min(loss), most.max(loss)));
    let value = Axis::new("loss");
    let value = if positive && most > 10.0 * least { value.log() } else { value };
    let surface = SurfaceChart::new(
        "The loss around the model",
        Axis::new(format!("Step along the {}", landscape.names[0])),
        Axis::new(format!("Step along the {}", landscape.names[1])),
        value,
    )
    .grid(plane.x.clone(), plane.y.clone(), plane.losses.clone())
    .mark(0.0, 0.0)
    .caption("The dot is where the model is.");
    Section::new("Landscape")
        .paragraph(format!(
            "Steps are lengths of the change of the parameters, which themselves are {} long.",
            significant(place.length)
        ))
        .chart(surface)
        .charts(lines)
}

/// The least and the greatest finite value.
fn ends(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().filter(|value| value.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &value| (least.min(value), most.max(value)))
}

fn layers_section(layers: &Layers, place: &Place) -> Section {
    let mut chart = BarChart::new("Sensitivity of the blocks", "Block", Axis::new("Top Hessian eigenvalue |λ|"))
        .caption("Mean and standard deviation over the samples.");
    chart.value_name = "|mean λ|".into();
    chart.error_name = "std λ".into();
    chart.mark_name = "Ω = |mean λ| + std λ".into();
    let chart = layers.layers.iter().fold(chart, |chart, layer| {
        chart.bar(Bar::new((layer.layer + 1).to_string(), layer.mean.abs()).error(layer.std).mark(layer.omega))
    });
    let order = lapidary_curvature::rank(&layers.layers);
    let order: Vec<String> = order.iter().map(|&layer| (layers.layers[layer].layer + 1).to_string()).collect();
    Section::new("Sensitivity")
        .paragraph(format!(
            "Q-BERT's Ω on disjoint samples, {} of {} {} each, in {}. From the most sensitive block to the least: {}.",
            layers.samples,
            layers.examples,
            place.noun,
            duration(layers.seconds),
            order.join(", ")
        ))
        .chart(chart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: f64) -> Value {
        Value { value, residual: 0.0, converged: true }
    }

    #[test]
    fn shapes_of_points() {
        let of = |largest: f64, smallest: f64| shape(Some(&value(largest)), Some(&value(smallest)), 1e-4);
        assert_eq!(of(10.0, -2.0), Some(Shape::Saddle));
        assert_eq!(of(-1.0, -2.0), Some(Shape::Saddle));
        assert_eq!(of(10.0, -0.5), Some(Shape::NearlyMinimum));
        assert_eq!(of(10.0, -0.01), Some(Shape::Minimum));
        assert_eq!(of(10.0, 0.1), Some(Shape::Minimum));
        assert_eq!(of(1e-8, -1e-9), Some(Shape::Flat));
        assert_eq!(shape(Some(&value(1.0)), None, 0.0), None);
        // Within the error of its products nothing is known.
        assert_eq!(shape(Some(&value(10.0)), Some(&value(-0.5)), 0.05), Some(Shape::Minimum));
    }
}
