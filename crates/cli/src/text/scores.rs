//! A stage for each fine-tuned model: texts are written in every way that it can, and compared with those that would be
//! right. How canvases are written is chosen on the kept part; the test is written once.

use std::num::NonZeroUsize;
use std::time::Instant;

use lapidary_data::Tokenizer;
use lapidary_data::metric::text::{
    BleuOptions, ChrfOptions, MeteorOptions, RougeOptions, bleu, chrf, distinct, meteor_exact_stem, repetition, rouge,
    rows, words,
};
use lapidary_decode::parallel::Rerank;
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::finetune::TaskRun;
use super::task::Example;
use super::writer::{Text, Writer};
use crate::recipe::{AcceptRule, FinetuneVariant, LengthRule};
use crate::stage::Stage;

/// How good texts are, by the tools of the field.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// F1, 0-100.
    pub rouge_1: f64,
    pub rouge_2: f64,
    pub rouge_l: f64,
    /// BLEU-4, 0-100.
    pub bleu: f64,
    /// METEOR 1.5 with the modules exact and stem, 0-100.
    pub meteor: f64,
    /// 0-100.
    pub chrf: f64,
    /// Share of distinct pairs of words.
    pub distinct_2: f64,
    /// Share of words that equal the word before.
    pub repeated: f64,
    /// Words a text.
    pub words: f64,
    /// Through the model for a text, that over the prompt not counted.
    pub passes: f64,
    /// Tokens that a pass settles.
    pub tokens_a_pass: f64,
}

/// How texts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Token after token, the likeliest.
    Greedy,
    /// A canvas in some passes.
    Parallel,
    /// The best of several canvases, by the model that repairs.
    RankedByItself,
    /// The best of several canvases, by their likelihood token after token.
    RankedByLikelihood,
}

impl Way {
    /// For keys of results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Parallel => "parallel",
            Self::RankedByItself => "ranked_by_itself",
            Self::RankedByLikelihood => "ranked_by_likelihood",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Greedy => "token after token",
            Self::Parallel => "canvas",
            Self::RankedByItself => "best canvas, by itself",
            Self::RankedByLikelihood => "best canvas, by likelihood",
        }
    }
}

/// How canvases are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    pub passes: usize,
    pub temperature: f32,
    /// As `lapidary generate --accept` has it.
    pub accept: String,
    /// As `lapidary generate --length` has it.
    pub length: LengthRule,
}

/// A setting and what it came to on the kept part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tried {
    pub setting: Setting,
    pub scores: Scores,
}

/// A source, and what was made of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    pub source: String,
    pub reference: String,
    /// In the order of the ways on the test.
    pub written: Vec<String>,
}

/// All that is known of how a model writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// The kept part token after token, if the model can.
    pub kept_greedy: Option<Scores>,
    /// Rules, lengths and temperatures on the kept part, with the passes of the test.
    pub tried: Vec<Tried>,
    /// Of these the best by ROUGE-L times BLEU-4: the one is good for texts that are too short, the other not.
    pub chosen: Option<Setting>,
    /// The chosen one with other numbers of passes, on the kept part.
    pub curve: Vec<Tried>,
    /// The test.
    pub test: Vec<(Way, Scores)>,
    /// The test's sources themselves, as if they were what was written.
    pub copied: Scores,
    pub samples: Vec<Sample>,
    /// Seconds of all this.
    pub seconds: f64,
}

/// Samples that the report shows.
const SAMPLES: usize = 12;

/// Writes for the kept part and the test, or finds it done.
pub fn scores(run: &TextRun, task: &TaskRun, model: &Stage, variant: &FinetuneVariant) -> anyhow::Result<Scored> {
    let writing = &run.recipe.write;
    let inputs = task.inputs(serde_json::json!({ "write": writing, "seed": run.recipe.seed }))?;
    let stage = run.folder.stage(&format!("{}/scores", model.name()), &inputs.after(model))?;
    if let Some(done) = stage.done::<Scored>()? {
        tracing::info!("{}: done before", stage.name());
        return Ok(done);
    }
    stage.begin()?;

    let begun = Instant::now();
    let data = task.data(run.recipe.model.positions)?;
    let tokenizer = task.tokenizer()?;
    let judge = Judge { writer: Writer::open(run, model, data, stage.name())?, tokenizer, name: stage.name() };
    let kept = &data.kept[..data.kept.len().min(writing.examples)];
    let test = &data.test[..data.test.len().min(writing.test_examples.unwrap_or(usize::MAX))];
    let (repairs, writes) = (variant.objective.repairs(), variant.objective.writes());

    let mut done = Scored {
        kept_greedy: None,
        tried: Vec::new(),
        chosen: None,
        curve: Vec::new(),
        test: Vec::new(),
        copied: judge.copied(test)?,
        samples: samples(test),
        seconds: 0.0,
    };
    if writes {
        done.kept_greedy = Some(judge.scores(kept, &judge.writer.greedy(&prompts(kept), "kept part")?)?);
        let texts = judge.writer.greedy(&prompts(test), "test")?;
        judge.finish(&mut done, test, Way::Greedy, &texts)?;
    }
    if repairs {
        for rule in writing.rules() {
            // What is verified ends where writing token after token would end, and wants a model that does.
            let lengths: &[LengthRule] = match rule {
                AcceptRule::Canvas(_) => &writing.lengths,
                AcceptRule::Verified if writes => &[LengthRule::Written],
                AcceptRule::Verified => &[],
            };
            for (&length, &temperature) in
                lengths.iter().flat_map(|it| writing.temperatures.iter().map(move |t| (it, t)))
            {
                let accept = rule.to_string();
                let setting = Setting { passes: writing.test_passes, temperature, accept, length };
                done.tried.push(judge.try_out(setting, kept)?);
            }
        }
        let both = |tried: &Tried| tried.scores.rouge_l * tried.scores.bleu;
        let better = |a: usize, b: usize| if both(&done.tried[b]) > both(&done.tried[a]) { b } else { a };
        let best = (0..done.tried.len()).reduce(better).unwrap_or(0);
        let chosen = done.tried[best].setting.clone();
        for &passes in &writing.passes {
            done.curve.push(judge.try_out(Setting { passes, ..chosen.clone() }, kept)?);
        }
        let mut ways = vec![(Way::Parallel, 1, Rerank::Own), (Way::RankedByItself, writing.candidates, Rerank::Own)];
        if writes {
            ways.push((Way::RankedByLikelihood, writing.candidates, Rerank::Autoregressive));
        }
        for (way, candidates, by) in ways {
            let texts = judge.writer.canvases(&prompts(test), &chosen, candidates, by, way.title())?;
            judge.finish(&mut done, test, way, &texts)?;
        }
        done.chosen = Some(chosen);
    }
    done.seconds = begun.elapsed().as_secs_f64();
    stage.finish(&done)?;
    Ok(done)
}

/// Those of a test that the report shows, from all over it.
fn sampled<T>(test: &[T]) -> impl Iterator<Item = &T> {
    test.iter().step_by((test.len() / SAMPLES).max(1)).take(SAMPLES)
}

fn samples(test: &[Example]) -> Vec<Sample> {
    let sample = |example: &Example| Sample {
        source: example.source.clone(),
        reference: example.references.first().cloned().unwrap_or_default(),
        written: Vec::new(),
    };
    sampled(test).map(sample).collect()
}

/// Writes, and measures what is written.
struct Judge<'a> {
    writer: Writer<'a>,
    tokenizer: Tokenizer,
    name: &'a str,
}

fn prompts(examples: &[Example]) -> Vec<&[u32]> {
    examples.iter().map(|example| example.prompt.as_slice()).collect()
}

impl Judge<'_> {
    fn try_out(&self, setting: Setting, examples: &[Example]) -> anyhow::Result<Tried> {
        let Setting { passes, temperature, accept, length } = &setting;
        let what = format!("kept part, {passes} passes, temperature {temperature}, {accept}, length {length}");
        let scores =
            self.scores(examples, &self.writer.canvases(&prompts(examples), &setting, 1, Rerank::Own, &what)?)?;
        tracing::info!("{}: {what}: ROUGE-L {:.2}, BLEU {:.2}", self.name, scores.rouge_l, scores.bleu);
        Ok(Tried { setting, scores })
    }

    fn finish(&self, done: &mut Scored, test: &[Example], way: Way, texts: &[Text]) -> anyhow::Result<()> {
        let scores = self.scores(test, texts)?;
        tracing::info!("{}: test, {}: ROUGE-L {:.2}, BLEU {:.2}", self.name, way.title(), scores.rouge_l, scores.bleu);
        done.test.push((way, scores));
        for (sample, text) in done.samples.iter_mut().zip(sampled(texts)) {
            sample.written.push(self.read(text)?);
        }
        Ok(())
    }

    fn read(&self, text: &Text) -> anyhow::Result<String> {
        Ok(self.tokenizer.decode(&text.tokens)?.trim().to_owned())
    }

    fn scores(&self, examples: &[Example], texts: &[Text]) -> anyhow::Result<Scores> {
        let hypotheses: Vec<String> = texts.iter().map(|text| self.read(text)).collect::<Result<_, _>>()?;
        let n = texts.len().max(1) as f64;
        let passes = texts.iter().map(|text| text.passes).sum::<usize>() as f64;
        let tokens = texts.iter().map(|text| text.tokens.len()).sum::<usize>() as f64;
        measure(examples, &hypotheses, passes / n, tokens / passes.max(1.0))
    }

    /// Sources in the place of texts.
    fn copied(&self, examples: &[Example]) -> anyhow::Result<Scores> {
        let sources: Vec<String> = examples.iter().map(|example| example.source.clone()).collect();
        measure(examples, &sources, 0.0, 0.0)
    }
}

fn measure(examples: &[Example], hypotheses: &[String], passes: f64, tokens_a_pass: f64) -> anyhow::Result<Scores> {
    let references: Vec<Vec<&str>> =
        examples.iter().map(|example| example.references.iter().map(String::as_str).collect()).collect();
    let rows = rows(hypotheses, &references)?;
    let rouge = rouge(&rows, &RougeOptions::default())?;
    let of_words: Vec<Vec<&str>> = hypotheses.iter().map(|text| words(text).collect()).collect();
    const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("not 0");
    Ok(Scores {
        rouge_1: 100.0 * rouge.rouge1.f1,
        rouge_2: 100.0 * rouge.rouge2.f1,
        rouge_l: 100.0 * rouge.rouge_l.f1,
        bleu: bleu(&rows, &BleuOptions::default())?.score,
        meteor: 100.0 * meteor_exact_stem(&rows, &MeteorOptions::default())?.score,
        chrf: chrf(&rows, &ChrfOptions::default())?,
        distinct_2: distinct(&of_words, TWO)?.per_ngram(),
        repeated: repetition(&of_words, TWO)?.adjacent,
        words: of_words.iter().map(Vec::len).sum::<usize>() as f64 / hypotheses.len().max(1) as f64,
        passes,
        tokens_a_pass,
    })
}
