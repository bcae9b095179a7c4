//! Products with the Hessian of a BERT's loss.

use anyhow::{Context, ensure};
use burn::module::Module;
use burn::tensor::Device;
use lapidary_curvature::problem::ClassifiedExamples;
use lapidary_curvature::{Difference, Hessian, LinearOperator, Selection, Surface};
use lapidary_data::{Batch, Encoded, Target};
use lapidary_kernels::rng::Stream;
use lapidary_models::bert::{Bert, BertConfig};
use lapidary_models::{Classifier, Task};

use super::Work;

const ROWS: usize = 1024;
const LENGTH: usize = 16;
const BATCH: usize = 32;
const BLOCKS: usize = 6;
const VOCABULARY: usize = 30522;

/// The last layer's, the first one's and all layers'; `oracles/peers/hessian.py` has them too.
pub fn works(seed: u64, device: &Device) -> Vec<Box<dyn Work>> {
    [("last_layer", BLOCKS - 1, BLOCKS), ("first_layer", 0, 1), ("encoder", 0, BLOCKS)]
        .into_iter()
        .map(|(name, first, end)| {
            Box::new(Product { name, first, end, seed, device: device.clone(), state: None }) as Box<dyn Work>
        })
        .collect()
}

/// A product with one random vector over the parameters of some blocks, those below run once beforehand.
struct Product {
    name: &'static str,
    first: usize,
    end: usize,
    seed: u64,
    device: Device,
    state: Option<State>,
}

struct State {
    model: Bert,
    problem: ClassifiedExamples,
    selection: Selection,
    difference: Difference,
    v: Vec<f32>,
    out: Vec<f32>,
}

impl Work for Product {
    fn name(&self) -> String {
        format!("hessian_product.{}", self.name)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let config = BertConfig {
            vocabulary: VOCABULARY,
            width: 384,
            blocks: BLOCKS,
            heads: 12,
            feed_forward: 1536,
            positions: 512,
            token_types: 2,
            norm_eps: 1e-12,
            deviation: 0.02,
            pad_id: 0,
            task: Task::Classes(vec!["no".into(), "yes".into()]),
        };
        let model = Bert::new(&config, self.seed, &self.device.clone().autodiff());
        let mut stream = Stream::new(self.seed, 0);
        let mut row = |_| Encoded {
            ids: (0..LENGTH).map(|_| stream.below(VOCABULARY) as u32).collect(),
            types: vec![0; LENGTH],
            image: None,
            target: Target::Class(stream.below(2) as u32),
        };
        let rows: Vec<Encoded> = (0..ROWS).map(&mut row).collect();
        let batches = rows.chunks(BATCH).map(|rows| Batch::collate(&rows.iter().collect::<Vec<_>>(), 0)).collect();
        let mut problem = ClassifiedExamples::new(batches);
        problem.advance(&model.valid(), self.first);
        let paths: Vec<String> = (self.first..self.end).map(Bert::block_path).collect();
        let selection = Selection::of(&model, |path| paths.iter().any(|prefix| path.starts_with(prefix)))?;
        let v: Vec<f32> = (0..selection.dim()).map(|_| stream.normal()).collect();
        let mut out = vec![0.0; v.len()];
        // The first product settles the step, which is not what is timed.
        let mut hessian = Hessian::new(Surface::new(model.clone(), &problem, selection.clone())?, None);
        hessian.apply(&v, &mut out)?;
        let difference = hessian.difference().context("no step was settled")?;
        self.state = Some(State { model, problem, selection, difference, v, out });
        Ok(())
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let State { model, problem, selection, difference, v, out } =
            self.state.as_mut().context("the work is not prepared")?;
        let surface = Surface::new(model.clone(), problem, selection.clone())?;
        Hessian::new(surface, Some(*difference)).apply(v, out)?;
        ensure!(out.iter().all(|x| x.is_finite()), "a product that is not finite");
        Ok(())
    }
}
