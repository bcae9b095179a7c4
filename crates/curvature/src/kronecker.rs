//! Kronecker factors (Martens and Grosse, 1503.05671; convolutions: Grosse and Martens, 1602.01407; weights that are
//! used several times: Eschenhagen et al., 2311.00636).
//!
//! A layer `z = W a` has the gradient `g aᵀ`, with `g` that of its output. Its block of the Gauss-Newton or Fisher matrix
//! is the mean of `(g aᵀ) ⊗ (g aᵀ)`, taken as the product of the means: `A` of `a aᵀ` and `B` of `g gᵀ`. A vector
//! that is `V [O, I]` is then multiplied as `B V A`.
//!
//! With `N` examples of `S` positions each (places of a picture, tokens of a text; 1 for other layers), `n` targets that
//! count, and `g` the gradients of the sum of their losses:
//!
//! | | `A` | `B` |
//! |---|---|---|
//! | [`Sharing::Expand`] | `1/(N S) Σ a aᵀ` over examples and positions | `1/n Σ g gᵀ` over the same |
//! | [`Sharing::Reduce`] | `1/N Σ ā āᵀ` with `ā` an example's mean over positions | `1/n Σ ĝ ĝᵀ` with `ĝ` its sum |
//!
//! Padding is no position. Where a bias belongs to the layer, `a` has a 1 at its end. Several uses of a weight are more
//! positions.

use std::collections::HashMap;
use std::ops::Deref;

use burn::module::{Module, ParamId};
use burn::tensor::{DType, Tensor, TensorData};
use faer::Mat;
use lapidary_kernels::conv2d::{Conv2dShape, patch_products, patch_sums};
use lapidary_kernels::cross_entropy::IGNORED;
use lapidary_kernels::linear::linear_backward_weight;
use lapidary_kernels::precision::Precision;
use lapidary_models::parameters;
pub use lapidary_models::taps::Positions;
use lapidary_models::taps::{LayerInput, LayerUse, Taps};

use crate::operator::LinearOperator;
use crate::problem::Problem;
use crate::rows::{Middle, sample, softmax};
use crate::surface::Surface;
use crate::symmetric::{Symmetric, diagonalize};
use crate::{CurvatureError, Selection};

/// What becomes of the positions of an example: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each is an example of its own.
    Expand,
    /// An example is the mean of what it reads and the sum of what comes back.
    Reduce,
}

/// The input's factor.
#[derive(Clone, Debug)]
pub enum InputFactor {
    /// `[I, I]`, or `[I + 1, I + 1]` with a bias.
    Full(Mat<f64>),
    /// Of a table: how often each row is looked up, as a share of all look-ups.
    Diagonal(Vec<f64>),
}

/// A layer's factors.
#[derive(Clone, Debug)]
pub struct LayerFactors {
    /// Path of the weight, `[O, I]` or, of a convolution, `[O, K, K, C]`; of a table `[V, D]`, whose rows are inputs.
    pub weight: String,
    /// Path of the bias, if it is in the factors.
    pub bias: Option<String>,
    /// `A`.
    pub input: InputFactor,
    /// `B`, `[O, O]`; of a table `[D, D]`.
    pub gradient: Mat<f64>,
}

/// The factors of every layer whose weight is selected as a whole, in the order of the vector.
///
/// `middle` chooses the losses: the given targets, sampled ones, or, for [`Middle::GaussNewton`], all directions in
/// which a row's targets could differ: exact, with as many backward passes as there are classes.
///
/// # Errors
/// Parts that do not fit the model; a selection without a layer; NaN or infinity in a factor.
pub fn kronecker_factors<M: Module, P: Problem<M>>(
    surface: &mut Surface<'_, M, P>,
    middle: Middle,
    sharing: Sharing,
) -> Result<Vec<LayerFactors>, CurvatureError> {
    if matches!(middle, Middle::Sampled { draws: 0, .. }) {
        return Err(CurvatureError::Count("draws of a sampled Fisher matrix"));
    }
    let mut sums = {
        let (model, selection) = surface.in_the_middle()?;
        FactorSums::new(model, selection, sharing)
    };
    let mut place = 0;
    for part in 0..surface.problem().parts() {
        let targets = surface.problem().targets(part);
        let positions = Positions {
            examples: surface.problem().examples(part),
            lengths: surface.problem().lengths(surface.in_the_middle()?.0, part),
        };
        let mut backward = 0;
        loop {
            let taps = Taps::default();
            let pass = surface.begin(part).with_taps(taps.clone());
            let logits = surface.differentiable_logits(part, &pass)?;
            let (device, dtype, shape) = (logits.device(), logits.dtype(), logits.dims());
            let values: Vec<f64> = logits.clone().inner().into_data().iter::<f64>().collect();
            let (weights, all) = directions(&values, shape[1], &targets, middle, backward, place);
            let weights = TensorData::new(weights, shape).convert_dtype(dtype);
            let weights = Tensor::<2>::from_data(weights, (&device, dtype));
            (logits * weights).sum().backward();
            sums.add(taps.take(), &positions, backward == 0);
            backward += 1;
            if backward == all {
                break;
            }
        }
        surface.count(backward as f64 / surface.problem().parts() as f64);
        place += targets.len() as u64;
    }
    sums.finish(surface.counted() as f64)
}

/// Factors of a model's layers, as they are added up over what [`Taps`] have written down.
pub struct FactorSums {
    layers: Layers,
    sums: HashMap<ParamId, Sums>,
    sharing: Sharing,
}

impl FactorSums {
    /// Of every layer whose weight is selected as a whole.
    pub fn new<M: Module>(model: &M, selection: &Selection, sharing: Sharing) -> Self {
        Self { layers: Layers::of((model, selection)), sums: HashMap::new(), sharing }
    }

    /// Adds the uses of layers by one backward pass over examples; their inputs only with the `first` over the same
    /// ones.
    pub fn add(&mut self, uses: Vec<LayerUse>, positions: &Positions, first: bool) {
        for used in uses {
            if let Some(layer) = self.layers.0.get(&used.weight) {
                self.sums.entry(used.weight).or_default().add(used, layer, positions, self.sharing, first);
            }
        }
    }

    /// Adds up what several processes have summed, each over its part of the examples: `sum` leaves the sums in place. All
    /// of them call it alike; a layer that one has not used counts there as nothing.
    ///
    /// # Errors
    /// Those of `sum`.
    pub fn join<E>(&mut self, sum: &mut dyn FnMut(&mut [f64]) -> Result<(), E>) -> Result<(), E> {
        let mut order: Vec<(usize, ParamId)> = self.layers.0.iter().map(|(id, layer)| (layer.offset, *id)).collect();
        order.sort_by_key(|(offset, _)| *offset);
        // Of each layer the numbers of its gradient's sums, of its input's, and whether these are look-ups; each as a mean
        // over those processes that have it.
        let mut sizes = vec![0.0; 4 * order.len()];
        for ((_, id), sizes) in order.iter().zip(sizes.chunks_exact_mut(4)) {
            if let Some(sums) = self.sums.get(id) {
                let (input, look_ups) = match &sums.input {
                    Some(InputSums::Rows { sum, .. }) => (sum.len(), 0.0),
                    Some(InputSums::LookUps { counts, .. }) => (counts.len(), 1.0),
                    None => (0, 0.0),
                };
                sizes.copy_from_slice(&[1.0, sums.gradients.len() as f64, input as f64, look_ups]);
            }
        }
        sum(&mut sizes)?;
        let mut joined = Vec::new();
        let used: Vec<(ParamId, &[f64])> =
            order.iter().map(|(_, id)| *id).zip(sizes.chunks_exact(4)).filter(|(_, sizes)| sizes[0] > 0.0).collect();
        for (id, sizes) in &used {
            let of = |index: usize| (sizes[index] / sizes[0]).round() as usize;
            let sums = self.sums.entry(*id).or_default();
            sums.gradients.resize(of(1), 0.0);
            let input = sums.input.get_or_insert_with(|| match of(3) {
                0 => InputSums::Rows { squares: vec![0.0; of(2) * of(2)], sum: vec![0.0; of(2)], count: 0.0 },
                _ => InputSums::LookUps { counts: vec![0.0; of(2)], all: 0.0 },
            });
            joined.extend(&sums.gradients);
            input.numbers().into_iter().for_each(|part| joined.extend(&*part));
        }
        sum(&mut joined)?;
        let mut rest = joined.as_slice();
        for (id, _) in &used {
            let Some(sums) = self.sums.get_mut(id) else { continue };
            let input = sums.input.iter_mut().flat_map(InputSums::numbers);
            for part in std::iter::once(sums.gradients.as_mut_slice()).chain(input) {
                let (of_part, behind) = rest.split_at(part.len());
                part.copy_from_slice(of_part);
                rest = behind;
            }
        }
        Ok(())
    }

    /// The factors, in the order of the model's fields; `counted` targets have been summed over. If the gradients were
    /// those of a mean over `n` targets, and not of the sum, that is `1 / n`.
    ///
    /// # Errors
    /// Nothing was added; NaN or infinity in a factor.
    pub fn finish(self, counted: f64) -> Result<Vec<LayerFactors>, CurvatureError> {
        let mut found: Vec<(usize, LayerFactors)> = Vec::new();
        for (id, sums) in self.sums {
            let Some(layer) = self.layers.0.get(&id) else { continue };
            found.push((layer.offset, sums.finish(layer, counted)?));
        }
        if found.is_empty() {
            return Err(CurvatureError::NoLayer);
        }
        found.sort_by_key(|(offset, _)| *offset);
        Ok(found.into_iter().map(|(_, factors)| factors).collect())
    }
}

/// What logits are multiplied with for backward pass number `backward`, row after row, and how many there are to make.
fn directions(
    logits: &[f64],
    classes: usize,
    targets: &[i64],
    middle: Middle,
    backward: usize,
    place: u64,
) -> (Vec<f64>, usize) {
    let all = match middle {
        Middle::GaussNewton => classes,
        Middle::Sampled { draws, .. } => draws,
        Middle::Empirical => 1,
    };
    let mut directions = vec![0.0; logits.len()];
    for (row, ((logits, direction), &target)) in
        logits.chunks_exact(classes).zip(directions.chunks_exact_mut(classes)).zip(targets).enumerate()
    {
        if target == IGNORED {
            continue;
        }
        let p = softmax(logits);
        match middle {
            // A column of a root of diag(p) - p pᵀ: diag(√p) - p √pᵀ.
            Middle::GaussNewton => {
                let root = p[backward].sqrt();
                direction.iter_mut().zip(&p).for_each(|(direction, p)| *direction = -p * root);
                direction[backward] += root;
            }
            Middle::Sampled { draws, seed } => {
                let class = sample(&p, draws, seed, place + row as u64)[backward];
                let share = (draws as f64).sqrt();
                direction.iter_mut().zip(&p).for_each(|(direction, p)| *direction = p / share);
                direction[class] -= 1.0 / share;
            }
            Middle::Empirical => {
                direction.copy_from_slice(&p);
                direction[target as usize] -= 1.0;
            }
        }
    }
    (directions, all)
}

/// The layers of a model that are selected, by their weights.
struct Layers(HashMap<ParamId, Layer>);

struct Layer {
    weight: String,
    bias: Option<String>,
    /// Where the weight lies in the vector.
    offset: usize,
    /// Of the weight.
    rows: usize,
}

impl Layers {
    fn of<M: Module>((model, selection): (&M, &Selection)) -> Self {
        let mut layers = HashMap::new();
        parameters::visit(model, &mut |parameter| {
            let Some(layer) = parameter.path.strip_suffix("weight") else { return };
            let Some(piece) = selection.whole(parameter.path).filter(|piece| piece.shape.len() >= 2) else { return };
            let bias = format!("{layer}bias");
            let layer = Layer {
                weight: parameter.path.to_owned(),
                bias: selection.whole(&bias).is_some().then_some(bias),
                offset: piece.offset,
                rows: piece.shape[0],
            };
            layers.insert(parameter.id, layer);
        });
        Self(layers)
    }
}

/// For a layer of so many rows, 1 where a row counts and 0 where it is padding. A layer that works once an example has
/// none.
fn real(positions: &Positions, rows: usize) -> Vec<f64> {
    let each = rows / positions.examples.max(1);
    let is_real = |row: usize| match &positions.lengths {
        Some(lengths) if each > 1 => lengths.get(row / each).is_none_or(|&length| row % each < length),
        _ => true,
    };
    (0..rows).map(|row| f64::from(is_real(row))).collect()
}

/// What has been added up for a layer.
#[derive(Default)]
struct Sums {
    input: Option<InputSums>,
    /// `Σ g gᵀ`.
    gradients: Vec<f64>,
}

enum InputSums {
    /// `Σ a aᵀ` and `Σ a` without the bias, and the number of `a`.
    Rows { squares: Vec<f64>, sum: Vec<f64>, count: f64 },
    /// How often each row of a table was looked up, and all look-ups.
    LookUps { counts: Vec<f64>, all: f64 },
}

impl InputSums {
    /// All of them.
    fn numbers(&mut self) -> Vec<&mut [f64]> {
        match self {
            Self::Rows { squares, sum, count } => vec![squares, sum, std::slice::from_mut(count)],
            Self::LookUps { counts, all } => vec![counts, std::slice::from_mut(all)],
        }
    }
}

impl Sums {
    /// Adds a use of the layer; its input only with the `first` backward pass, since all of a part read the same.
    fn add(&mut self, used: LayerUse, layer: &Layer, positions: &Positions, sharing: Sharing, first: bool) {
        let gradient = used.output_gradient;
        let rows = gradient.dims()[0];
        let real = real(positions, rows);
        let a = match used.input {
            LayerInput::Ids(ids) => {
                // A look-up is an example of its own either way: means of rows that are looked up have no diagonal
                // factor.
                if first {
                    self.look_up(&ids, &real, layer.rows);
                }
                add_square(&mut self.gradients, gradient);
                return;
            }
            LayerInput::Rows(x) => x,
            LayerInput::Pictures(x, shape) if sharing == Sharing::Expand && x.dtype() == DType::F32 => {
                add_square(&mut self.gradients, gradient);
                if first {
                    self.see(x, shape, rows as f64);
                }
                return;
            }
            LayerInput::Pictures(x, shape) => patches(x, &shape),
        };
        let examples = positions.examples;
        let each = rows / examples.max(1);
        let weights = |weights: Vec<f64>| {
            let data = TensorData::new(weights, [rows, 1]).convert_dtype(a.dtype());
            Tensor::<2>::from_data(data, (&a.device(), a.dtype()))
        };
        match sharing {
            Sharing::Expand => {
                add_square(&mut self.gradients, gradient);
                if first {
                    let count = real.iter().sum();
                    let a = a.clone() * weights(real);
                    self.read(a, count);
                }
            }
            Sharing::Reduce => {
                let ([_, inputs], [_, outputs]) = (a.dims(), gradient.dims());
                let sum = gradient.reshape([examples, each, outputs]).sum_dim(1);
                add_square(&mut self.gradients, sum.reshape([examples, outputs]));
                if first {
                    // An example's positions weigh the same and add up to 1.
                    let shares = |real: &[f64]| {
                        let sum = real.iter().sum::<f64>().max(1.0);
                        real.iter().map(move |real| real / sum).collect::<Vec<f64>>()
                    };
                    let shares = weights(real.chunks(each.max(1)).flat_map(shares).collect());
                    let mean = (a.clone() * shares).reshape([examples, each, inputs]).sum_dim(1);
                    self.read(mean.reshape([examples, inputs]), examples as f64);
                }
            }
        }
    }

    fn look_up(&mut self, ids: &[u32], real: &[f64], rows: usize) {
        let fresh = || InputSums::LookUps { counts: vec![0.0; rows], all: 0.0 };
        if let InputSums::LookUps { counts, all } = self.input.get_or_insert_with(fresh) {
            for (&id, real) in ids.iter().zip(real) {
                counts[id as usize] += real;
                *all += real;
            }
        }
    }

    fn read(&mut self, a: Tensor<2>, more: f64) {
        let fresh = || InputSums::Rows { squares: Vec::new(), sum: vec![0.0; a.dims()[1]], count: 0.0 };
        if let InputSums::Rows { squares, sum, count } = self.input.get_or_insert_with(fresh) {
            *count += more;
            add_elements(sum, a.clone().sum_dim(0));
            add_square(squares, a);
        }
    }

    /// Pictures whose patches need not be written out.
    fn see(&mut self, x: Tensor<2>, shape: Conv2dShape, more: f64) {
        let depth = shape.depth();
        let fresh = || InputSums::Rows { squares: vec![0.0; depth * depth], sum: vec![0.0; depth], count: 0.0 };
        if let InputSums::Rows { squares, sum, count } = self.input.get_or_insert_with(fresh) {
            let x = Numbers::of(x);
            let (mut of_call, mut sums) = (vec![0.0; depth * depth], vec![0.0; depth]);
            patch_products(&x, shape, &mut of_call);
            patch_sums(&x, shape, &mut sums);
            *count += more;
            squares.iter_mut().zip(of_call).for_each(|(square, more)| *square += f64::from(more));
            sum.iter_mut().zip(sums).for_each(|(sum, more)| *sum += f64::from(more));
        }
    }

    fn finish(self, layer: &Layer, counted: f64) -> Result<LayerFactors, CurvatureError> {
        let outputs = self.gradients.len().isqrt();
        let gradient = Mat::from_fn(outputs, outputs, |i, j| self.gradients[i * outputs + j] / counted);
        let (input, bias) = match self.input {
            None => return Err(CurvatureError::NoLayer),
            Some(InputSums::LookUps { counts, all }) => {
                (InputFactor::Diagonal(counts.into_iter().map(|count| count / all.max(1.0)).collect()), None)
            }
            Some(InputSums::Rows { squares, sum, count }) => {
                let inputs = sum.len();
                let all = inputs + usize::from(layer.bias.is_some());
                let entry = |i: usize, j: usize| match (i == inputs, j == inputs) {
                    (false, false) => squares[i * inputs + j],
                    (true, false) => sum[j],
                    (false, true) => sum[i],
                    (true, true) => count,
                };
                (InputFactor::Full(Mat::from_fn(all, all, |i, j| entry(i, j) / count.max(1.0))), layer.bias.clone())
            }
        };
        let finite = match &input {
            InputFactor::Full(input) => {
                (0..input.ncols()).all(|j| (0..input.nrows()).all(|i| input[(i, j)].is_finite()))
            }
            InputFactor::Diagonal(_) => true,
        };
        if !finite || !self.gradients.iter().all(|x| x.is_finite()) {
            return Err(CurvatureError::NonFiniteFactor(layer.weight.clone()));
        }
        Ok(LayerFactors { weight: layer.weight.clone(), bias, input, gradient })
    }
}

/// `sums += xᵀ x`.
fn add_square(sums: &mut Vec<f64>, x: Tensor<2>) {
    let [rows, width] = x.dims();
    if sums.is_empty() {
        sums.resize(width * width, 0.0);
    }
    if x.dtype() != DType::F32 {
        return add_elements(sums, x.clone().transpose().matmul(x));
    }
    let x = Numbers::of(x);
    let mut square = vec![0.0; width * width];
    linear_backward_weight(&x, &x, rows, width, width, Precision::F32, &mut square);
    sums.iter_mut().zip(square).for_each(|(sum, more)| *sum += f64::from(more));
}

/// A tensor of `f32` as the processor reads it.
struct Numbers(TensorData);

impl Numbers {
    fn of(x: Tensor<2>) -> Self {
        Self(x.into_data().convert::<f32>())
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("f32 by construction")
    }
}

fn add_elements(sums: &mut [f64], x: Tensor<2>) {
    sums.iter_mut().zip(x.into_data().iter::<f64>()).for_each(|(sum, x)| *sum += x);
}

/// What a convolution reads for each place that it gives, `[B·H'·W', K·K·C]`, zeros outside of the pictures.
fn patches(x: Tensor<2>, shape: &Conv2dShape) -> Tensor<2> {
    let (device, dtype) = (x.device(), x.dtype());
    let values: Vec<f64> = x.into_data().iter::<f64>().collect();
    let [out_height, out_width] = shape.output_size();
    let (channels, [kernel_height, kernel_width]) = (shape.channels, shape.kernel);
    let width = kernel_height * kernel_width * channels;
    let mut patches = vec![0.0; shape.batch * out_height * out_width * width];
    for (place, patch) in patches.chunks_exact_mut(width).enumerate() {
        let (picture, place) = (place / (out_height * out_width), place % (out_height * out_width));
        let (row, column) = (place / out_width * shape.stride[0], place % out_width * shape.stride[1]);
        for (tap, pixel) in patch.chunks_exact_mut(channels).enumerate() {
            let (y, x) = (row + tap / kernel_width, column + tap % kernel_width);
            let (Some(y), Some(x)) = (y.checked_sub(shape.padding[0]), x.checked_sub(shape.padding[1])) else {
                continue;
            };
            if y < shape.height && x < shape.width {
                let from = ((picture * shape.height + y) * shape.width + x) * channels;
                pixel.copy_from_slice(&values[from..from + channels]);
            }
        }
    }
    let rows = shape.batch * out_height * out_width;
    let data = TensorData::new(patches, [rows, width]).convert_dtype(dtype);
    Tensor::from_data(data, (&device, dtype))
}

/// A layer's block as an operator: on the weight `[O, I]` and, behind it, the bias `[O]`; on a table `[V, D]`.
impl LinearOperator for LayerFactors {
    fn dim(&self) -> usize {
        let outputs = self.gradient.nrows();
        outputs
            * match &self.input {
                InputFactor::Full(input) => input.nrows(),
                InputFactor::Diagonal(input) => input.len(),
            }
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let outputs = self.gradient.nrows();
        match &self.input {
            InputFactor::Full(input) => {
                let v = self.matrix(v);
                let product = &self.gradient * v * input;
                self.scatter(&product, out);
            }
            InputFactor::Diagonal(input) => {
                let v = Mat::from_fn(input.len(), outputs, |i, j| f64::from(v[i * outputs + j]));
                let product = v * &self.gradient;
                for (i, share) in input.iter().enumerate() {
                    (0..outputs).for_each(|j| out[i * outputs + j] = (share * product[(i, j)]) as f32);
                }
            }
        }
        Ok(())
    }
}

impl LayerFactors {
    /// Weight and bias side by side, `[O, I + 1]`.
    fn matrix(&self, v: &[f32]) -> Mat<f64> {
        let outputs = self.gradient.nrows();
        let all = v.len() / outputs;
        let inputs = all - usize::from(self.bias.is_some());
        Mat::from_fn(outputs, all, |i, j| {
            f64::from(if j < inputs { v[i * inputs + j] } else { v[outputs * inputs + i] })
        })
    }

    fn scatter(&self, matrix: &Mat<f64>, out: &mut [f32]) {
        let (outputs, all) = (matrix.nrows(), matrix.ncols());
        let inputs = all - usize::from(self.bias.is_some());
        for i in 0..outputs {
            for j in 0..all {
                out[if j < inputs { i * inputs + j } else { outputs * inputs + i }] = matrix[(i, j)] as f32;
            }
        }
    }

    /// Eigenvalues and eigenvectors of both factors.
    ///
    /// # Errors
    /// A factor that cannot be diagonalized.
    pub fn eigen(&self) -> Result<FactorEigen, CurvatureError> {
        let eigen = |matrix: &Mat<f64>| {
            let Symmetric { values, vectors } = diagonalize(matrix.nrows(), |i, j| matrix[(i, j)])?;
            // What should be no less than 0 may be so by rounding.
            let values: Vec<f64> = values.into_iter().map(|value| value.max(0.0)).collect();
            Ok::<_, CurvatureError>((values, Mat::from_fn(matrix.nrows(), matrix.nrows(), |i, j| vectors[j][i])))
        };
        let input = match &self.input {
            InputFactor::Full(input) => eigen(input)?,
            InputFactor::Diagonal(input) => (input.clone(), Mat::zeros(0, 0)),
        };
        Ok(FactorEigen { input, gradient: eigen(&self.gradient)? })
    }

    /// `(A ⊗ B + damping)⁻¹`, by the eigenvectors of both factors.
    ///
    /// # Errors
    /// A damping that is not positive; a factor that cannot be diagonalized.
    pub fn inverse(&self, damping: f64) -> Result<DampedInverse, CurvatureError> {
        if !(damping > 0.0 && damping.is_finite()) {
            return Err(CurvatureError::Damping(damping));
        }
        Ok(DampedInverse { factors: self.clone(), eigen: self.eigen()?, damping })
    }
}

/// A layer's factors by their eigenvalues, none below 0, and, in columns, eigenvectors.
#[derive(Clone, Debug)]
pub struct FactorEigen {
    /// Of `A`; of a table, whose rows are their own, no vectors.
    pub input: (Vec<f64>, Mat<f64>),
    /// Of `B`.
    pub gradient: (Vec<f64>, Mat<f64>),
}

/// See [`LayerFactors::inverse`].
#[derive(Clone, Debug)]
pub struct DampedInverse {
    factors: LayerFactors,
    eigen: FactorEigen,
    damping: f64,
}

impl LinearOperator for DampedInverse {
    fn dim(&self) -> usize {
        self.factors.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        let FactorEigen { input: (inputs, of_input), gradient: (gradients, of_gradient) } = &self.eigen;
        let divided = |matrix: Mat<f64>, transposed: bool| {
            Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| {
                let (gradient, input) = if transposed { (j, i) } else { (i, j) };
                matrix[(i, j)] / (gradients[gradient] * inputs[input] + self.damping)
            })
        };
        match &self.factors.input {
            InputFactor::Full(_) => {
                let turned = of_gradient.transpose() * self.factors.matrix(v) * of_input;
                let product = of_gradient * divided(turned, false) * of_input.transpose();
                self.factors.scatter(&product, out);
            }
            InputFactor::Diagonal(_) => {
                let outputs = gradients.len();
                let v = Mat::from_fn(inputs.len(), outputs, |i, j| f64::from(v[i * outputs + j]));
                let product = divided(v * of_gradient, true) * of_gradient.transpose();
                for i in 0..inputs.len() {
                    (0..outputs).for_each(|j| out[i * outputs + j] = product[(i, j)] as f32);
                }
            }
        }
        Ok(())
    }
}
