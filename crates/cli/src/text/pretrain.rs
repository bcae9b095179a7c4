//! A stage for each model: trained on windows of the text, then measured on what was held out.

use std::num::NonZeroUsize;

use anyhow::Context;
use burn::module::Module;
use lapidary_data::{TokenStore, Tokenizer};
use lapidary_models::Pass;
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_models::objective::{TextBatch, TextObjective};
use lapidary_train::{
    AdamWOptions, MetricsRow, Progress, Schedule, TrainOptions, Training, WindowBatches, train_among,
};
use serde::{Deserialize, Serialize};

use super::likelihood::{self, Own};
use super::{TextRun, model, shared};
use crate::recipe::PretrainVariant;
use crate::stage::{Inputs, Stage};
use crate::together;

/// What a training gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pretrained {
    /// What results call it.
    pub name: String,
    /// Of the model.
    pub parameters: u64,
    /// On the held-out text, token after token: `None` for a model that does not write so.
    pub bits_a_byte: Option<f64>,
    /// The same as `exp` of the mean loss a token.
    pub perplexity: Option<f64>,
    /// On the held-out text, the loss of denoising in nats a token: `None` for a model that does not repair.
    pub denoising: Option<f64>,
    /// A bound on its bits a byte there: `None` for a model that does not repair.
    pub bits_a_byte_bound: Option<f64>,
    /// Steps of training.
    pub steps: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// The most memory that the process had held by then.
    pub peak_rss_bytes: u64,
    /// The noise scale of the gradient at the end, in tokens, if it was measured.
    #[serde(default)]
    pub noise_scale: Option<f64>,
    /// The curve, for the report.
    pub curve: Vec<MetricsRow>,
}

/// Windows of the training text that the curve's looks are at, and of the held-out text that denoising is measured on.
const WINDOWS: usize = 64;

/// Trains a variant, or finds it trained. The folder has the checkpoint `model`.
///
/// `from` is the stage of the variant that it goes on from, if there is one.
pub fn pretrain(
    run: &TextRun,
    corpus: &Stage,
    from: Option<&Stage>,
    variant: &PretrainVariant,
) -> anyhow::Result<(Stage, Pretrained)> {
    let (recipe, settings) = (run.recipe, &run.recipe.pretrain);
    let parts = together::parts(run.ranks, "pretrain", settings.batch_size, settings.accumulate)?;
    let mut shared = shared(settings)?;
    if let Some(fields) = shared.as_object_mut().filter(|_| parts > 1) {
        // How many ranks there were is nothing to a training, but for the parts of its steps.
        fields.insert("accumulate".into(), parts.into());
    }
    let inputs = Inputs::new(&serde_json::json!({
        "model": recipe.model,
        "pretrain": shared,
        "variant": variant,
        "seed": recipe.seed,
    }))?;
    let inputs = from.into_iter().fold(inputs.on(run.device).after(corpus), Inputs::after);
    let stage = run.folder.stage(&format!("pretrain/{}", variant.name), &inputs)?;
    if let Some(done) = together::begin::<Pretrained>(run.ranks, &stage)? {
        tracing::info!("{}: done before", stage.name());
        return Ok((stage, done));
    }

    let tokenizer = Tokenizer::load(corpus.path())?;
    let store = TokenStore::open(&corpus.path().join("train"))?;
    let held_out = TokenStore::open(&corpus.path().join("held_out"))?;
    for store in [&store, &held_out] {
        store.check_tokenizer(&tokenizer)?;
    }
    let config = model::config(&recipe.model, tokenizer.vocab_size());
    let denoising = model::denoising(&variant.unroll, &config);
    // Of windows of running text all tokens count.
    let objective = model::objective(variant.objective, true, &denoising);
    let (repairs, writes) = (variant.objective.repairs(), variant.objective.writes());

    let length = NonZeroUsize::new(config.positions).context("model.positions is 0")?;
    let rows = NonZeroUsize::new(settings.batch_size / parts).context("pretrain.batch_size is 0")?;
    // What goes on from another sees other windows than it.
    let seed = recipe.seed.wrapping_add(before(&settings.variants, variant) << 32);
    let batches = WindowBatches::new(&store, length, rows, repairs, seed)?
        .recalling(settings.recall)
        .in_pieces(variant.pieces, &objective);
    let options = TrainOptions {
        name: variant.name.clone(),
        schedule: Schedule::new(settings.learning_rate, settings.warmup, variant.steps as u64),
        optimizer: settings
            .optimizer
            .unwrap_or_else(|| AdamWOptions { weight_decay: settings.weight_decay, ..AdamWOptions::default() }.into()),
        accumulate: parts as u64,
        clip: settings.clip,
        precision: settings.precision,
        dropout: 0.0,
        seed: recipe.seed,
        evaluate_every: settings.evaluate_every as u64,
        save_every: settings.evaluate_every as u64,
        keep: 1,
        noise_scale: settings.noise_scale,
        sync_batch_norm: false,
    };
    // Of the training text: the held-out one is for the end. Another seed than training's.
    let look = looks(&store, length, recipe.seed.wrapping_add(1))?;
    let device = run.device.clone().autodiff();
    let fresh = match from {
        Some(stage) => Decoder::open(&Checkpoint::open(&stage.path().join("model"))?, &device)?.0,
        None => Decoder::new(&config, recipe.seed, &device),
    };
    let trained = train_among(
        fresh,
        &Training { objective: &objective, source: &batches, options: &options, ranks: run.ranks },
        &mut |model: &Decoder| Ok(-model::mean_loss(&model.valid(), &objective, &look)?),
        &stage.path().join("training"),
        run.interrupt,
    )?;
    let done = together::finish(run.ranks, &stage, || {
        let model = trained.model.valid();
        let (steps, purpose) = (variant.steps, variant.objective.purpose());
        let saved = model::Saved {
            config: &config,
            objective: variant.objective,
            task: None,
            tokenizer: &tokenizer,
            card: format!("# {} {}\n\nTrained for {steps} steps {purpose}.\n", recipe.name, variant.name),
        };
        model::save(&model, &saved, &stage.path().join("model"))?;

        let mut done = Pretrained {
            name: variant.name.clone(),
            parameters: config.parameters() as u64,
            bits_a_byte: None,
            perplexity: None,
            denoising: None,
            bits_a_byte_bound: None,
            steps: variant.steps as u64,
            seconds: trained.seconds,
            peak_rss_bytes: lapidary_eval::machine::peak_rss_bytes().unwrap_or_default(),
            noise_scale: trained.rows.iter().rev().find_map(|row| row.noise_scale),
            curve: trained.rows,
        };
        if writes {
            tracing::info!("{}: reading the {} held-out tokens", stage.name(), held_out.tokens());
            let mut progress = Progress::new("held-out text", 100, 0);
            let part = 0..held_out.tokens();
            let all =
                likelihood::autoregressive(&model, &held_out, part, config.positions, &Pass::evaluation(), |share| {
                    progress.set((100.0 * share) as u64, "per cent");
                    !run.interrupt.raised()
                })?;
            progress.finish(&format!("{:.3} bits a byte", all.bits_a_byte(held_out.bytes())));
            done.bits_a_byte = Some(all.bits_a_byte(held_out.bytes()));
            done.perplexity = Some(all.perplexity());
        }
        if repairs {
            let looks = looks(&held_out, length, recipe.seed)?;
            done.denoising = Some(model::mean_loss(&model, &TextObjective::Denoising(denoising), &looks)?);
            // Which of the two bounds is the tighter one is found out on the training text.
            let some = 0..store.tokens().min((WINDOWS * config.positions) as u64);
            let bound = |store: &TokenStore, part: std::ops::Range<u64>, own, go_on: &mut dyn FnMut(f64) -> bool| {
                likelihood::denoising(&model, store, part, config.positions, own, recipe.seed, go_on)
            };
            let go_on = &mut |_| !run.interrupt.raised();
            let [left, taken_off] = [Own::Left, Own::TakenOff].map(|own| bound(&store, some.clone(), own, go_on));
            let own = if taken_off?.nats < left?.nats { Own::TakenOff } else { Own::Left };
            let mut progress = Progress::new("held-out text, denoising", 100, 0);
            let all = bound(&held_out, 0..held_out.tokens(), own, &mut |share| {
                progress.set((100.0 * share) as u64, "per cent");
                !run.interrupt.raised()
            })?;
            let bits = all.bits_a_byte(held_out.bytes());
            progress.finish(&format!("at most {bits:.3} bits a byte ({own:?})"));
            done.bits_a_byte_bound = Some(bits);
        }
        stage.finish(&done)?;
        Ok(done)
    })?;
    Ok((stage, done))
}

/// How many trainings a variant goes on from, one after the other. The recipe's check has each name one before it.
fn before(variants: &[PretrainVariant], variant: &PretrainVariant) -> u64 {
    let from = variant.from.as_ref().and_then(|from| variants.iter().find(|it| it.name == *from));
    from.map_or(0, |from| 1 + before(variants, from))
}

/// Some windows of a store, always the same.
fn looks(store: &TokenStore, length: NonZeroUsize, seed: u64) -> anyhow::Result<Vec<TextBatch>> {
    const ROWS: NonZeroUsize = NonZeroUsize::new(8).expect("not 0");
    let batches = WindowBatches::new(store, length, ROWS, false, seed)?;
    let batch = |i| lapidary_train::BatchSource::micro_batch(&batches, i);
    Ok((0..(WINDOWS / ROWS) as u64).map(batch).collect::<Result<_, _>>()?)
}
