//! Many texts of one model, in each of the ways that it can write.

use anyhow::ensure;
use burn::tensor::Device;
use lapidary_decode::parallel::{
    Ending, ParallelOptions, Rerank, Rest, Schedule, Stop, VerifiedOptions, Written, rerank, write_all, write_verified,
};
use lapidary_decode::{KvCache, PackedDecoder, Positions, generate_all, most_likely};
use lapidary_models::checkpoint::Checkpoint;
use lapidary_models::decoder::Decoder;
use lapidary_train::{CanvasLayout, Progress};

use super::TextRun;
use super::scores::Setting;
use super::task::TaskData;
use crate::recipe::AcceptRule;
use crate::stage::Stage;

/// Prompts that are written for together.
const ROWS: usize = 16;

/// A text without the token that ends it, and the passes that it took.
pub struct Text {
    pub tokens: Vec<u32>,
    pub passes: usize,
}

/// A fine-tuned model, ready to write.
pub struct Writer<'a> {
    run: &'a TextRun<'a>,
    packed: PackedDecoder,
    layout: CanvasLayout,
    end: u32,
    name: &'a str,
}

impl<'a> Writer<'a> {
    /// The model of a stage; `name` is what progress calls it.
    ///
    /// # Errors
    /// A checkpoint that cannot be read.
    pub fn open(run: &'a TextRun, model: &Stage, data: &TaskData, name: &'a str) -> anyhow::Result<Self> {
        // Writing has its kernels on the CPU, wherever the model was trained.
        let (decoder, _) = Decoder::open(&Checkpoint::open(&model.path().join("model"))?, &Device::flex())?;
        let packed = PackedDecoder::new(&decoder, run.recipe.finetune.precision)?;
        Ok(Self { run, packed, layout: data.layout, end: data.end, name })
    }

    /// Empty caches with room for the prompts and a canvas.
    fn caches(&self, prompts: &[&[u32]]) -> Vec<KvCache> {
        prompts.iter().map(|prompt| self.packed.cache(prompt.len() + self.layout.canvas)).collect()
    }

    fn chunks(
        &self,
        prompts: &[&[u32]],
        rows: usize,
        what: &str,
        mut write: impl FnMut(usize, &[&[u32]]) -> anyhow::Result<Vec<Text>>,
    ) -> anyhow::Result<Vec<Text>> {
        let mut progress = Progress::new(&format!("{}: {what}", self.name), prompts.len() as u64, 0);
        let mut texts = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks(rows) {
            ensure!(!self.run.interrupt.raised(), "stopped while writing; run the same command again to go on");
            texts.extend(write(texts.len(), chunk)?);
            progress.set(texts.len() as u64, "texts");
        }
        progress.finish("");
        Ok(texts)
    }

    /// Token after token, the likeliest.
    pub fn greedy(&self, prompts: &[&[u32]], what: &str) -> anyhow::Result<Vec<Text>> {
        let canvas = self.layout.canvas;
        self.chunks(prompts, ROWS, &format!("{what} token after token"), |_, prompts| {
            let mut caches = self.caches(prompts);
            let next = |_: usize, logits: &[f32]| most_likely(logits).filter(|token| *token != self.end);
            let texts = generate_all(&self.packed, prompts, canvas, &mut caches, next)?;
            // The end takes a pass too.
            let passes = |tokens: &Vec<u32>| (tokens.len() + 1).min(canvas);
            Ok(texts.into_iter().map(|tokens| Text { passes: passes(&tokens), tokens }).collect())
        })
    }

    /// Canvases, the best of so many.
    pub fn canvases(
        &self,
        prompts: &[&[u32]],
        setting: &Setting,
        candidates: usize,
        by: Rerank,
        what: &str,
    ) -> anyhow::Result<Vec<Text>> {
        let (end, padding) = (self.end, self.layout.pad);
        let ends = |token: u32| token == end || token == padding;
        let rule: AcceptRule = setting.accept.parse().map_err(anyhow::Error::msg)?;
        let text = |written: &Written| {
            let length = written.tokens.iter().position(|token| ends(*token)).unwrap_or(written.tokens.len());
            Text { tokens: written.tokens[..length].to_vec(), passes: written.passes }
        };
        self.chunks(prompts, ROWS.div_ceil(candidates), what, |first, prompts| {
            let mut prompted = self.caches(prompts);
            self.packed.read_all(prompts, &mut prompted, Positions::Last)?;
            // All candidates of a prompt, then those of the next.
            let mut caches: Vec<KvCache> =
                prompted.into_iter().flat_map(|cache| std::iter::repeat_n(cache, candidates)).collect();
            let seed = |row: usize| self.run.recipe.seed.wrapping_add((first * candidates + row) as u64);
            let seeds: Vec<u64> = (0..caches.len()).map(seed).collect();
            let written = match rule {
                AcceptRule::Canvas(acceptance) => {
                    let options = ParallelOptions {
                        canvas: self.layout.canvas,
                        schedule: Schedule::constant(setting.passes, setting.temperature),
                        acceptance,
                        rest: Rest::Keep,
                        length: setting.length.of(Ending { end, padding }),
                        stop: Stop::Stable,
                        seed: 0,
                    };
                    write_all(&self.packed, &mut caches, &options, &seeds, |_, _| ())?
                }
                AcceptRule::Verified => {
                    let (canvas, passes, temperature) = (self.layout.canvas, setting.passes, setting.temperature);
                    let ending = Ending { end, padding };
                    let write = |(seed, cache): (&u64, &mut KvCache)| {
                        let options = VerifiedOptions { canvas, passes, temperature, ending, seed: *seed };
                        write_verified(&self.packed, cache, &options)
                    };
                    seeds.iter().zip(&mut caches).map(write).collect::<Result<_, _>>()?
                }
            };
            if candidates == 1 {
                return Ok(written.iter().map(text).collect());
            }
            let mut texts = Vec::with_capacity(prompts.len());
            for (row, prompt) in prompts.iter().enumerate() {
                let of_prompt = row * candidates..(row + 1) * candidates;
                let last = prompt[prompt.len() - 1];
                let (written, caches) = (written[of_prompt.clone()].to_vec(), &mut caches[of_prompt]);
                let judged = rerank(&self.packed, written, &vec![last; candidates], caches, by, ends)?;
                // Each was written, and read once more.
                let passes: usize = judged.written.iter().map(|written| written.passes + 1).sum();
                texts.extend(judged.best().map(|best| Text { passes, ..text(best) }));
            }
            Ok(texts)
        })
    }
}
