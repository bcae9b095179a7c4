//! The tables of a recipe for text, from a result's metrics: how well its models know the held-out text, and how well
//! they write.

use super::table::{Cell, Column, Table};
use crate::result::RunResult;

/// How a text can have been written: its key, and its name for a reader.
const WAYS: [(&str, &str); 4] = [
    ("greedy", "token after token"),
    ("parallel", "canvas"),
    ("ranked_by_itself", "best canvas, by itself"),
    ("ranked_by_likelihood", "best canvas, by likelihood"),
];

/// Whether a result is of such a recipe.
pub fn is_text(run: &RunResult) -> bool {
    run.metrics.get("text.held_out.bytes").is_some()
}

/// Of those that have rows: the pretrained models, guessing ahead, and the tasks.
pub fn tables(run: &RunResult) -> Vec<Table> {
    let (models, guesses, tasks) = (models(run), guesses(run), tasks(run));
    [models, guesses, tasks].into_iter().filter(|table| !table.is_empty()).map(Table::without_empty_columns).collect()
}

/// The rest of each name behind a prefix, with its value.
fn behind<'a>(run: &'a RunResult, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    run.metrics.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
}

/// A row for each pretrained model.
fn models(run: &RunResult) -> Table {
    let numbers =
        ["Parameters (M)", "Steps", "Hours", "Bits a byte", "Perplexity", "Bits a byte at most, by denoising"];
    let columns = [Column::text("Model")].into_iter().chain(numbers.map(Column::number));
    behind(run, "text.parameters.").fold(Table::new(columns), |table, (model, parameters)| {
        let get = |name: &str| run.metrics.get(&format!("text.{name}.{model}"));
        table.row([
            Cell::from(model.to_owned()),
            Cell::number(parameters / 1e6, 1),
            Cell::optional(get("steps"), 0),
            Cell::optional(get("seconds").map(|seconds| seconds / 3600.0), 2),
            Cell::optional(get("held_out.bits_per_byte"), 3),
            Cell::optional(get("held_out.perplexity"), 1),
            Cell::optional(get("held_out.bits_per_byte_bound"), 3),
        ])
    })
}

/// A row for each model that guesses ahead of itself.
fn guesses(run: &RunResult) -> Table {
    let numbers = ["Prompts", "Equal texts", "Guesses that held (%)", "Tokens a pass", "Times as fast"];
    let columns = [Column::text("Model, guessing ahead")].into_iter().chain(numbers.map(Column::number));
    behind(run, "speculative.").fold(Table::new(columns), |table, (name, prompts)| {
        let Some(model) = name.strip_suffix(".prompts") else { return table };
        let get = |name: &str| run.metrics.get(&format!("speculative.{model}.{name}"));
        table.row([
            Cell::from(model.to_owned()),
            Cell::number(prompts, 0),
            Cell::optional(get("equal_texts"), 0),
            Cell::optional(get("guesses_held").map(|share| 100.0 * share), 1),
            Cell::optional(get("tokens_per_pass"), 2),
            Cell::optional(get("times_as_fast"), 2),
        ])
    })
}

/// A row for each task, model and way to write; first of a task, its sources as if they were what was written.
fn tasks(run: &RunResult) -> Table {
    let numbers = ["ROUGE-L", "BLEU-4", "Words", "Passes", "ROUGE-L", "BLEU-4"];
    let groups = ["", "", "", "", "of the twin's (%)", "of the twin's (%)"];
    let columns = ["Task", "Model", "Written"].map(Column::text).into_iter();
    let columns =
        columns.chain(numbers.into_iter().zip(groups).map(|(number, group)| Column::number(number).group(group)));
    run.metrics.iter().fold(Table::new(columns), |table, (name, rouge_l)| {
        let Some((task, of_task)) = name.strip_suffix(".rouge_l").and_then(|name| name.split_once(".test.")) else {
            return table;
        };
        let (model, way) = match of_task.split_once('.') {
            None => (of_task, "the source itself"),
            Some((model, way)) => (model, WAYS.iter().find(|(key, _)| *key == way).map_or(way, |(_, title)| title)),
        };
        let get = |name: &str| run.metrics.get(&format!("{task}.test.{of_task}.{name}"));
        let percent = |name: &str| Cell::optional(get(name).map(|share| 100.0 * share), 0);
        table.row([
            Cell::from(task.to_owned()),
            Cell::from(if model == "copied" { "–" } else { model }.to_owned()),
            Cell::from(way.to_owned()),
            Cell::number(rouge_l, 2),
            Cell::optional(get("bleu_4"), 2),
            Cell::optional(get("words"), 1),
            Cell::optional(get("passes"), 1),
            percent("rouge_l_of_twin"),
            percent("bleu_4_of_twin"),
        ])
    })
}
