//! A stage for each fine-tuned model: texts are written in every way that it can, and compared with those that would be
//! right. How canvases are written is chosen on the kept part; the test is written once.

use std::num::NonZeroUsize;
use std::time::Instant;

use anyhow::ensure;
use burn::tensor::Device;
use lapidary_data::Tokenizer;
use lapidary_data::metric::text::{
    BleuOptions, ChrfOptions, MeteorOptions, RougeOptions, bleu, chrf, distinct, meteor_exact_stem, repetition, rouge,
    rows, words,
};
use lapidary_decode::parallel::{
    Acceptance, Ending, ParallelOptions, Rerank, Rest, Schedule, Stop, Written, rerank, write_all,
};
use lapidary_decode::{KvCache, PackedDecoder, Positions, generate_all, most_likely};
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_train::Progress;
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::finetune::TaskRun;
use super::task::{Example, TaskData};
use crate::recipe::{FinetuneVariant, LengthRule};
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

/// Prompts that are written for together.
const ROWS: usize = 16;

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
    // Writing has its kernels on the CPU, wherever the model was trained.
    let (decoder, _) = Decoder::open(&Checkpoint::open(&model.path().join("model"))?, &Device::flex())?;
    let packed = PackedDecoder::new(&decoder, run.recipe.finetune.precision)?;
    let writer = Writer { run, packed, tokenizer, data, name: stage.name() };
    let kept = &data.kept[..data.kept.len().min(writing.examples)];
    let test = &data.test[..data.test.len().min(writing.test_examples.unwrap_or(usize::MAX))];
    let (repairs, writes) = (variant.objective.repairs(), variant.objective.writes());

    let mut done = Scored {
        kept_greedy: None,
        tried: Vec::new(),
        chosen: None,
        curve: Vec::new(),
        test: Vec::new(),
        copied: writer.copied(test)?,
        samples: samples(test),
        seconds: 0.0,
    };
    if writes {
        done.kept_greedy = Some(writer.scores(kept, &writer.greedy(kept, "kept part")?)?);
        let texts = writer.greedy(test, "test")?;
        writer.finish(&mut done, test, Way::Greedy, &texts)?;
    }
    if repairs {
        for acceptance in writing.acceptances() {
            for (&length, &temperature) in
                writing.lengths.iter().flat_map(|it| writing.temperatures.iter().map(move |t| (it, t)))
            {
                let accept = acceptance.to_string();
                let setting = Setting { passes: writing.test_passes, temperature, accept, length };
                done.tried.push(writer.try_out(setting, kept)?);
            }
        }
        let both = |tried: &Tried| tried.scores.rouge_l * tried.scores.bleu;
        let better = |a: usize, b: usize| if both(&done.tried[b]) > both(&done.tried[a]) { b } else { a };
        let best = (0..done.tried.len()).reduce(better).unwrap_or(0);
        let chosen = done.tried[best].setting.clone();
        for &passes in &writing.passes {
            done.curve.push(writer.try_out(Setting { passes, ..chosen.clone() }, kept)?);
        }
        let mut ways = vec![(Way::Parallel, 1, Rerank::Own), (Way::RankedByItself, writing.candidates, Rerank::Own)];
        if writes {
            ways.push((Way::RankedByLikelihood, writing.candidates, Rerank::Autoregressive));
        }
        for (way, candidates, by) in ways {
            let texts = writer.canvases(test, &chosen, candidates, by, way.title())?;
            writer.finish(&mut done, test, way, &texts)?;
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

/// A text without the token that ends it, and the passes that it took.
struct Text {
    tokens: Vec<u32>,
    passes: usize,
}

struct Writer<'a> {
    run: &'a TextRun<'a>,
    packed: PackedDecoder,
    tokenizer: Tokenizer,
    data: &'a TaskData,
    name: &'a str,
}

impl Writer<'_> {
    /// The prompts, and empty caches with room for them and a canvas.
    fn prompts<'e>(&self, examples: &[&'e Example]) -> (Vec<&'e [u32]>, Vec<KvCache>) {
        let capacity = |example: &&Example| example.prompt.len() + self.data.layout.canvas;
        let caches = examples.iter().map(|example| self.packed.cache(capacity(example))).collect();
        (examples.iter().map(|example| example.prompt.as_slice()).collect(), caches)
    }

    fn chunks(
        &self,
        examples: &[Example],
        rows: usize,
        what: &str,
        mut write: impl FnMut(usize, &[&Example]) -> anyhow::Result<Vec<Text>>,
    ) -> anyhow::Result<Vec<Text>> {
        let mut progress = Progress::new(&format!("{}: {what}", self.name), examples.len() as u64, 0);
        let mut texts = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(rows) {
            ensure!(!self.run.interrupt.raised(), "stopped while writing; run the same command again to go on");
            let of_chunk: Vec<&Example> = chunk.iter().collect();
            texts.extend(write(texts.len(), &of_chunk)?);
            progress.set(texts.len() as u64, "texts");
        }
        progress.finish("");
        Ok(texts)
    }

    /// Token after token, the likeliest.
    fn greedy(&self, examples: &[Example], what: &str) -> anyhow::Result<Vec<Text>> {
        let end = self.data.end;
        self.chunks(examples, ROWS, &format!("{what} token after token"), |_, examples| {
            let (prompts, mut caches) = self.prompts(examples);
            let next = |_: usize, logits: &[f32]| most_likely(logits).filter(|token| *token != end);
            let texts = generate_all(&self.packed, &prompts, self.data.layout.canvas, &mut caches, next)?;
            // The end takes a pass too.
            let passes = |tokens: &Vec<u32>| (tokens.len() + 1).min(self.data.layout.canvas);
            Ok(texts.into_iter().map(|tokens| Text { passes: passes(&tokens), tokens }).collect())
        })
    }

    /// Canvases, the best of so many.
    fn canvases(
        &self,
        examples: &[Example],
        setting: &Setting,
        candidates: usize,
        by: Rerank,
        what: &str,
    ) -> anyhow::Result<Vec<Text>> {
        let ends = |token: u32| token == self.data.end || token == self.data.layout.pad;
        let acceptance: Acceptance = setting.accept.parse().map_err(anyhow::Error::msg)?;
        let options = ParallelOptions {
            canvas: self.data.layout.canvas,
            schedule: Schedule::constant(setting.passes, setting.temperature),
            acceptance,
            rest: Rest::Keep,
            length: setting.length.of(Ending { end: self.data.end, padding: self.data.layout.pad }),
            stop: Stop::Stable,
            seed: 0,
        };
        let text = |written: &Written| {
            let length = written.tokens.iter().position(|token| ends(*token)).unwrap_or(written.tokens.len());
            Text { tokens: written.tokens[..length].to_vec(), passes: written.passes }
        };
        self.chunks(examples, ROWS.div_ceil(candidates), what, |first, examples| {
            let (prompts, mut prompted) = self.prompts(examples);
            self.packed.read_all(&prompts, &mut prompted, Positions::Last)?;
            // All candidates of an example, then those of the next.
            let mut caches: Vec<KvCache> =
                prompted.into_iter().flat_map(|cache| std::iter::repeat_n(cache, candidates)).collect();
            let seed = |row: usize| self.run.recipe.seed.wrapping_add((first * candidates + row) as u64);
            let seeds: Vec<u64> = (0..caches.len()).map(seed).collect();
            let written = write_all(&self.packed, &mut caches, &options, &seeds, |_, _| ())?;
            if candidates == 1 {
                return Ok(written.iter().map(text).collect());
            }
            let mut texts = Vec::with_capacity(examples.len());
            for (row, example) in examples.iter().enumerate() {
                let of_example = row * candidates..(row + 1) * candidates;
                let last = example.prompt[example.prompt.len() - 1];
                let (written, caches) = (written[of_example.clone()].to_vec(), &mut caches[of_example]);
                let judged = rerank(&self.packed, written, &vec![last; candidates], caches, by, ends)?;
                // Each was written, and read once more.
                let passes: usize = judged.written.iter().map(|written| written.passes + 1).sum();
                texts.extend(judged.best().map(|best| Text { passes, ..text(best) }));
            }
            Ok(texts)
        })
    }

    fn try_out(&self, setting: Setting, examples: &[Example]) -> anyhow::Result<Tried> {
        let Setting { passes, temperature, accept, length } = &setting;
        let what = format!("kept part, {passes} passes, temperature {temperature}, {accept}, length {length}");
        let scores = self.scores(examples, &self.canvases(examples, &setting, 1, Rerank::Own, &what)?)?;
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
