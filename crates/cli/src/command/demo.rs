//! `lapidary demo`: the whole way on data that the program draws itself.

use std::path::PathBuf;

use burn::tensor::Device;
use lapidary_data::synth::{self, Kind, Sample, Split};
use lapidary_data::{Example, Tokenizer};
use lapidary_eval::report::ImageGallery;
use lapidary_models::vilt::ViltConfig;
use lapidary_train::Interrupt;

use super::Options;
use super::run::Summary;
use crate::output;
use crate::pipeline::report::{self, Naming};
use crate::pipeline::{self, Examples, ModelSource, Run, ViltSource, predictions, reload};
use crate::recipe::{Bits, Curvature, Data, Files, Finetune, Format, Model, Quantize, Recipe, Variant};
use crate::stage::RunFolder;

/// Arguments of `lapidary demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder for stages, result.json and report.html
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,
}

/// Questions about pictures: how many are drawn for training, validation and the report.
const COUNTS: [usize; 3] = [32_000, 500, 1_000];
/// Pictures that the report shows, and the side they are drawn at there.
const SHOWN: usize = 8;
const SHOWN_SIZE: u32 = 192;

/// Trains, measures, cuts and reports.
pub fn run(args: &Args, options: &Options, device: &Device) -> anyhow::Result<()> {
    let recipe = recipe(options.seed.unwrap_or(1));
    let seed = recipe.seeds[0];
    let interrupt = Interrupt::listen()?;
    tracing::info!("drawing {} questions about coloured shapes", COUNTS.iter().sum::<usize>());
    let splits = [Split::Train, Split::Validation, Split::Test];
    let part = |place: usize| -> Vec<Example> {
        questions(seed, splits[place]).take(COUNTS[place]).map(|sample| sample.picture_example()).collect()
    };
    let parts = [part(0), part(1), part(2)];
    let tokenizer = Tokenizer::from_words(&synth::words())?;
    let labels = recipe.model.labels.clone();
    let examples = Examples::classes(parts, labels.clone(), tokenizer, recipe.data.lengths().max_length)?;
    let source = ViltSource::new(ViltConfig {
        vocabulary: examples.tokenizer.vocab_size(),
        positions: recipe.data.lengths().max_length,
        image: synth::PICTURE_SIZE as usize,
        patch: 8,
        width: 96,
        heads: 4,
        feed_forward: 384,
        blocks: 4,
        labels,
    });
    source.check(&examples)?;
    let folder = RunFolder::open(&args.out)?;
    let run = Run { recipe: &recipe, folder: &folder, examples: &examples, device, interrupt: &interrupt };
    let outcome = pipeline::all(&run, &source)?;
    let gallery = gallery(&run, &source, seed)?;
    let naming = Naming { task: "world", split: "test", title: "A small world, seen in few bits" };
    let written = report::write(&run, &outcome, &naming, Some(gallery))?;
    output::print(options.json, &written.run, &Summary(&written))
}

/// The world's questions of the kinds that a small model learns in a minute: counting and relations take it longer.
fn questions(seed: u64, split: Split) -> impl Iterator<Item = Sample> {
    let easy = |sample: &Sample| matches!(sample.question.kind, Kind::Colour | Kind::Shape | Kind::Exists);
    synth::samples(seed, usize::MAX, split).filter(easy)
}

/// Settings at which the whole way takes two minutes on two cores.
fn recipe(seed: u64) -> Recipe {
    let variant = |name: &str, bits, steps, high_layers| Variant {
        name: name.into(),
        bits,
        high_layers,
        steps,
        learning_rate: 3e-4,
        batch_size: 64,
    };
    Recipe {
        name: "demo".into(),
        description: "Questions about pictures of coloured shapes, answered by a model trained from scratch.".into(),
        seeds: vec![seed],
        model: Model {
            checkpoint: "none: trained from scratch".into(),
            labels: synth::answers().iter().map(|answer| (*answer).to_owned()).collect(),
        },
        data: Data {
            format: Format::default(),
            train: Files::One(format!("drawn from seed {seed}: {COUNTS:?}")),
            validation: None,
            dev: "drawn".into(),
            text: Some("question".into()),
            pair: None,
            label: Some("answer".into()),
            validation_rows: Some(COUNTS[1]),
            max_length: Some(16),
            stride: None,
            question_length: None,
            columns: None,
        },
        finetune: Finetune {
            epochs: 2,
            batch_size: 64,
            learning_rate: 1e-3,
            warmup: 0.1,
            dropout: 0.0,
            evaluate_every: 200,
            ..Finetune::default()
        },
        curvature: Curvature { samples: 4, examples: 64, iterations: 12, tolerance: 0.05, batch_size: 64 },
        quantize: Quantize {
            groups: 32,
            embedding_bits: 8,
            activation_bits: 8,
            variants: vec![
                variant("w8", Bits::Uniform(8), 20, None),
                variant("w4", Bits::Uniform(4), 60, None),
                variant("mp23", Bits::Mixed { low: 2, high: 3 }, 150, Some(2)),
            ],
        },
    }
}

/// Some of the test pictures with what the model said before and after the last cut.
fn gallery(run: &Run, source: &ViltSource, seed: u64) -> anyhow::Result<ImageGallery> {
    let mut shown = run.examples.test.rows();
    shown.truncate(SHOWN);
    let pad_id = run.examples.tokenizer.pad_id()?;
    let said = |stage: &str| -> anyhow::Result<Vec<u32>> {
        let folder = run.folder.path().join(format!("seed{seed}/{stage}/model"));
        Ok(predictions(&reload(source, &folder, run.device)?, &shown, pad_id))
    };
    let (dense, cut) = (said("finetune")?, said("mp23")?);
    let name = |answer: u32| run.examples.task.labels().get(answer as usize).map_or("?", String::as_str);
    let caption = "Pictures of the test part, drawn larger than the model saw them: the question, the right answer, \
                   the model's answers in f32 and in mixed 2/3 bits.";
    let mut gallery = ImageGallery::new(caption);
    for (i, sample) in questions(seed, Split::Test).take(shown.len()).enumerate() {
        let caption = format!(
            "{}? {} — f32 says {}, 2/3 bits {}",
            sample.question.text,
            name(sample.question.answer),
            name(dense[i]),
            name(cut[i])
        );
        gallery = gallery.image(sample.scene.render(SHOWN_SIZE).to_png()?, caption);
    }
    Ok(gallery)
}
