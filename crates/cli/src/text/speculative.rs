//! A stage for each model that both repairs and writes, pretrained or fine-tuned: the same texts token after token and
//! guessed ahead, timed in turn.

use std::time::Instant;

use anyhow::ensure;
use burn::tensor::Device;
use lapidary_data::TokenStore;
use lapidary_decode::{PackedDecoder, SpeculativeOptions, generate, most_likely, speculate};
use lapidary_kernels::precision::Precision;
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_train::Progress;
use serde::{Deserialize, Serialize};

use super::TextRun;
use super::finetune::TaskRun;
use super::task::Example;
use crate::recipe::PretrainVariant;
use crate::stage::{Inputs, Stage};

/// What guessing ahead is worth.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeculativeResult {
    /// Prompts of the held-out text.
    pub prompts: usize,
    /// Of these, those whose text was the same, token by token.
    pub equal: usize,
    /// Tokens of a draft, chosen on the training text by time.
    pub draft: usize,
    /// Places of the canvas that it is taken from, chosen so too.
    #[serde(default)]
    pub canvas: usize,
    /// Tokens that were written in all.
    pub tokens: usize,
    /// Passes that guessing took for them.
    pub passes: usize,
    /// The share of guessed tokens that held.
    pub held: f64,
    /// Of all texts token after token.
    pub seconds_one_by_one: f64,
    /// Of all texts by guessing.
    pub seconds: f64,
}

impl SpeculativeResult {
    /// For logs.
    fn summary(&self) -> String {
        format!(
            "{:.2} times as fast with drafts of {} from {} places, {:.2} tokens a pass, {:.0} % of the guesses held",
            self.seconds_one_by_one / self.seconds,
            self.draft,
            self.canvas,
            self.tokens as f64 / self.passes as f64,
            100.0 * self.held
        )
    }
}

/// Prompts that are measured.
const PROMPTS: usize = 200;
/// Prompts that drafts are tried on, of the training text or the kept part.
const TRIALS: usize = 20;

/// On running text: tokens of a prompt, and tokens that are written.
const PROMPT: usize = 32;
const TOKENS: usize = 64;
/// Drafts that are tried.
const DRAFTS: [usize; 5] = [1, 2, 3, 4, 6];
/// Places of the canvas that drafts are taken from, at least those of the draft and as many more. A model tells from all of
/// a canvas how much of it is noise, so that a longer one may be read better, and costs more.
const CANVASES: [usize; 3] = [2, 8, 16];

/// The same on a task, whose texts a model foresees further.
const TASK_DRAFTS: [usize; 4] = [2, 4, 6, 10];
const TASK_CANVASES: [usize; 2] = [2, 16];

/// Measures a pretrained variant, or finds it measured. `None`: its positions are too few.
pub fn speculative(
    run: &TextRun,
    corpus: &Stage,
    model: &Stage,
    variant: &PretrainVariant,
) -> anyhow::Result<Option<SpeculativeResult>> {
    let settings = serde_json::json!({ "prompts": PROMPTS, "prompt": PROMPT, "tokens": TOKENS, "drafts": DRAFTS, "canvases": CANVASES });
    let stage = run.folder.stage(&format!("speculative/{}", variant.name), &Inputs::new(&settings)?.after(model))?;
    if let Some(done) = stage.done::<Option<SpeculativeResult>>()? {
        return Ok(done);
    }
    stage.begin()?;
    let done = match run.recipe.model.positions < PROMPT + TOKENS {
        true => None,
        false => {
            let train = TokenStore::open(&corpus.path().join("train"))?;
            let held_out = TokenStore::open(&corpus.path().join("held_out"))?;
            let texts = Texts { tokens: TOKENS, end: None };
            let [trials, prompts] = [prompts(&train, TRIALS)?, prompts(&held_out, PROMPTS)?];
            let precision = run.recipe.pretrain.precision;
            Some(measure(run, model, precision, &texts, (&trials, &prompts), (&DRAFTS, &CANVASES))?)
        }
    };
    stage.finish(&done)?;
    Ok(done)
}

/// Measures a model that was fine-tuned on a task, on prompts of its test, or finds it measured.
pub fn speculative_on_task(run: &TextRun, task: &TaskRun, model: &Stage) -> anyhow::Result<SpeculativeResult> {
    let settings = serde_json::json!({ "prompts": PROMPTS, "drafts": TASK_DRAFTS, "canvases": TASK_CANVASES });
    let stage = run.folder.stage(&format!("{}/speculative", model.name()), &task.inputs(settings)?.after(model))?;
    if let Some(done) = stage.done::<SpeculativeResult>()? {
        return Ok(done);
    }
    stage.begin()?;
    let data = task.data(run.recipe.model.positions)?;
    let texts = Texts { tokens: data.layout.canvas, end: Some(data.end) };
    let some = |examples: &[Example], count: usize| -> Vec<Vec<u32>> {
        let step = (examples.len() / count).max(1);
        examples.iter().step_by(step).take(count).map(|example| example.prompt.clone()).collect()
    };
    let (trials, prompts) = (some(&data.kept, TRIALS), some(&data.test, PROMPTS));
    let precision = run.recipe.finetune.precision;
    let done = measure(run, model, precision, &texts, (&trials, &prompts), (&TASK_DRAFTS, &TASK_CANVASES))?;
    stage.finish(&done)?;
    Ok(done)
}

/// How long texts are.
struct Texts {
    /// At most.
    tokens: usize,
    /// The token that ends one, if any does.
    end: Option<u32>,
}

impl Texts {
    /// The likeliest token, unless it ends the text.
    fn next(&self, logits: &[f32]) -> Option<u32> {
        most_likely(logits).filter(|token| Some(*token) != self.end)
    }
}

/// Chooses draft and canvas on the trials, and measures them on the prompts.
fn measure(
    run: &TextRun,
    model: &Stage,
    precision: Precision,
    texts: &Texts,
    (trials, prompts): (&[Vec<u32>], &[Vec<u32>]),
    (drafts, canvases): (&[usize], &[usize]),
) -> anyhow::Result<SpeculativeResult> {
    let (decoder, _) = Decoder::open(&Checkpoint::open(&model.path().join("model"))?, &Device::flex())?;
    let packed = PackedDecoder::new(&decoder, precision)?;
    let mut best: Option<SpeculativeResult> = None;
    for &draft in drafts {
        let mut canvases: Vec<usize> = canvases.iter().map(|canvas| (*canvas).max(2 * draft)).collect();
        canvases.dedup();
        for canvas in canvases {
            let tried = compare(run, &packed, trials, texts, (draft, canvas), "trial")?;
            tracing::info!("trial: {}", tried.summary());
            if best.as_ref().is_none_or(|best| tried.seconds < best.seconds) {
                best = Some(tried);
            }
        }
    }
    let best = best.map_or((1, 2), |best| (best.draft, best.canvas));
    let done = compare(run, &packed, prompts, texts, best, "speculative decoding")?;
    tracing::info!("{} of {} texts equal; {}", done.equal, done.prompts, done.summary());
    Ok(done)
}

/// Prompts from all over a text, as many as there are up to a number.
fn prompts(store: &TokenStore, count: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    let step = (store.tokens() / count as u64).max(PROMPT as u64);
    let starts = (0..store.tokens().saturating_sub(PROMPT as u64)).step_by(step as usize).take(count);
    Ok(starts.map(|start| store.read(start..start + PROMPT as u64)).collect::<Result<_, _>>()?)
}

fn compare(
    run: &TextRun,
    packed: &PackedDecoder,
    prompts: &[Vec<u32>],
    texts: &Texts,
    (draft, canvas): (usize, usize),
    what: &str,
) -> anyhow::Result<SpeculativeResult> {
    let options = SpeculativeOptions { draft, canvas, seed: run.recipe.seed, passes: None };
    let mut done = SpeculativeResult {
        prompts: prompts.len(),
        equal: 0,
        draft,
        canvas,
        tokens: 0,
        passes: 0,
        held: 0.0,
        seconds_one_by_one: 0.0,
        seconds: 0.0,
    };
    let (mut held, mut drafted) = (0, 0);
    let mut progress =
        Progress::new(&format!("{what}, drafts of {draft} from {canvas} places"), prompts.len() as u64, 0);
    for (number, prompt) in prompts.iter().enumerate() {
        ensure!(!run.interrupt.raised(), "stopped while writing; run the same command again to go on");
        let begun = Instant::now();
        let cache = || packed.cache(prompt.len() + texts.tokens);
        let plain = generate(packed, prompt, texts.tokens, &mut cache(), |logits| texts.next(logits))?;
        let between = Instant::now();
        let fast = speculate(packed, prompt, texts.tokens, &mut cache(), &options, |logits| texts.next(logits))?;
        done.seconds_one_by_one += (between - begun).as_secs_f64();
        done.seconds += between.elapsed().as_secs_f64();
        done.equal += usize::from(fast.tokens == plain);
        done.tokens += fast.tokens.len();
        done.passes += fast.passes;
        held += fast.held;
        drafted += fast.drafted;
        progress.set(number as u64 + 1, "texts");
    }
    progress.finish("");
    done.held = held as f64 / drafted.max(1) as f64;
    Ok(done)
}
