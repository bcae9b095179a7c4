//! The last stage: `result.json` and `report.html`.

use std::path::PathBuf;

use lapidary_eval::report::{Axis, Cell, Chart, Column, KeyNumber, LineChart, Report, Section, Series, Table};
use lapidary_eval::result::{RunResult, RunSettings};
use lapidary_kernels::isa;

use super::corpus::Amount;
use super::{Pretrained, SpeculativeResult, TextOutcome, TextRun};
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
    /// The models, for the terminal.
    pub table: Table,
    /// Those of the tasks.
    pub tasks: Vec<Table>,
}

/// Writes `result.json` and `report.html` into the run's folder.
///
/// # Errors
/// A number that is not finite, a disk that is full.
pub fn write(run: &TextRun, outcome: &TextOutcome) -> anyhow::Result<Written> {
    let result = result(run, outcome)?;
    let table = table(outcome);
    let page = page(run, outcome, &result, table.clone())?;
    let (json, html) = (run.folder.path().join("result.json"), run.folder.path().join("report.html"));
    result.write(&json)?;
    page.write(&html)?;
    Ok(Written {
        result: json,
        report: html,
        run: result,
        table,
        tasks: outcome.tasks.iter().map(|task| task.table()).collect(),
    })
}

fn result(run: &TextRun, outcome: &TextOutcome) -> anyhow::Result<RunResult> {
    let settings = RunSettings {
        isa: isa::active().to_string(),
        device: device::name(run.device),
        threads: rayon::current_num_threads(),
        seed: run.recipe.seed,
    };
    let mut result = RunResult::new(&run.recipe.name, settings);
    for (part, Amount { documents, bytes, tokens }) in
        [("train", outcome.corpus.train), ("held_out", outcome.corpus.held_out)]
    {
        for (what, amount) in [("documents", documents as f64), ("bytes", bytes as f64), ("tokens", tokens as f64)] {
            result.metrics.insert(format!("text.{part}.{what}"), amount)?;
        }
    }
    for model in &outcome.models {
        let key = metric_key(&model.name);
        let mut put = |what: &str, value: f64| result.metrics.insert(format!("text.held_out.{what}.{key}"), value);
        if let Some(bits) = model.bits_a_byte {
            put("bits_per_byte", bits)?;
        }
        if let Some(perplexity) = model.perplexity {
            put("perplexity", perplexity)?;
        }
        if let Some(denoising) = model.denoising {
            put("denoising_nats_per_token", denoising)?;
        }
        if let Some(bound) = model.bits_a_byte_bound {
            put("bits_per_byte_bound", bound)?;
        }
        result.metrics.insert(format!("text.parameters.{key}"), model.parameters as f64)?;
        result.metrics.insert(format!("text.steps.{key}"), model.steps as f64)?;
        result.metrics.insert(format!("text.seconds.{key}"), model.seconds)?;
        if let Some(scale) = model.noise_scale {
            result.metrics.insert(format!("text.noise_scale.{key}"), scale)?;
            let windows = scale / run.recipe.model.positions as f64;
            result.notes.push(format!(
                "{}: at the end the gradient's noise weighs as much as itself in a batch of {scale:.0} tokens, {windows:.1} \
                 windows: much larger batches hardly pay.",
                model.name
            ));
        }
    }
    result.notes.extend(device::note(run.device));
    result.notes.push(format!(
        "Held out is every {}th document. Bits a byte are those of all of it, each token with a quarter of a window \
         before it at least; denoising is the training objective on 64 windows of it.",
        run.recipe.data.hold_out_every
    ));
    for (model, guessed) in &outcome.speculative {
        let key = metric_key(model);
        for (what, value) in [
            ("prompts", guessed.prompts as f64),
            ("equal_texts", guessed.equal as f64),
            ("draft", guessed.draft as f64),
            ("canvas", guessed.canvas as f64),
            ("guesses_held", guessed.held),
            ("tokens_per_pass", guessed.tokens as f64 / guessed.passes as f64),
            ("times_as_fast", guessed.seconds_one_by_one / guessed.seconds),
        ] {
            result.metrics.insert(format!("speculative.{key}.{what}"), value)?;
        }
    }
    for task in &outcome.tasks {
        task.insert(&mut result.metrics)?;
        result.notes.extend(task.notes());
    }
    let fine_tuned = || outcome.tasks.iter().flat_map(|task| &task.models);
    let seconds = outcome.models.iter().map(|model| model.seconds);
    result.finish(seconds.chain(fine_tuned().map(|(_, finetuned, scored)| finetuned.seconds + scored.seconds)).sum());
    let peaks = outcome.models.iter().map(|model| model.peak_rss_bytes);
    let peaks = peaks.chain(fine_tuned().map(|(_, finetuned, _)| finetuned.peak_rss_bytes));
    let peaks = peaks.chain([result.peak_rss_bytes]);
    result.peak_rss_bytes = peaks.max().unwrap_or_default();
    Ok(result)
}

fn table(outcome: &TextOutcome) -> Table {
    let columns = [
        Column::text("Model"),
        Column::number("Parameters"),
        Column::number("Steps"),
        Column::number("Bits a byte"),
        Column::number("Perplexity"),
        Column::number("Denoising, nats a token"),
        Column::number("Bits a byte by denoising, at most"),
        Column::number("Hours"),
    ];
    let row = |model: &Pretrained| {
        [
            Cell::from(model.name.as_str()),
            Cell::number(model.parameters as f64, 0),
            Cell::number(model.steps as f64, 0),
            Cell::optional(model.bits_a_byte, 3),
            Cell::optional(model.perplexity, 1),
            Cell::optional(model.denoising, 3),
            Cell::optional(model.bits_a_byte_bound, 3),
            Cell::number(model.seconds / 3600.0, 2),
        ]
    };
    outcome.models.iter().fold(Table::new(columns), |table, model| table.row(row(model))).without_empty_columns()
}

/// Texts token after token and guessed ahead.
fn speculative_table(guessed: &[(String, SpeculativeResult)]) -> Table {
    let columns = [
        Column::text("Model"),
        Column::number("Prompts"),
        Column::number("Equal texts"),
        Column::number("Tokens a draft"),
        Column::number("Guesses that held (%)"),
        Column::number("Tokens a pass"),
        Column::number("Times as fast"),
    ];
    let table = Table::new(columns).caption("Speculative decoding against token after token, batch 1, in turn");
    guessed.iter().fold(table, |table, (model, guessed)| {
        table.row([
            Cell::from(model.as_str()),
            Cell::number(guessed.prompts as f64, 0),
            Cell::number(guessed.equal as f64, 0),
            Cell::number(guessed.draft as f64, 0),
            Cell::number(100.0 * guessed.held, 0),
            Cell::number(guessed.tokens as f64 / guessed.passes as f64, 2),
            Cell::number(guessed.seconds_one_by_one / guessed.seconds, 2),
        ])
    })
}

fn page(run: &TextRun, outcome: &TextOutcome, result: &RunResult, table: Table) -> anyhow::Result<Report> {
    let recipe = run.recipe;
    let title = if recipe.description.is_empty() { &recipe.name } else { &recipe.description };
    let Amount { documents, bytes, tokens } = outcome.corpus.train;
    let finding = format!(
        "{} on {:.1} MB of text in {documents} documents, {:.1} million tokens of a vocabulary of {}.",
        match outcome.models.len() {
            1 => "One model".to_owned(),
            n => format!("{n} models"),
        },
        bytes as f64 / 1e6,
        tokens as f64 / 1e6,
        outcome.corpus.vocabulary
    );
    let mut report = Report::new(title, finding);
    for model in &outcome.models {
        if let Some(bits) = model.bits_a_byte {
            let number = KeyNumber::new(format!("{bits:.3}"), "bits a byte", model.name.as_str());
            report = report.key_number(number.note("of the held-out text, token after token"));
        }
        if let Some(denoising) = model.denoising {
            let number = KeyNumber::new(format!("{denoising:.2}"), "nats a token", model.name.as_str());
            report = report.key_number(number.note("the loss of denoising on the held-out text"));
        }
    }
    let line = |title: &str, y: Axis, of: fn(&lapidary_train::MetricsRow) -> Option<f64>, smooth: f64| {
        let series = outcome.models.iter().map(|model| {
            let points = model.curve.iter().filter_map(|row| Some((row.step as f64, of(row)?)));
            let series = Series::new(&model.name, points);
            if smooth > 0.0 { series.smoothed(smooth) } else { series }
        });
        Chart::from(series.fold(LineChart::new(title, Axis::new("Step"), y), LineChart::series))
    };
    let curves = Section::new("Pretraining").charts([
        line("Training loss", Axis::new("Cross-entropy").unit("nats"), |row| row.loss, 40.0),
        line(
            "Loss on other windows of the training text",
            Axis::new("Cross-entropy").unit("nats"),
            |row| Some(-row.validation?),
            0.0,
        ),
        line("Norm of the gradient", Axis::new("Norm").log(), |row| row.gradient_norm, 40.0),
        line("Learning rate", Axis::new("Learning rate"), |row| row.rate, 0.0),
    ]);
    let curves = match outcome.models.iter().any(|model| model.noise_scale.is_some()) {
        true => curves.chart(line("Noise scale", Axis::new("Tokens").log(), |row| row.noise_scale, 0.0)),
        false => curves,
    };
    let models = Section::new("Models")
        .paragraph(
            "The loss of denoising is a mean over all rates of corruption and, like the loss of the next token, in nats \
             a token; the two are of different questions and cannot be compared. What can is the bound on the bits a byte \
             that follows from denoising, an estimate from one corruption of each canvas of the held-out text.",
        )
        .table(table);
    let models = match outcome.speculative.as_slice() {
        [] => models,
        guessed => models.table(speculative_table(guessed)),
    };
    let details = Section::new("In full")
        .details("Result as JSON", serde_json::to_value(result)?)
        .details("Recipe", serde_json::to_value(recipe)?);
    let tasks = outcome.tasks.iter().map(|task| task.section());
    let report = tasks.fold(report.section(models), Report::section);
    Ok(report.section(curves).section(details).run(result.clone()))
}
