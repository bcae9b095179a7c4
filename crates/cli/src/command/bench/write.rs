//! A passage written token after token and on a canvas, by the same model: what a pass costs, and how much it has to
//! settle. The weights are random, since only the time counts.

use std::cell::OnceCell;
use std::rc::Rc;

use anyhow::{Context, ensure};
use burn::tensor::Device;
use lapidary_decode::parallel::{Acceptance, Length, ParallelOptions, Rest, Schedule, Stop, write};
use lapidary_decode::{KvCache, PackedDecoder, Positions, generate, most_likely};
use lapidary_eval::result::RunResult;
use lapidary_kernels::precision::Precision;
use lapidary_kernels::rng::Stream;
use lapidary_models::decoder::{Decoder, DecoderConfig, PositionEncoding};

use super::{Measured, Work, median};

/// Tokens of the prompt, and of what is written.
const PROMPT: usize = 64;
const TOKENS: usize = 64;

/// Over a canvas.
const PASSES: usize = 8;

const SMALL: (&str, DecoderConfig) = ("30m", config(512, 8, 7));
const LARGE: (&str, DecoderConfig) = ("450m", config(1536, 12, 15));

const fn config(width: usize, heads: usize, blocks: usize) -> DecoderConfig {
    DecoderConfig {
        vocabulary: 8192,
        positions: 256,
        position_encoding: PositionEncoding::ROTARY,
        width,
        heads,
        feed_forward: 4 * width,
        blocks,
        shifted_heads: 0,
        self_conditioning: false,
        shifted_canvas: false,
    }
}

pub fn works(seed: u64) -> Vec<Box<dyn Work>> {
    let mut works: Vec<Box<dyn Work>> = Vec::new();
    for (size, config) in [SMALL, LARGE] {
        for precision in [Precision::F32, Precision::Bf16] {
            let model = Rc::new(Model { size, config: config.clone(), precision, seed, packed: OnceCell::new() });
            for how in [How::Prompt, How::OneByOne, How::Canvas] {
                works.push(Box::new(Passage { model: model.clone(), how }));
            }
        }
    }
    works
}

/// What a passage amounts to for each model of which all was timed.
///
/// # Errors
/// A time that is no number.
pub fn compare(result: &mut RunResult, works: &[Box<dyn Work>], measured: &[Measured]) -> anyhow::Result<String> {
    let mut text = String::new();
    let seconds = |name: &str| {
        let index = works.iter().position(|work| work.name() == name)?;
        Some(median(&measured[index].ours))
    };
    for (size, _) in [SMALL, LARGE] {
        for precision in [Precision::F32, Precision::Bf16] {
            let of = |how: How| seconds(&how.name(size, precision));
            let (Some(prompt), Some(one_by_one), Some(canvas)) = (of(How::Prompt), of(How::OneByOne), of(How::Canvas))
            else {
                continue;
            };
            let pass = (canvas - prompt) / PASSES as f64;
            let token = (one_by_one - prompt) / TOKENS as f64;
            let name = format!("passage_{size}.{precision}");
            result.metrics.insert(format!("{name}.seconds_a_pass"), pass)?;
            result.metrics.insert(format!("{name}.seconds_a_token"), token)?;
            result.metrics.insert(format!("{name}.tokens_a_pass_to_break_even"), pass / token)?;
            result.metrics.insert(format!("{name}.times_as_fast_in_{PASSES}_passes"), one_by_one / canvas)?;
            text.push_str(&format!(
                "{name}: {:.2} times as fast in {PASSES} passes; a pass has to settle {:.1} tokens to break even\n",
                one_by_one / canvas,
                pass / token
            ));
        }
    }
    result.notes.push(format!(
        "A prompt of {PROMPT} tokens is read and {TOKENS} are written, token after token (ar) or on a canvas in \
         {PASSES} passes; batch 1, random weights."
    ));
    Ok(text)
}

/// Packed once, for all works that need it.
struct Model {
    size: &'static str,
    config: DecoderConfig,
    precision: Precision,
    seed: u64,
    packed: OnceCell<(PackedDecoder, Vec<u32>)>,
}

#[derive(Clone, Copy)]
enum How {
    Prompt,
    OneByOne,
    Canvas,
}

impl How {
    fn name(self, size: &str, precision: Precision) -> String {
        let how = match self {
            How::Prompt => "prompt",
            How::OneByOne => "ar",
            How::Canvas => "canvas",
        };
        format!("{how}_{size}.{precision}")
    }
}

struct Passage {
    model: Rc<Model>,
    how: How,
}

impl Passage {
    fn cache(&self, decoder: &PackedDecoder) -> KvCache {
        decoder.cache(PROMPT + TOKENS)
    }
}

impl Work for Passage {
    fn name(&self) -> String {
        self.how.name(self.model.size, self.model.precision)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let Model { config, precision, seed, packed, .. } = &*self.model;
        if packed.get().is_none() {
            let decoder = PackedDecoder::new(&Decoder::new(config, *seed, &Device::flex()), *precision)?;
            let mut stream = Stream::new(*seed, 0);
            let prompt = (0..PROMPT).map(|_| stream.below(config.vocabulary) as u32).collect();
            packed.get_or_init(|| (decoder, prompt));
        }
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let (decoder, prompt) = self.model.packed.get().context("prepared before")?;
        let mut cache = self.cache(decoder);
        let written = match self.how {
            How::OneByOne => generate(decoder, prompt, TOKENS, &mut cache, most_likely)?.len(),
            How::Prompt => {
                decoder.read(prompt, &mut cache, Positions::Last)?;
                TOKENS
            }
            How::Canvas => {
                decoder.read(prompt, &mut cache, Positions::Last)?;
                let options = ParallelOptions {
                    canvas: TOKENS,
                    schedule: Schedule::constant(PASSES, 0.0),
                    acceptance: Acceptance::All,
                    rest: Rest::Keep,
                    length: Length::Written,
                    stop: Stop::Never,
                    seed: 0,
                };
                write(decoder, &mut cache, &options, |_| ())?.tokens.len()
            }
        };
        ensure!(written == TOKENS, "{written} tokens");
        Ok(())
    }
}
