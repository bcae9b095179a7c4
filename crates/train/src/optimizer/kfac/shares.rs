//! Layers shared out over ranks: who inverts a layer's factors, and who multiplies with them.
//!
//! One rank inverts and gives the inverse to the layer's gradient workers; these multiply, and give what comes out to the
//! other ranks. With all ranks as workers nothing but inverses is exchanged, and with one each inverse is kept once
//! (Pauloski et al., "KAISA: an adaptive second-order optimizer framework for deep neural networks", 2107.01739, section
//! 3.1).

use lapidary_collective::{CollectiveError, Ranks};

use super::KfacForm;
use super::layer::{Eigen, InputInverse, Inverse, Layer};

/// Of one layer.
pub(crate) struct Share {
    /// Inverts.
    pub owner: usize,
    /// Multiply; the owner is the first.
    pub workers: Vec<usize>,
}

/// Of each layer, in their order, so that the ranks have about the same work: the largest layers are given first, each to
/// the rank that has least. `fraction` of the ranks are a layer's workers, one at least.
pub(crate) fn shares<'a>(layers: impl Iterator<Item = &'a Layer>, fraction: f64, ranks: usize) -> Vec<Share> {
    let cost = |layer: &Layer| {
        let (inputs, outputs) = layer.sizes();
        let cube = |n: usize| (n as u64).saturating_pow(3);
        cube(outputs).saturating_add(if layer.is_table() { inputs as u64 } else { cube(inputs) })
    };
    let costs: Vec<u64> = layers.map(cost).collect();
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(costs[*index]), *index));
    let mut load = vec![0u64; ranks];
    let mut owners = vec![0; costs.len()];
    for index in order {
        let owner = (0..ranks).min_by_key(|rank| load[*rank]).unwrap_or(0);
        owners[index] = owner;
        load[owner] = load[owner].saturating_add(costs[index]);
    }
    let count = ((fraction * ranks as f64).round() as usize).clamp(1, ranks);
    owners
        .into_iter()
        .map(|owner| Share { owner, workers: (0..count).map(|k| (owner + k) % ranks).collect() })
        .collect()
}

impl Share {
    pub fn works(&self, rank: usize) -> bool {
        self.workers.contains(&rank)
    }

    /// The ranks that each worker gives its products to.
    pub fn served(&self, ranks: usize) -> Vec<(usize, Vec<usize>)> {
        let mut served: Vec<(usize, Vec<usize>)> = self.workers.iter().map(|worker| (*worker, Vec::new())).collect();
        let others = (0..ranks).filter(|rank| !self.works(*rank));
        let workers = self.workers.len();
        others.enumerate().for_each(|(k, rank)| served[k % workers].1.push(rank));
        served.retain(|(_, receivers)| !receivers.is_empty());
        served
    }
}

/// Gives the inverse of a layer's owner to some ranks.
pub(crate) fn spread_inverse(
    layer: &mut Layer,
    form: KfacForm,
    (from, to): (usize, &[usize]),
    ranks: &Ranks,
) -> Result<(), CollectiveError> {
    if ranks.is_alone() {
        return Ok(());
    }
    let (inputs, outputs) = layer.sizes();
    let sizes = Sizes { inputs, outputs, is_table: layer.is_table(), form };
    let own = match &layer.inverse {
        Some(inverse) if ranks.rank() == from => sizes.to_bytes(inverse),
        _ => vec![0; sizes.bytes()],
    };
    let bytes = ranks.spread(from, to, own)?;
    if ranks.rank() != from && to.contains(&ranks.rank()) {
        layer.inverse = Some(sizes.to_inverse(&bytes));
    }
    Ok(())
}

/// Gives numbers of one rank to some.
pub(crate) fn spread_numbers(
    numbers: &mut [f32],
    (from, to): (usize, &[usize]),
    ranks: &Ranks,
) -> Result<(), CollectiveError> {
    let bytes = ranks.spread(from, to, numbers.iter().flat_map(|x| x.to_ne_bytes()).collect())?;
    let (words, _) = bytes.as_chunks::<4>();
    numbers.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_ne_bytes(*word));
    Ok(())
}

/// What a layer's inverse consists of.
struct Sizes {
    inputs: usize,
    outputs: usize,
    is_table: bool,
    form: KfacForm,
}

impl Sizes {
    /// Single numbers of the input's part and of the gradient's.
    fn singles(&self) -> [usize; 2] {
        let input = match (self.is_table, self.form) {
            (false, _) => self.inputs * self.inputs,
            (true, KfacForm::Split) => self.inputs,
            (true, KfacForm::Eigen) => 0,
        };
        [input, self.outputs * self.outputs]
    }

    /// Double numbers, of the same.
    fn doubles(&self) -> [usize; 2] {
        match self.form {
            KfacForm::Split => [0, 0],
            KfacForm::Eigen => [self.inputs, self.outputs],
        }
    }

    fn bytes(&self) -> usize {
        4 * self.singles().iter().sum::<usize>() + 8 * self.doubles().iter().sum::<usize>()
    }

    fn to_bytes(&self, inverse: &Inverse) -> Vec<u8> {
        let (singles, doubles): ([&[f32]; 2], [&[f64]; 2]) = match inverse {
            Inverse::Split { input: InputInverse::Full(input) | InputInverse::Diagonal(input), gradient } => {
                ([input, gradient], [&[], &[]])
            }
            Inverse::Eigen(eigen) => {
                ([&eigen.input_vectors, &eigen.gradient_vectors], [&eigen.input_values, &eigen.gradient_values])
            }
        };
        let singles = singles.into_iter().flatten().flat_map(|x| x.to_ne_bytes());
        singles.chain(doubles.into_iter().flatten().flat_map(|x| x.to_ne_bytes())).collect()
    }

    fn to_inverse(&self, bytes: &[u8]) -> Inverse {
        let (singles, doubles) = bytes.split_at(4 * self.singles().iter().sum::<usize>());
        let singles: Vec<f32> = singles.as_chunks().0.iter().map(|word| f32::from_ne_bytes(*word)).collect();
        let doubles: Vec<f64> = doubles.as_chunks().0.iter().map(|word| f64::from_ne_bytes(*word)).collect();
        let (input, gradient) = singles.split_at(self.singles()[0]);
        let (of_input, of_gradient) = doubles.split_at(self.doubles()[0]);
        match self.form {
            KfacForm::Split => {
                let input =
                    if self.is_table { InputInverse::Diagonal(input.into()) } else { InputInverse::Full(input.into()) };
                Inverse::Split { input, gradient: gradient.into() }
            }
            KfacForm::Eigen => Inverse::Eigen(Eigen {
                input_values: of_input.into(),
                input_vectors: input.into(),
                gradient_values: of_gradient.into(),
                gradient_vectors: gradient.into(),
            }),
        }
    }
}
