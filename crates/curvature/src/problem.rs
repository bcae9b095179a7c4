//! What a curvature is of: a model's loss on fixed examples.

use burn::module::Module;
use burn::tensor::Tensor;
use lapidary_data::Batch;
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::mask::Mask;
use lapidary_models::decoder::Decoder;
use lapidary_models::layer::Pictures;
use lapidary_models::objective::{Autoregressive, TextBatch};
use lapidary_models::resnet::ResNet;
use lapidary_models::{Classifier, ModelError, Pass};
use lapidary_ops as ops;

/// The mean cross-entropy over fixed examples, in parts that fit into memory. Every loss of the product is one: rows of
/// logits, and a target for each.
pub trait Problem<M: Module> {
    /// How many parts there are.
    fn parts(&self) -> usize;

    /// What a model says of a part, `[rows, classes]`.
    ///
    /// # Errors
    /// Input that does not fit the model.
    fn logits(&self, model: &M, part: usize, pass: &Pass) -> Result<Tensor<2>, ModelError>;

    /// What it should say, a class a row; -100 where a row does not count.
    fn targets(&self, part: usize) -> Vec<i64>;

    /// Examples of a part, each of as many positions as the others: pictures, texts.
    fn examples(&self, part: usize) -> usize {
        self.targets(part).len()
    }

    /// How many positions each example of a part has, those beyond being padding; `None` where there is no padding.
    fn lengths(&self, _model: &M, _part: usize) -> Option<Vec<usize>> {
        None
    }

    /// A part's share of the mean loss over `normalizer` targets, a scalar `[1]`.
    ///
    /// # Errors
    /// Input or targets that do not fit the model.
    fn loss(&self, model: &M, part: usize, normalizer: f32, pass: &Pass) -> Result<Tensor<1>, ModelError> {
        Ok(ops::cross_entropy(self.logits(model, part, pass)?, &self.targets(part), normalizer)?)
    }

    /// Targets that count, in all parts.
    fn counted(&self) -> usize {
        (0..self.parts()).map(|part| self.targets(part).iter().filter(|&&target| target != IGNORED).count()).sum()
    }
}

/// Examples that are sorted into classes, as a whole or token by token, or searched for spans, with what some block of
/// the model reads of them: where only blocks above are of interest, those below are run once.
#[derive(Clone, Debug)]
pub struct ClassifiedExamples {
    batches: Vec<Batch>,
    /// The block that the examples have come to, and its input.
    reached: Option<(usize, Vec<Tensor<2>>)>,
}

impl ClassifiedExamples {
    pub fn new(batches: Vec<Batch>) -> Self {
        Self { batches, reached: None }
    }

    /// Runs the examples up to the input of a block, from where they are or, if they are beyond it, from the start.
    /// `model` has no gradients; parameters below that block have no part in the loss any more.
    pub fn advance<M: Classifier>(&mut self, model: &M, block: usize) {
        let pass = Pass::evaluation();
        let embed = |batch| model.embed(batch, &pass);
        let (from, mut hidden) = match self.reached.take() {
            Some((from, hidden)) if from <= block => (from, hidden),
            _ => (0, self.batches.iter().map(embed).collect()),
        };
        for (hidden, batch) in hidden.iter_mut().zip(&self.batches) {
            *hidden = model.advance(hidden.clone(), from..block, batch, &pass);
        }
        self.reached = Some((block, hidden));
    }
}

impl<M: Classifier> Problem<M> for ClassifiedExamples {
    fn parts(&self) -> usize {
        self.batches.len()
    }

    fn logits(&self, model: &M, part: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let batch = &self.batches[part];
        Ok(match &self.reached {
            None => model.logits(batch, pass),
            Some((block, hidden)) => {
                let x = model.advance(hidden[part].clone(), *block..model.blocks(), batch, pass);
                model.head(x, batch, pass)
            }
        })
    }

    fn targets(&self, part: usize) -> Vec<i64> {
        self.batches[part].targets.clone()
    }

    fn examples(&self, part: usize) -> usize {
        self.batches[part].rows
    }

    fn lengths(&self, model: &M, part: usize) -> Option<Vec<usize>> {
        model.mask(&self.batches[part]).lengths.map(|lengths| lengths.to_vec())
    }
}

/// Texts that are written token after token.
#[derive(Clone, Debug)]
pub struct Texts {
    pub batches: Vec<TextBatch>,
    pub objective: Autoregressive,
}

impl Problem<Decoder> for Texts {
    fn parts(&self) -> usize {
        self.batches.len()
    }

    fn logits(&self, model: &Decoder, part: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        let batch = &self.batches[part];
        model.logits(&batch.ids, batch.rows, &Mask::causal(), pass)
    }

    fn targets(&self, part: usize) -> Vec<i64> {
        self.objective.next(&self.batches[part])
    }

    fn examples(&self, part: usize) -> usize {
        self.batches[part].rows
    }

    fn lengths(&self, _: &Decoder, part: usize) -> Option<Vec<usize>> {
        Some(self.batches[part].ends.to_vec())
    }

    fn loss(&self, model: &Decoder, part: usize, normalizer: f32, pass: &Pass) -> Result<Tensor<1>, ModelError> {
        let batch = &self.batches[part];
        // The logits are never held whole.
        model.loss(&batch.ids, &self.targets(part), batch.rows, &Mask::causal(), normalizer, pass)
    }
}

/// Pictures that are sorted into classes.
#[derive(Clone, Debug)]
pub struct ClassifiedPictures {
    /// Pictures and their classes, part by part.
    pub parts: Vec<(Pictures, Vec<i64>)>,
}

impl Problem<ResNet> for ClassifiedPictures {
    fn parts(&self) -> usize {
        self.parts.len()
    }

    fn logits(&self, model: &ResNet, part: usize, pass: &Pass) -> Result<Tensor<2>, ModelError> {
        Ok(model.logits(self.parts[part].0.clone(), pass))
    }

    fn targets(&self, part: usize) -> Vec<i64> {
        self.parts[part].1.clone()
    }
}
