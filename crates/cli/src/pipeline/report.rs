//! The last stage: `result.json` and `report.html`.

use std::path::PathBuf;

use anyhow::Context;
use lapidary_eval::report::{
    Axis, Bar, BarChart, Cell, Chart, ImageGallery, KeyNumber, LineChart, Point, Report, ScatterChart, ScatterSeries,
    Section, Series, qbert,
};
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;
use lapidary_train::MetricsRow;

use super::evaluate::{Score, Scored};
use super::{Cut, Outcome, Run, SeedOutcome};
use crate::device;

/// How a run calls itself and its test part.
pub struct Naming<'a> {
    /// First part of metric names: the task.
    pub task: &'a str,
    /// Second part: the split that is reported.
    pub split: &'a str,
    /// Heading of the page.
    pub title: &'a str,
}

/// Where the two files were written.
pub struct Written {
    /// `result.json`.
    pub result: PathBuf,
    /// `report.html`.
    pub report: PathBuf,
    /// What `result.json` holds.
    pub run: RunResult,
}

/// Writes `result.json` and `report.html` into the run's folder.
///
/// # Errors
/// A number that is not finite, a disk that is full.
pub fn write(run: &Run, outcome: &Outcome, naming: &Naming, gallery: Option<ImageGallery>) -> anyhow::Result<Written> {
    let result = result(run, outcome, naming)?;
    let page = page(run, outcome, naming, &result, gallery)?;
    let (json, html) = (run.folder.path().join("result.json"), run.folder.path().join("report.html"));
    result.write(&json)?;
    page.write(&html)?;
    Ok(Written { result: json, report: html, run: result })
}

fn result(run: &Run, outcome: &Outcome, naming: &Naming) -> anyhow::Result<RunResult> {
    let recipe = run.recipe;
    let first = outcome.seeds.first().context("no seed was run")?;
    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: device::name(run.device),
        threads: rayon::current_num_threads(),
        seed: recipe.seeds.first().copied().unwrap_or_default(),
    };
    let mut result = RunResult::new(&recipe.name, settings);
    let Naming { task, split, .. } = naming;
    let mut score = |variant: &str, of: &dyn Fn(&SeedOutcome) -> Option<Scored>| -> anyhow::Result<()> {
        let scored: Vec<(u64, Scored)> = outcome.seeds.iter().filter_map(|seed| Some((seed.seed, of(seed)?))).collect();
        let names: Vec<&str> = scored.first().map_or(Vec::new(), |(_, first)| first.all().map(name_of).collect());
        for (place, metric) in names.into_iter().enumerate() {
            let values: Vec<(u64, &Score)> =
                scored.iter().filter_map(|(seed, scored)| Some((*seed, scored.all().nth(place)?))).collect();
            let mean = values.iter().map(|(_, score)| score.percent).sum::<f64>() / values.len().max(1) as f64;
            result.metrics.insert(format!("{task}.{split}.{metric}.{variant}"), round(mean))?;
            for (seed, score) in values {
                result.metrics.insert(format!("{task}.{split}.{metric}.{variant}.seed{seed}"), round(score.percent))?;
            }
        }
        Ok(())
    };
    score("f32", &|seed| Some(seed.finetuned.test.clone()))?;
    for (i, cut) in first.cuts.iter().enumerate() {
        score(&format!("{}.direct", cut.name), &|seed| Some(seed.cuts.get(i)?.direct.clone()))?;
        score(&format!("{}.qat", cut.name), &|seed| Some(seed.cuts.get(i)?.trained.clone()))?;
    }
    let main = &first.finetuned.test.main.name;
    let mut put = |name: String, value: f64| result.metrics.insert(format!("{task}.{name}"), round(value));
    let validation = outcome.seeds.iter().map(|seed| seed.finetuned.validation.0).sum::<f64>();
    put(format!("validation.{main}.f32"), validation / outcome.seeds.len() as f64)?;
    for (i, cut) in first.cuts.iter().enumerate() {
        let sum: f64 = outcome.seeds.iter().filter_map(|seed| Some(seed.cuts.get(i)?.validation.0)).sum();
        put(format!("validation.{main}.{}.qat", cut.name), sum / outcome.seeds.len() as f64)?;
    }
    put("size_mb.f32".into(), first.finetuned.size_mb)?;
    put("size_mb_without_embeddings.f32".into(), first.finetuned.size_mb_without_embeddings)?;
    for cut in &first.cuts {
        put(format!("size_mb.{}", cut.name), cut.size_mb)?;
        put(format!("size_mb_without_embeddings.{}", cut.name), cut.size_mb_without_embeddings)?;
        put(format!("bits_a_weight.{}", cut.name), cut.average_bits)?;
    }
    for layer in &outcome.curvature.layers {
        put(format!("curvature.omega.block{}", layer.layer), layer.omega)?;
        put(format!("curvature.mean.block{}", layer.layer), layer.mean)?;
        put(format!("curvature.std.block{}", layer.layer), layer.std)?;
    }
    result.notes = notes(run, outcome);
    let trained: f64 = outcome
        .seeds
        .iter()
        .map(|seed| seed.finetuned.seconds + seed.cuts.iter().map(|cut| cut.seconds).sum::<f64>())
        .sum();
    result.finish(trained + outcome.curvature.seconds);
    let peaks = outcome
        .seeds
        .iter()
        .flat_map(|seed| seed.cuts.iter().map(|cut| cut.peak_rss_bytes).chain([seed.finetuned.peak_rss_bytes]));
    result.peak_rss_bytes = peaks.chain([result.peak_rss_bytes]).max().unwrap_or_default();
    Ok(result)
}

fn name_of(score: &Score) -> &str {
    &score.name
}

/// What a reader calls a score.
pub fn metric(name: &str) -> String {
    match name {
        "f1" => "F1".to_owned(),
        name => {
            let mut letters = name.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        }
    }
}

/// To four significant places behind the point: what a table or a reader can use.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

fn notes(run: &Run, outcome: &Outcome) -> Vec<String> {
    let recipe = run.recipe;
    let mut notes = Vec::new();
    let Some(first) = outcome.seeds.first() else { return notes };
    notes.extend(device::note(run.device));
    if !first.finetuned.fresh.is_empty() {
        notes.push(format!("Began fresh, as the checkpoint lacks them: {}.", first.finetuned.fresh.join(", ")));
    }
    if !first.finetuned.extra.is_empty() {
        notes.push(format!("In the checkpoint and not used: {}.", first.finetuned.extra.join(", ")));
    }
    if let Some(cut) = first.cuts.first() {
        let norm = |name: &&String| name.to_lowercase().contains("norm");
        let norms = cut.dense.iter().filter(norm).count();
        let biases = cut.dense.iter().filter(|name| name.ends_with(".bias") && !norm(name)).count();
        notes.push(format!(
            "Stays in f32 in every cut: {} tensors, of them {norms} of norms, {biases} biases and the weight of the head.",
            cut.dense.len()
        ));
        notes.push(format!(
            "{} groups of rows a matrix; embeddings {} bits in a range a row; activations {}.",
            recipe.quantize.groups,
            recipe.quantize.embedding_bits,
            match recipe.quantize.activation_bits {
                32 => "f32".to_owned(),
                bits => format!("{bits} bits, a range a row, at the input of every cut matrix"),
            }
        ));
    }
    let loose = outcome.curvature.measured.iter().filter(|one| !one.converged).count();
    if loose > 0 {
        let worst = outcome.curvature.measured.iter().map(|one| one.residual).fold(0.0, f64::max);
        notes.push(format!(
            "{loose} of {} eigenvalues did not settle within {} products (largest residual {worst:.2}); they count as \
             they stand.",
            outcome.curvature.measured.len(),
            recipe.curvature.iterations
        ));
    }
    if outcome.seeds.len() > 1 {
        notes.push(format!("Curvature was measured on seed {}; all seeds' mixed cuts follow it.", first.seed));
    }
    for seed in &outcome.seeds {
        if let Some(scale) = seed.finetuned.curve.iter().rev().find_map(|row| row.noise_scale) {
            notes.push(format!(
                "Seed {}: at the end of fine-tuning the gradient's noise weighs as much as itself in a batch of {scale:.0} \
                 targets: much larger batches hardly pay.",
                seed.seed
            ));
        }
    }
    notes.extend(run.examples.losses.iter().cloned());
    notes.push(format!(
        "Dropout {} after the embeddings, in the two halves of every block and before a classifier, not on \
         attention probabilities. Seconds are those of training and curvature.",
        recipe.finetune.dropout
    ));
    notes
}

fn page(
    run: &Run,
    outcome: &Outcome,
    naming: &Naming,
    result: &RunResult,
    gallery: Option<ImageGallery>,
) -> anyhow::Result<Report> {
    let first = outcome.seeds.first().context("no seed was run")?;
    let dense = &first.finetuned;
    let main = &dense.test.main;
    let (title, name) = (metric(&main.name), metric(&main.name).replacen('A', "a", 1));
    let accuracy = |variant: &str| {
        result.metrics.get(&format!("{}.{}.{}.{variant}", naming.task, naming.split, main.name)).unwrap_or(f64::NAN)
    };
    let f32_accuracy = accuracy("f32");
    let smallest = first.cuts.iter().min_by(|a, b| a.size_mb.total_cmp(&b.size_mb));
    let finding = match smallest {
        Some(cut) => format!(
            "Cut to {}, the model {} and takes {:.1} MB instead of {:.1}; without its embeddings {:.1} MB instead of {:.1}.",
            words(&cut.name),
            change(accuracy(&format!("{}.qat", cut.name)) - f32_accuracy, &name),
            cut.size_mb,
            dense.size_mb,
            cut.size_mb_without_embeddings,
            dense.size_mb_without_embeddings
        ),
        None => format!("Fine-tuned in f32: {name} {f32_accuracy:.1} % on {}.", naming.split),
    };
    let mut report = Report::new(naming.title, finding)
        .key_number(KeyNumber::new(format!("{f32_accuracy:.1}"), "%", format!("{name} in f32")).note(interval(main)));
    for cut in &first.cuts {
        let score = accuracy(&format!("{}.qat", cut.name));
        report = report.key_number(
            KeyNumber::new(format!("{score:.1}"), "%", format!("{name}, {}", words(&cut.name))).note(format!(
                "{:.1} MB; rounded directly {:.1} %",
                cut.size_mb,
                accuracy(&format!("{}.direct", cut.name))
            )),
        );
    }
    let seeds = match outcome.seeds.len() {
        1 => format!("seed {}", first.seed),
        n => format!("mean of {n} seeds"),
    };
    let mut table = qbert::table(result).caption(format!(
        "{} part, {} examples; {seeds}. One standard error is about {:.1} points.",
        naming.split,
        dense.test.examples,
        // Of an interval of 95 %.
        (main.high - main.low) / (2.0 * 1.96)
    ));
    table.highlight = smallest.and_then(|cut| {
        let bits = qbert_name(&cut.name)?;
        table.rows.iter().position(|row| row.first() == Some(&Cell::from(bits)))
    });
    report = report
        .section(
            Section::new(format!("{title} and size"))
                .paragraph(
                    "Rounded directly: every group's range reaches from its least to its greatest weight. Q-BERT: \
                     ranges of least squares, then fine-tuning with the rounding in place; scored is the packed \
                     checkpoint as it was written and read back.",
                )
                .table(table)
                .chart(over_size(outcome, &title, &accuracy, f32_accuracy)),
        )
        .section(
            Section::new("Sensitivity of the blocks")
                .paragraph(format!(
                    "The top eigenvalue of the loss's Hessian along each block's parameters, by the Lanczos process on {} \
                     disjoint samples of {} training examples. Blocks of large Ω = |mean λ| + standard deviation get \
                     more bits where bits are mixed.",
                    run.recipe.curvature.samples, run.recipe.curvature.examples
                ))
                .chart(sensitivity(outcome)),
        )
        .section(training(outcome, &title));
    if let Some(gallery) = gallery {
        report = report.section(Section::new("What it was shown").gallery(gallery));
    }
    let details = Section::new("In full")
        .details("Result as JSON", serde_json::to_value(result)?)
        .details("Recipe", serde_json::to_value(run.recipe)?)
        .details("Every eigenvalue", serde_json::to_value(&outcome.curvature.measured)?);
    Ok(report.section(details).run(result.clone()))
}

fn interval(score: &Score) -> String {
    format!("95 % interval {:.1} to {:.1}", score.low, score.high)
}

fn change(points: f64, name: &str) -> String {
    if points.abs() < 0.05 {
        format!("keeps its {name}")
    } else if points < 0.0 {
        format!("loses {:.1} points", -points)
    } else {
        format!("gains {points:.1} points")
    }
}

/// How a reader calls a variant.
fn words(variant: &str) -> String {
    match qbert_name(variant) {
        Some(bits) => match bits.strip_suffix(" mixed") {
            Some(bits) => format!("mixed {bits} bits"),
            None => format!("{bits} bits"),
        },
        None => variant.to_owned(),
    }
}

/// The first cell of a variant's row in Q-BERT's table.
fn qbert_name(variant: &str) -> Option<&'static str> {
    Some(match variant {
        "w8" => "8",
        "w4" => "4",
        "w3" => "3",
        "w2" => "2",
        "mp24" => "2/4 mixed",
        "mp23" => "2/3 mixed",
        _ => return None,
    })
}

fn over_size(outcome: &Outcome, title: &str, accuracy: &dyn Fn(&str) -> f64, f32_accuracy: f64) -> ScatterChart {
    let cuts: &[Cut] = outcome.seeds.first().map_or(&[], |seed| &seed.cuts);
    let points = |method: &str| -> Vec<Point> {
        cuts.iter()
            .map(|cut| {
                let label = qbert_name(&cut.name).unwrap_or(&cut.name).replace(" mixed", "");
                Point::new(cut.size_mb_without_embeddings, accuracy(&format!("{}.{method}", cut.name)), label)
            })
            .collect()
    };
    let size = Axis::new("Size without embeddings").unit("MB").log();
    ScatterChart::new(format!("{title} over size"), size, Axis::new(title).unit("%"))
        .series(ScatterSeries::new("Q-BERT", points("qat")).joined())
        .series(ScatterSeries::new("rounded directly", points("direct")).joined())
        .reference("", f32_accuracy)
        .caption(format!("Bits beside each point. Dashed: f32, {f32_accuracy:.1} %."))
}

fn sensitivity(outcome: &Outcome) -> BarChart {
    let mixed = outcome
        .seeds
        .first()
        .and_then(|seed| seed.cuts.iter().find(|cut| cut.block_bits.windows(2).any(|pair| pair[0] != pair[1])));
    let mut chart = BarChart::new("Curvature by block", "Block", Axis::new("Top Hessian eigenvalue |λ|"))
        .caption("Mean and standard deviation over the samples.");
    chart.value_name = "|mean λ|".into();
    chart.error_name = "std λ".into();
    chart.mark_name = "Ω = |mean λ| + std λ".into();
    let high = mixed.and_then(|cut| cut.block_bits.iter().max().copied());
    if let (Some(cut), Some(high)) = (mixed, high) {
        chart.tag_name = "bits".into();
        let low = cut.block_bits.iter().min().copied().unwrap_or(high);
        chart.groups = vec![format!("{high} bits"), format!("{low} bits")];
    }
    outcome.curvature.layers.iter().fold(chart, |chart, layer| {
        let bar = Bar::new((layer.layer + 1).to_string(), layer.mean.abs()).error(layer.std).mark(layer.omega);
        match mixed.and_then(|cut| cut.block_bits.get(layer.layer)) {
            Some(&bits) => chart.bar(bar.tag(bits.to_string()).group(usize::from(Some(bits) != high))),
            None => chart.bar(bar),
        }
    })
}

fn training(outcome: &Outcome, title: &str) -> Section {
    let Some(seed) = outcome.seeds.first() else { return Section::new("Training") };
    let curves: Vec<(String, &[MetricsRow])> = std::iter::once(("f32".to_owned(), seed.finetuned.curve.as_slice()))
        .chain(seed.cuts.iter().map(|cut| (words(&cut.name), cut.curve.as_slice())))
        .collect();
    let series = |of: fn(&MetricsRow) -> Option<f64>, smooth: f64| {
        curves
            .iter()
            .map(|(name, rows)| {
                let points = rows.iter().filter_map(|row| Some((row.step as f64, of(row)?)));
                let series = Series::new(name, points);
                if smooth > 0.0 { series.smoothed(smooth) } else { series }
            })
            .collect::<Vec<_>>()
    };
    let line = |title: &str, y: Axis, lines: Vec<Series>| {
        Chart::from(lines.into_iter().fold(LineChart::new(title, Axis::new("Step"), y), LineChart::series))
    };
    let noise = series(|row| row.noise_scale, 0.0);
    let noise = noise.iter().any(|series| !series.points.is_empty()).then(|| {
        let lines = noise.into_iter().filter(|series| !series.points.is_empty()).collect();
        line("Noise scale of the gradient", Axis::new("Targets").log(), lines)
    });
    let section = Section::new("Training").charts(noise);
    section.charts([
        line("Training loss", Axis::new("Cross-entropy").unit("nats").from_zero(), series(|row| row.loss, 40.0)),
        line(&format!("{title} on the validation part"), Axis::new(title).unit("%"), series(|row| row.validation, 0.0)),
        line("Learning rate", Axis::new("Learning rate"), series(|row| row.rate, 0.0)),
        line("Norm of the gradient", Axis::new("Norm").log(), series(|row| row.gradient_norm, 40.0)),
    ])
}
