//! `lapidary generate`: text from a trained model, token after token or a whole canvas at once.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use clap::ValueEnum;
use lapidary_data::Tokenizer;
use lapidary_decode::parallel::{
    Acceptance, Canvas, Ending, Length, ParallelOptions, Rerank, Rest, Schedule, Stop, VerifiedOptions, Written,
    rerank, write_all, write_blocks, write_verified,
};
use lapidary_decode::{KvCache, PackedDecoder, Positions, SpeculativeOptions, generate, speculate};
use lapidary_kernels::choice::{Choice, choose};
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::checkpoint::{Checkpoint, Config};
use lapidary_models::decoder::DecoderConfig;
use lapidary_models::published;
use serde::Serialize;

use super::Options;
use crate::exit::Usage;
use crate::output;
use crate::recipe::{AcceptRule, LengthRule, ObjectiveName};
use crate::text::{Marks, OBJECTIVE, TASK, TaskForm};

/// Arguments of `lapidary generate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder of the model, such as runs/books/pretrain/parallel/model
    model: PathBuf,

    /// What the text begins with, or, for a model of a task, what it is written from
    #[arg(long, default_value = "")]
    prompt: String,

    /// How to write
    #[arg(long, value_enum, default_value = "autoregressive")]
    decode: Decode,

    /// Tokens to write: at most so many one by one, or just so many on a canvas [default: 64, or the canvas of the task]
    #[arg(long, value_name = "N")]
    tokens: Option<NonZeroUsize>,

    /// Passes over a canvas at most
    #[arg(long, value_name = "N", default_value = "8")]
    steps: NonZeroUsize,

    /// Temperature; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value = "0.7")]
    temperature: f32,

    /// Temperature of the last pass over a canvas [default: that of the first]
    #[arg(long, value_name = "T")]
    last_temperature: Option<f32>,

    /// Which places of a canvas take their token in a pass: all, share=0.3, surest=0.2, threshold=0.9, top=8, unsure=0.3,
    /// entropy=0.5, or verified: from the left, those that would be written token after token, and more where the passes
    /// would not be enough
    #[arg(long, value_name = "RULE", default_value = "surest=0.3")]
    accept: AcceptRule,

    /// Make noise of the other places of a canvas, instead of leaving them as they are
    #[arg(long)]
    renoise: bool,

    /// What decides where the text on a canvas ends [default: expected for a model of a task, else written]
    #[arg(long, value_enum)]
    length: Option<LengthRule>,

    /// Canvases one behind the other, each as long as --tokens says, until one ends the text
    #[arg(long, value_name = "N", default_value = "1")]
    blocks: NonZeroUsize,

    /// Canvases to write for the same prompt, of which the best is printed
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "blocks")]
    candidates: NonZeroUsize,

    /// Who says which candidate is best
    #[arg(long, value_enum, default_value = "itself")]
    rank_by: RankBy,

    /// Tokens to guess ahead in speculative decoding
    #[arg(long, value_name = "N", default_value = "3")]
    draft: NonZeroUsize,

    /// Of matrix products
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    precision: Precision,

    /// Show the canvas after each pass, on standard error
    #[arg(long)]
    show: bool,
}

impl Args {
    /// What has no meaning where a canvas is verified.
    fn check_verified(&self) -> Result<(), Usage> {
        for (name, given) in [
            ("show", self.show),
            ("renoise", self.renoise),
            ("length", self.length.is_some()),
            ("last-temperature", self.last_temperature.is_some()),
            ("blocks", self.blocks.get() > 1),
        ] {
            if given {
                return Err(Usage::new(format!("--accept verified settles text from the left: leave --{name} out")));
            }
        }
        Ok(())
    }
}

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Decode {
    /// Token after token
    Autoregressive,
    /// All tokens of a canvas at once, in a few passes
    Parallel,
    /// Token after token, the next few guessed on a canvas and verified: the same text in fewer passes
    Speculative,
}

/// What candidates are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RankBy {
    /// The pass that repairs
    Itself,
    /// The likelihood of the text, token after token
    Likelihood,
}

/// What is printed.
#[derive(Serialize)]
struct Generated {
    text: String,
    prompt_tokens: usize,
    tokens: usize,
    /// Through the model, the reading of the prompt not counted.
    passes: usize,
    tokens_per_pass: f64,
    tokens_per_second: f64,
    /// Of speculative decoding, the share of guessed tokens that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    guesses_held: Option<f64>,
}

impl fmt::Display for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)
    }
}

pub fn run(args: &Args, options: &Options, device: &Device) -> anyhow::Result<()> {
    if *device != Device::flex() {
        return Err(Usage::new("generate writes on the CPU; leave --device out").into());
    }
    for (name, temperature) in [("temperature", Some(args.temperature)), ("last-temperature", args.last_temperature)] {
        if temperature.is_some_and(|temperature| !(temperature.is_finite() && temperature >= 0.0)) {
            return Err(Usage::new(format!("--{name} should be 0 or a positive number")).into());
        }
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    let is_own = checkpoint.config().optional_str("model_type")? == Some(DecoderConfig::MODEL_TYPE);
    let objective = match is_own {
        true => checkpoint.config().optional_struct::<ObjectiveName>(OBJECTIVE)?,
        false => Some(ObjectiveName::Autoregressive),
    };
    let verified = args.decode == Decode::Parallel && args.accept == AcceptRule::Verified;
    if verified {
        args.check_verified()?;
    }
    let (repairs, writes) = (args.decode != Decode::Autoregressive, args.decode != Decode::Parallel || verified);
    if let Some(objective) = objective.filter(|it| (repairs && !it.repairs()) || (writes && !it.writes())) {
        let way = args.decode.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned());
        return Err(Usage::new(format!(
            "{}: this model was trained {}, and --decode {way} needs one that was trained {}",
            args.model.display(),
            objective.purpose(),
            match args.decode {
                Decode::Autoregressive => ObjectiveName::Autoregressive.purpose(),
                Decode::Parallel if !verified => ObjectiveName::Denoising.purpose(),
                Decode::Parallel | Decode::Speculative => ObjectiveName::Both.purpose(),
            }
        ))
        .into());
    }
    let task: Option<TaskForm> = checkpoint.config().optional_struct(TASK)?;
    let decoder = published::open(&checkpoint, device)?;
    let tokenizer = Tokenizer::load(&args.model)?;
    // Other people's models have rows to spare, or tokens for what they do not read.
    anyhow::ensure!(
        !is_own || tokenizer.vocab_size() == decoder.vocabulary(),
        "{}: the tokenizer has {} tokens, the model {}: they do not belong together",
        args.model.display(),
        tokenizer.vocab_size(),
        decoder.vocabulary()
    );
    let Asking { prompt, begins, ends, ending } = match is_own {
        true => Asking::own(args, task.as_ref(), &tokenizer)?,
        false => Asking::published(args, &checkpoint, &tokenizer)?,
    };
    let tokens = args.tokens.map_or_else(|| task.as_ref().map_or(TOKENS, |task| task.canvas), NonZeroUsize::get);
    let all = tokens.saturating_mul(args.blocks.get());
    if prompt.len().saturating_add(all) > decoder.longest() {
        return Err(Usage::new(format!(
            "a prompt of {} tokens and {all} more do not fit into the model's {} positions: shorten the prompt or lower \
             --tokens or --blocks",
            prompt.len(),
            decoder.longest()
        ))
        .into());
    }
    let packed = PackedDecoder::new(&decoder, args.precision)?;
    let seed = options.seed.unwrap_or(0);
    let writer = Writer { args, seed, packed, tokenizer, prompt, tokens, begins, ends, ending };
    let generated = match args.decode {
        Decode::Autoregressive => writer.one_by_one()?,
        Decode::Speculative => writer.speculative()?,
        Decode::Parallel => writer.canvas()?,
    };
    tracing::info!(
        "{} tokens in {} passes, {:.2} a pass, {:.0} a second",
        generated.tokens,
        generated.passes,
        generated.tokens_per_pass,
        generated.tokens_per_second
    );
    if let Some(held) = generated.guesses_held {
        tracing::info!("{:.0} % of the guesses held", 100.0 * held);
    }
    output::print(options.json, &generated, &generated)
}

/// Tokens to write if nobody says how many.
const TOKENS: usize = 64;

/// A model and what it is to write.
struct Writer<'a> {
    args: &'a Args,
    seed: u64,
    packed: PackedDecoder,
    tokenizer: Tokenizer,
    prompt: Vec<u32>,
    tokens: usize,
    begins: Begins<'a>,
    /// Tokens behind which there is no text.
    ends: Vec<u32>,
    /// Of canvases.
    ending: Ending,
}

/// What is printed before what is written.
enum Begins<'a> {
    /// Nothing: it is the text of a task.
    Nothing,
    /// The prompt as it was given.
    Prompt(&'a str),
    /// The prompt as the tokenizer gives it back, since the first token written may say whether there is a space before it.
    Tokens,
}

/// What a model is asked, and how it says that it is done.
struct Asking<'a> {
    prompt: Vec<u32>,
    begins: Begins<'a>,
    ends: Vec<u32>,
    ending: Ending,
}

impl<'a> Asking<'a> {
    /// A model that the product has trained.
    fn own(args: &'a Args, task: Option<&TaskForm>, tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let marks = Marks::of(tokenizer)?;
        let (prompt, begins) = match task {
            Some(task) => {
                let asked = marks.asked(&task.form.of(args.prompt.clone()), tokenizer, usize::MAX)?;
                (asked.prompt, Begins::Nothing)
            }
            None => (marks.begun(&args.prompt, tokenizer)?, Begins::Prompt(&args.prompt)),
        };
        let ending = Ending { end: marks.end, padding: marks.padding };
        Ok(Self { prompt, begins, ends: vec![marks.end, marks.padding], ending })
    }

    /// Somebody else's: its files name the tokens of beginning and end.
    fn published(args: &Args, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let path = args.model.join("generation_config.json");
        let generation = if path.exists() { Some(Config::read(&path)?) } else { None };
        let named = |key: &str| -> anyhow::Result<Vec<u32>> {
            for config in generation.iter().chain([checkpoint.config()]) {
                if let Some(ids) = config.optional_struct::<TokenIds>(key)? {
                    return Ok(ids.into());
                }
            }
            Ok(Vec::new())
        };
        let ends = named("eos_token_id")?;
        let mut prompt: Vec<u32> = named("bos_token_id")?.into_iter().take(1).collect();
        prompt.extend(tokenizer.encode_text(&args.prompt)?);
        anyhow::ensure!(!prompt.is_empty(), "this model names no token that a text begins with: give a --prompt");
        // Canvases are not for models that have not learned them.
        let end = ends.first().copied().unwrap_or(u32::MAX);
        Ok(Self { prompt, begins: Begins::Tokens, ends, ending: Ending { end, padding: end } })
    }
}

/// One token or several, as `transformers` writes them.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Several(Vec<u32>),
}

impl From<TokenIds> for Vec<u32> {
    fn from(ids: TokenIds) -> Self {
        match ids {
            TokenIds::One(id) => vec![id],
            TokenIds::Several(ids) => ids,
        }
    }
}

impl Writer<'_> {
    fn one_by_one(&self) -> anyhow::Result<Generated> {
        let begun = Instant::now();
        let mut cache = self.packed.cache(usize::MAX);
        let text = generate(&self.packed, &self.prompt, self.tokens, &mut cache, self.sampler())?;
        self.finished(&text, text.len(), begun)
    }

    fn speculative(&self) -> anyhow::Result<Generated> {
        let begun = Instant::now();
        let mut cache = self.packed.cache(usize::MAX);
        let draft = self.args.draft.get();
        let settings = SpeculativeOptions { draft, canvas: 2 * draft, seed: self.seed, passes: None };
        let text = speculate(&self.packed, &self.prompt, self.tokens, &mut cache, &settings, self.sampler())?;
        let generated = self.finished(&text.tokens, text.passes, begun)?;
        let held = (text.drafted > 0).then(|| text.held as f64 / text.drafted as f64);
        Ok(Generated { guesses_held: held, ..generated })
    }

    fn canvas(&self) -> anyhow::Result<Generated> {
        let (args, packed) = (self.args, &self.packed);
        let begun = Instant::now();
        let mut cache = packed.cache(usize::MAX);
        packed.read(&self.prompt, &mut cache, Positions::Last)?;
        let ends = |token: u32| self.ends(token);
        let (written, passes) = match args.candidates.get() {
            1 => {
                let blocks = self.blocks(&mut cache)?;
                let passes = blocks.iter().map(|block| block.passes).sum();
                (blocks.iter().flat_map(|block| &block.tokens).copied().collect::<Vec<u32>>(), passes)
            }
            candidates => {
                let mut caches = vec![cache; candidates];
                let written = self.several(&mut caches)?;
                // Each is read once more to be judged.
                let passes = written.iter().map(|written| written.passes + 1).sum();
                let by = match args.rank_by {
                    RankBy::Itself => Rerank::Own,
                    RankBy::Likelihood => Rerank::Autoregressive,
                };
                let before = vec![self.prompt[self.prompt.len() - 1]; candidates];
                let judged = rerank(packed, written, &before, &mut caches, by, ends)?;
                for (text, score) in judged.written.iter().zip(&judged.scores) {
                    tracing::info!("{score:.3} nats a token: {}", self.line(&text.tokens));
                }
                (judged.best().context("no candidates")?.tokens.clone(), passes)
            }
        };
        let length = written.iter().position(|token| ends(*token)).unwrap_or(written.len());
        self.finished(&written[..length], passes, begun)
    }

    /// Canvases one behind the other.
    fn blocks(&self, cache: &mut KvCache) -> anyhow::Result<Vec<Written>> {
        let watch = |_: usize, canvas: &Canvas| self.watch(canvas);
        Ok(match self.args.accept {
            AcceptRule::Canvas(acceptance) => {
                let (options, blocks) = (self.options(acceptance), self.args.blocks.get());
                write_blocks(&self.packed, cache, &options, blocks, |token| self.ends(token), watch)?
            }
            AcceptRule::Verified => vec![write_verified(&self.packed, cache, &self.verified(self.seed))?],
        })
    }

    /// A canvas for each cache.
    fn several(&self, caches: &mut [KvCache]) -> anyhow::Result<Vec<Written>> {
        let seeds: Vec<u64> = (0..caches.len() as u64).map(|it| self.seed.wrapping_add(it)).collect();
        let watch = |_: usize, canvas: &Canvas| self.watch(canvas);
        Ok(match self.args.accept {
            AcceptRule::Canvas(acceptance) => {
                write_all(&self.packed, caches, &self.options(acceptance), &seeds, watch)?
            }
            AcceptRule::Verified => {
                let write =
                    |(seed, cache): (&u64, &mut KvCache)| write_verified(&self.packed, cache, &self.verified(*seed));
                seeds.iter().zip(caches).map(write).collect::<Result<_, _>>()?
            }
        })
    }

    fn options(&self, acceptance: Acceptance) -> ParallelOptions {
        let args = self.args;
        let last = args.last_temperature.unwrap_or(args.temperature);
        ParallelOptions {
            canvas: self.tokens,
            schedule: Schedule { passes: args.steps.get(), first: args.temperature, last },
            acceptance,
            rest: if args.renoise { Rest::Noise } else { Rest::Keep },
            length: self.length(),
            stop: Stop::Stable,
            seed: self.seed,
        }
    }

    fn verified(&self, seed: u64) -> VerifiedOptions {
        let (passes, temperature) = (self.args.steps.get(), self.args.temperature);
        VerifiedOptions { canvas: self.tokens, passes, temperature, ending: self.ending, seed }
    }

    fn watch(&self, canvas: &Canvas) {
        if self.args.show {
            self.show(canvas);
        }
    }

    fn length(&self) -> Length {
        // Texts of a task have been seen to end.
        let rule = if matches!(self.begins, Begins::Nothing) { LengthRule::Expected } else { LengthRule::Written };
        self.args.length.unwrap_or(rule).of(self.ending)
    }

    fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Takes the likeliest token or draws one, until the text ends.
    fn sampler(&self) -> impl FnMut(&[f32]) -> Option<u32> {
        let (temperature, mut stream) = (self.args.temperature, Stream::new(self.seed, 0));
        move |logits| {
            let mut choice = [Choice { token: 0, log_probability: 0.0, entropy: 0.0 }];
            choose(logits, logits.len(), temperature, &[stream.uniform()], &mut choice);
            (!self.ends(choice[0].token)).then_some(choice[0].token)
        }
    }

    /// A pass, its canvas in one line.
    fn show(&self, canvas: &Canvas) {
        let line = self.line(canvas.tokens);
        let accepted = canvas.accepted.iter().filter(|accepted| **accepted).count();
        eprintln!("{:3}  {accepted:4} of {:<4} {line}", canvas.pass, canvas.tokens.len());
    }

    fn line(&self, tokens: &[u32]) -> String {
        let text = self.tokenizer.decode(tokens).unwrap_or_default();
        text.chars().map(|c| if c.is_control() { '␤' } else { c }).collect()
    }

    fn finished(&self, tokens: &[u32], passes: usize, begun: Instant) -> anyhow::Result<Generated> {
        let seconds = begun.elapsed().as_secs_f64();
        let text = |tokens: &[u32]| self.tokenizer.decode(tokens);
        Ok(Generated {
            text: match self.begins {
                Begins::Prompt(begins) => format!("{begins}{}", text(tokens)?),
                Begins::Tokens => text(&[&self.prompt, tokens].concat())?,
                // It begins with the space before its first word.
                Begins::Nothing => text(tokens)?.trim_start().to_owned(),
            },
            prompt_tokens: self.prompt.len(),
            tokens: tokens.len(),
            passes,
            tokens_per_pass: tokens.len() as f64 / passes.max(1) as f64,
            tokens_per_second: tokens.len() as f64 / seconds,
            guesses_held: None,
        })
    }
}
