//! What a result and a report say of a task: how good the texts of each model are, and how that depends on how they are
//! written.

use lapidary_eval::report::{Axis, Cell, Chart, Column, LineChart, Section, Series, Table};
use lapidary_eval::result::{Metrics, ResultError};

use super::scores::{Scores, Setting, Tried, Way};
use super::{Finetuned, Scored, TaskOutcome};
use crate::recipe::{FinetuneVariant, LengthRule, ObjectiveName, metric_key};

/// A number of a [`Scores`]: its key, its name, its decimals and itself.
type Score = (&'static str, &'static str, usize, fn(&Scores) -> f64);

/// How many of them, the first, say how good a text is; the others say what it is like and what it took.
const QUALITY: usize = 6;

/// Samples that the page shows.
const SHOWN: usize = 6;

const SCORES: [Score; 11] = [
    ("rouge_l", "ROUGE-L", 2, |scores| scores.rouge_l),
    ("rouge_1", "ROUGE-1", 2, |scores| scores.rouge_1),
    ("rouge_2", "ROUGE-2", 2, |scores| scores.rouge_2),
    ("bleu_4", "BLEU-4", 2, |scores| scores.bleu),
    ("meteor_exact_stem", "METEOR (exact, stem)", 2, |scores| scores.meteor),
    ("chrf", "chrF", 2, |scores| scores.chrf),
    ("distinct_2", "distinct-2", 3, |scores| scores.distinct_2),
    ("repeated", "Repeated words", 3, |scores| scores.repeated),
    ("words", "Words", 1, |scores| scores.words),
    ("passes", "Passes", 1, |scores| scores.passes),
    ("tokens_per_pass", "Tokens a pass", 2, |scores| scores.tokens_a_pass),
];

impl TaskOutcome {
    /// The model that others are compared with, and its scores: the first that only writes token after token.
    fn twin(&self) -> Option<(&str, &Scored)> {
        let is_twin =
            |(variant, ..): &&(FinetuneVariant, Finetuned, Scored)| variant.objective == ObjectiveName::Autoregressive;
        self.models.iter().find(is_twin).map(|(variant, _, scored)| (variant.name.as_str(), scored))
    }

    fn twin_on_test(&self) -> Option<&Scores> {
        let (_, twin) = self.twin()?;
        twin.test.iter().find(|(way, _)| *way == Way::Greedy).map(|(_, scores)| scores)
    }

    /// Adds what a result says of the task.
    pub fn insert(&self, metrics: &mut Metrics) -> Result<(), ResultError> {
        let task = metric_key(&self.name);
        if let Some((_, finetuned, scored)) = self.models.first() {
            let amounts = finetuned.amounts;
            for (what, count) in [
                ("train_pairs", amounts.train_pairs),
                ("kept_sources", amounts.kept_sources),
                ("test_sources", amounts.test_sources),
                ("unusable", amounts.unusable as usize),
                ("left_out_in_test", amounts.in_test),
                ("left_out_long_targets", amounts.long_targets),
                ("cut_sources", amounts.cut_sources),
            ] {
                metrics.insert(format!("{task}.data.{what}"), count as f64)?;
            }
            insert_scores(metrics, &format!("{task}.test.copied"), &scored.copied)?;
        }
        for (variant, finetuned, scored) in &self.models {
            let model = metric_key(&variant.name);
            metrics.insert(format!("{task}.steps.{model}"), finetuned.steps as f64)?;
            metrics.insert(format!("{task}.seconds.{model}"), finetuned.seconds)?;
            metrics.insert(format!("{task}.kept_loss.{model}"), finetuned.kept_loss)?;
            if let Some(taught) = finetuned.taught {
                metrics.insert(format!("{task}.taught.{model}.train_pairs"), taught.train_pairs as f64)?;
                metrics.insert(format!("{task}.taught.{model}.unfinished"), taught.unfinished as f64)?;
            }
            for (way, scores) in &scored.test {
                let way_key = way.key();
                insert_scores(metrics, &format!("{task}.test.{model}.{way_key}"), scores)?;
                let Some(twin) = self.twin_on_test().filter(|_| *way != Way::Greedy) else { continue };
                for (what, ours, theirs) in
                    [("rouge_l", scores.rouge_l, twin.rouge_l), ("bleu_4", scores.bleu, twin.bleu)]
                {
                    if theirs > 0.0 {
                        let name = format!("{task}.test.{model}.{way_key}.{what}_of_twin");
                        metrics.insert(name, ours / theirs)?;
                    }
                }
            }
            if let Some(chosen) = &scored.chosen {
                metrics.insert(format!("{task}.chosen.{model}.temperature"), f64::from(chosen.temperature))?;
            }
            for Tried { setting, scores } in &scored.curve {
                let passes = setting.passes;
                metrics.insert(format!("{task}.kept.{model}.passes_{passes}.rouge_l"), scores.rouge_l)?;
                metrics.insert(format!("{task}.kept.{model}.passes_{passes}.bleu_4"), scores.bleu)?;
            }
            if let Some(greedy) = &scored.kept_greedy {
                metrics.insert(format!("{task}.kept.{model}.greedy.rouge_l"), greedy.rouge_l)?;
                metrics.insert(format!("{task}.kept.{model}.greedy.bleu_4"), greedy.bleu)?;
            }
        }
        Ok(())
    }

    /// What was chosen and left out, for the notes of a result.
    pub fn notes(&self) -> Vec<String> {
        let chosen = self.models.iter().filter_map(|(variant, _, scored)| {
            let Setting { passes, temperature, accept, length } = scored.chosen.as_ref()?;
            Some(format!(
                "{}: canvases of {} are written in {passes} passes at most at temperature {temperature}, \
                 acceptance {accept}, length {length}, the best by ROUGE-L times BLEU-4 on sources kept from training.",
                self.name, variant.name
            ))
        });
        let taught = self.models.iter().filter_map(|(variant, finetuned, _)| {
            let (teacher, amounts) = (variant.teacher.as_ref()?, finetuned.taught?);
            let left_out = match amounts.unfinished {
                0 => String::new(),
                count => format!("; {count} that did not end were left out"),
            };
            Some(format!(
                "{}: {} learned what {teacher} writes for {} sources of the training part{left_out}.",
                self.name, variant.name, amounts.train_pairs
            ))
        });
        taught.chain(chosen).collect()
    }

    /// How good the texts of each model and way are, and the sources if they are copied.
    pub fn table(&self) -> Table {
        self.of_scores(&SCORES[..QUALITY]).caption(format!("{}: the test", self.name))
    }

    /// A row for each model and way.
    fn of_scores(&self, which: &[Score]) -> Table {
        let columns = [Column::text("Model"), Column::text("Written")];
        let names = which.iter().map(|(_, name, ..)| Column::number(*name));
        let row = |model: &str, way: &str, scores: &Scores| {
            let words = [Cell::from(model), Cell::from(way)];
            let numbers = which.iter().map(|(_, _, decimals, of)| Cell::number(of(scores), *decimals));
            words.into_iter().chain(numbers).collect::<Vec<_>>()
        };
        let mut table = Table::new(columns.into_iter().chain(names));
        for (variant, _, scored) in &self.models {
            for (way, scores) in &scored.test {
                table = table.row(row(&variant.name, way.title(), scores));
            }
        }
        if let Some((_, _, scored)) = self.models.first() {
            table = table.row(row("none", "the source, copied", &scored.copied));
        }
        table
    }

    /// The task's part of the page.
    pub fn section(&self) -> Section {
        let mut section = Section::new(format!("Task: {}", self.name));
        if let Some((_, finetuned, _)) = self.models.first() {
            let amounts = finetuned.amounts;
            section = section.paragraph(format!(
                "Trained on {} pairs, settings chosen on {} sources kept from training, reported on {} of the {} sources \
                 of the test. Left out of training: {} pairs whose source the test has too, {} whose target is longer than the \
                 canvas. {} sources lost their end, {} questions were unusable.",
                amounts.train_pairs,
                amounts.kept_sources,
                self.test_examples.min(amounts.test_sources),
                amounts.test_sources,
                amounts.in_test,
                amounts.long_targets,
                amounts.cut_sources,
                amounts.unusable
            ));
        }
        for note in self.notes() {
            section = section.paragraph(note);
        }
        let cost =
            self.of_scores(&SCORES[QUALITY..]).caption(format!("{}: what the texts are like and took", self.name));
        section.table(self.table()).table(cost).charts(self.charts()).table(self.samples())
    }

    fn charts(&self) -> Vec<Chart> {
        let mut charts = Vec::new();
        let of_models = |line: fn(&Scored) -> Vec<(f64, f64)>| {
            let series = self.models.iter().map(move |(variant, _, scored)| Series::new(&variant.name, line(scored)));
            series.filter(|series| !series.points.is_empty())
        };
        let twin = self.twin().and_then(|(name, scored)| Some((name, scored.kept_greedy.as_ref()?)));
        let mut over_passes = |title: &str, y: Axis, line, of_twin: fn(&Scores) -> f64| {
            let mut chart = LineChart::new(title, Axis::new("Passes").log(), y);
            if let Some((name, scores)) = twin {
                chart = chart.reference(format!("{name}, token after token"), of_twin(scores));
            }
            charts.push(Chart::from(of_models(line).fold(chart, LineChart::series)));
        };
        over_passes(
            "ROUGE-L over passes, kept part",
            Axis::new("ROUGE-L"),
            |scored| points(&scored.curve, |scores| scores.rouge_l),
            |scores| scores.rouge_l,
        );
        over_passes(
            "BLEU-4 over passes, kept part",
            Axis::new("BLEU-4"),
            |scored| points(&scored.curve, |scores| scores.bleu),
            |scores| scores.bleu,
        );
        for (variant, _, scored) in &self.models {
            if scored.tried.is_empty() {
                continue;
            }
            let mut chart = LineChart::new(
                format!("ROUGE-L over temperature, {}, kept part", variant.name),
                Axis::new("Temperature"),
                Axis::new("ROUGE-L"),
            );
            if let Some((name, scores)) = twin {
                chart = chart.reference(format!("{name}, token after token"), scores.rouge_l);
            }
            // What was chosen, and what differs from it in one of the two; all others would be too many lines to read.
            let near = |setting: &Setting| {
                let chosen = scored.chosen.as_ref();
                chosen.is_none_or(|it| it.accept == setting.accept || it.length == setting.length)
            };
            let mut rules: Vec<(&str, LengthRule)> = Vec::new();
            for Tried { setting, .. } in scored.tried.iter().filter(|tried| near(&tried.setting)) {
                let rule = (setting.accept.as_str(), setting.length);
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            for (accept, length) in rules {
                let is_of_rule = |setting: &Setting| setting.accept == accept && setting.length == length;
                let of_rule = scored.tried.iter().filter(|tried| is_of_rule(&tried.setting));
                let points = of_rule.map(|tried| (f64::from(tried.setting.temperature), tried.scores.rouge_l));
                chart = chart.series(Series::new(format!("{accept}, length {length}"), points));
            }
            charts.push(chart.into());
        }
        let curve = |title: &str, of: fn(&lapidary_train::MetricsRow) -> Option<f64>, smooth: f64| {
            let series = self.models.iter().map(|(variant, finetuned, _)| {
                let points = finetuned.curve.iter().filter_map(|row| Some((row.step as f64, of(row)?)));
                let series = Series::new(&variant.name, points);
                if smooth > 0.0 { series.smoothed(smooth) } else { series }
            });
            let chart = LineChart::new(title, Axis::new("Step"), Axis::new("Cross-entropy").unit("nats"));
            Chart::from(series.fold(chart, LineChart::series))
        };
        charts.push(curve("Training loss", |row| row.loss, 20.0));
        charts.push(curve("Loss on the kept part", |row| Some(-row.validation?), 0.0));
        charts
    }

    /// What was written for some sources.
    fn samples(&self) -> Table {
        let columns = ["Source", "Model", "Written", "Text"].map(Column::text);
        let mut table = Table::new(columns).caption(format!("{}: sources from all over the test", self.name));
        let samples = self.models.first().map_or(0, |(_, _, scored)| scored.samples.len());
        for number in 0..samples.min(SHOWN) {
            let mut line = |model: &str, way: &str, text: &str| {
                // What a source is written from may be long; its beginning says which it is.
                let text = match text.char_indices().nth(300) {
                    Some((end, _)) => format!("{} …", &text[..end]),
                    None => text.to_owned(),
                };
                let row = [(number + 1).to_string(), model.to_owned(), way.to_owned(), text];
                table = std::mem::take(&mut table).row(row);
            };
            for (index, (variant, _, scored)) in self.models.iter().enumerate() {
                let Some(sample) = scored.samples.get(number) else { continue };
                if index == 0 {
                    line("", "source", &sample.source);
                    line("", "reference", &sample.reference);
                }
                for ((way, _), text) in scored.test.iter().zip(&sample.written) {
                    line(&variant.name, way.title(), text);
                }
            }
        }
        table
    }
}

fn points(curve: &[Tried], of: fn(&Scores) -> f64) -> Vec<(f64, f64)> {
    curve.iter().map(|tried| (tried.setting.passes as f64, of(&tried.scores))).collect()
}

fn insert_scores(metrics: &mut Metrics, prefix: &str, scores: &Scores) -> Result<(), ResultError> {
    SCORES.iter().try_for_each(|(what, _, _, of)| metrics.insert(format!("{prefix}.{what}"), of(scores)))
}
