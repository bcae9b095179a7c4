//! Batch norm over the rows of a matrix, with the addition and the ReLU that follow it in a residual network
//! (Ioffe and Szegedy, 1502.03167; He et al., 1512.03385).

use std::fmt;
use std::sync::Arc;

use burn::backend::{AutodiffBackend, read_sync};
use kernels::batch_norm::{BatchNorm as Norm, Parts, Statistics};

use crate::operator::*;

/// What batch norm reads.
pub struct BatchNormInput {
    /// `[N, C]`.
    pub x: Tensor<2>,
    /// `[C]`.
    pub weight: Tensor<1>,
    /// `[C]`.
    pub bias: Tensor<1>,
    /// Added after the norm, `[N, C]`.
    pub residual: Option<Tensor<2>>,
    /// Whether negative results become 0, after all else.
    pub relu: bool,
    /// Added to the variance.
    pub eps: f32,
}

/// Adds up numbers over the processes that hold the other parts of a batch; all of them call it alike.
#[derive(Clone)]
pub struct Reduction(Arc<Sum>);

type Sum = dyn Fn(&mut [f64]) + Send + Sync;

impl Reduction {
    /// By a function that leaves the sums in place.
    pub fn new(sum: impl Fn(&mut [f64]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sum))
    }

    fn sum(&self, mut numbers: Vec<f64>) -> Vec<f64> {
        (self.0)(&mut numbers);
        numbers
    }
}

impl fmt::Debug for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Reduction")
    }
}

/// In training: the columns normalized by their own mean and variance → `[N, C]`, and with them that mean and the
/// unbiased variance, `[C]` each, for running ones. With a reduction mean and variance are those of all parts.
pub fn batch_norm(input: BatchNormInput, reduction: Option<Reduction>) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let [rows, _] = input.x.dims();
    let all = reduction.map(|sum| All { rows: sum.sum(vec![rows as f64])[0], sum });
    let rows = all.as_ref().map_or(rows as f64, |all| all.rows);
    let (y, mean, variance) = run(input, None, all);
    let plain = |x: Tensor<1>| if x.is_autodiff() { x.inner() } else { x };
    (y, plain(mean), plain(variance) * (rows / (rows - 1.0)))
}

/// In evaluation: the columns normalized by a given mean and variance, `[C]` each → `[N, C]`.
pub fn batch_norm_fixed(input: BatchNormInput, mean: Tensor<1>, variance: Tensor<1>) -> Tensor<2> {
    run(input, Some([mean, variance]), None).0
}

fn run(input: BatchNormInput, given: Option<[Tensor<1>; 2]>, all: Option<All>) -> (Tensor<2>, Tensor<1>, Tensor<1>) {
    let BatchNormInput { x, weight, bias, residual, relu, eps } = input;
    let residual = residual.unwrap_or_else(|| absent(&x));
    let [mean, variance] = given.unwrap_or_else(|| [absent(&x), absent(&x)]);
    // Running statistics are never tracked; the others may be.
    let like_x = |s: Tensor<1>| if x.is_autodiff() && !s.is_autodiff() { Tensor::from_inner(s) } else { s };
    let (mean, variance) = (like_x(mean), like_x(variance));
    let (y, mean, variance) = <Dispatch as BatchNorm>::forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        residual.into_dispatch(),
        mean.into_dispatch(),
        variance.into_dispatch(),
        Settings { relu, eps, all },
    );
    (Tensor::from_dispatch(y), Tensor::from_dispatch(mean), Tensor::from_dispatch(variance))
}

/// What the tensors do not say.
#[derive(Clone, Debug)]
pub struct Settings {
    pub relu: bool,
    pub eps: f32,
    /// Of a batch in parts.
    pub all: Option<All>,
}

/// All parts of a batch.
#[derive(Clone, Debug)]
pub struct All {
    /// Theirs together.
    pub rows: f64,
    /// Over the parts.
    pub sum: Reduction,
}

impl All {
    fn parts(&self) -> Parts<'_> {
        Parts { rows: self.rows, sum: &*self.sum.0 }
    }

    /// Sums over rows `[1, C]`, of all parts.
    fn reduced<B: Backend>(&self, sums: Array<B>) -> Array<B> {
        let shape = sums.0.shape();
        let data = read_sync(B::float_into_data(sums.0.clone())).expect("the device has not failed");
        let all = self.sum.sum(data.iter::<f64>().collect());
        sums.host(all.into_iter().map(|x| x as f32).collect(), shape)
    }
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait BatchNorm: Backend {
    /// `(y, mean, biased variance)`. Without elements in `mean` and `variance` they are those of `x`.
    fn forward(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        residual: Float<Self>,
        mean: Float<Self>,
        variance: Float<Self>,
        settings: Settings,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        plain::<Self>([x, weight, bias, residual, mean, variance], settings).into()
    }

    /// `(dx, dweight, dbias, dresidual)` where `constant` statistics do not depend on `x`. `residual` matters by its
    /// presence alone; without it there is no `dresidual` either.
    fn gradient(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        residual: Float<Self>,
        mean: Float<Self>,
        variance: Float<Self>,
        y: Float<Self>,
        dy: Float<Self>,
        constant: bool,
        settings: Settings,
    ) -> (Float<Self>, Float<Self>, Float<Self>, Float<Self>) {
        let inputs = [x, weight, bias, residual, mean, variance];
        plain_gradient::<Self>(inputs, y, dy, constant, settings).into()
    }
}

/// The mean and the biased variance of the columns, unless they are given.
fn statistics<B: Backend>(x: &Array<B>, mean: Float<B>, variance: Float<B>, all: Option<&All>) -> [Array<B>; 2] {
    if present(&mean) {
        return [Array(mean), Array(variance)];
    }
    let [_, channels] = x.dims();
    let mean = mean_of_rows(x.clone(), all);
    let variance = mean_of_rows((x.clone() - mean.clone()).square(), all);
    [mean, variance].map(|x| x.reshape([channels]))
}

/// `[1, C]`.
fn mean_of_rows<B: Backend>(x: Array<B>, all: Option<&All>) -> Array<B> {
    match all {
        None => x.mean(0),
        Some(all) => all.reduced(x.sum(0)) / all.rows,
    }
}

/// `(x − mean) / √(variance + eps)`, and the reciprocal of the root `[1, C]`.
fn normalized<B: Backend>(x: Array<B>, [mean, variance]: [Array<B>; 2], eps: f32) -> (Array<B>, Array<B>) {
    let [_, channels] = x.dims();
    let [mean, variance] = [mean, variance].map(|x| x.reshape([1, channels]));
    let inverse = variance.full(1.0, [1, 1]) / (variance + f64::from(eps)).sqrt();
    ((x - mean) * inverse.clone(), inverse)
}

/// [`BatchNorm::forward`] by ordinary operations.
pub fn plain<B: Backend>(inputs: [Float<B>; 6], settings: Settings) -> [Float<B>; 3] {
    let [x, weight, bias, residual, mean, variance] = inputs;
    let x = Array::<B>(x);
    let [_, channels] = x.dims();
    let given = statistics(&x, mean, variance, settings.all.as_ref());
    let (n, _) = normalized(x, given.clone(), settings.eps);
    let [weight, bias] = [weight, bias].map(|x| Array::<B>(x).reshape([1, channels]));
    let mut y = n * weight + bias;
    if present(&residual) {
        y = y + Array(residual);
    }
    let y = if settings.relu { y.clamp(0.0, f64::INFINITY) } else { y };
    let [mean, variance] = given;
    [y.0, mean.0, variance.0]
}

/// [`BatchNorm::gradient`] by ordinary operations: with `g` the gradient before the ReLU and `n` the normalized values,
/// `dx = weight / √(variance + eps) (g − mean(g) − n mean(g n))`, without the means where the statistics are constant.
pub fn plain_gradient<B: Backend>(
    [x, weight, _, residual, mean, variance]: [Float<B>; 6],
    y: Float<B>,
    dy: Float<B>,
    constant: bool,
    settings: Settings,
) -> [Float<B>; 4] {
    let x = Array::<B>(x);
    let [_, channels] = x.dims();
    let (n, inverse) = normalized(x, [mean, variance].map(Array), settings.eps);
    let dy = Array::<B>(dy);
    let g = if settings.relu { dy.fill_where(Array::<B>(y).is(0.0), 0.0) } else { dy };
    let centred = match constant {
        true => g.clone(),
        false => {
            let mean = |x: Array<B>| mean_of_rows(x, settings.all.as_ref());
            g.clone() - mean(g.clone()) - n.clone() * mean(g.clone() * n.clone())
        }
    };
    let dx = centred * inverse * Array(weight).reshape([1, channels]);
    let columns = |x: Array<B>| x.sum(0).reshape([channels]).0;
    let dresidual = if present(&residual) { g.0.clone() } else { residual };
    [dx.0, columns(g.clone() * n), columns(g), dresidual]
}

impl BatchNorm for Flex {
    fn forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        settings: Settings,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let inputs = [x, weight, bias, residual, mean, variance];
        let Some([x, weight, bias, residual, mean, variance]) = floats(inputs.each_ref()) else {
            return plain::<Self>(inputs, settings).into();
        };
        let channels = weight.len();
        outputs([x.shape(), [channels].into(), [channels].into()], |[y, batch_mean, batch_variance]| {
            match mean.optional() {
                Some(mean) => {
                    batch_mean.copy_from_slice(mean);
                    batch_variance.copy_from_slice(&variance);
                }
                None => {
                    kernels::batch_norm::channel_statistics(&x, batch_mean, batch_variance);
                    if let Some(all) = &settings.all {
                        let [rows, _] = x.dims();
                        kernels::batch_norm::join_statistics(rows, all.parts(), batch_mean, batch_variance);
                    }
                }
            }
            let norm = Norm {
                mean: batch_mean,
                variance: batch_variance,
                gamma: &weight,
                beta: &bias,
                eps: settings.eps,
                relu: settings.relu,
            };
            kernels::batch_norm::batch_norm(&norm, &x, residual.optional(), y);
        })
        .into()
    }

    fn gradient(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        residual: FlexTensor,
        mean: FlexTensor,
        variance: FlexTensor,
        y: FlexTensor,
        dy: FlexTensor,
        constant: bool,
        settings: Settings,
    ) -> (FlexTensor, FlexTensor, FlexTensor, FlexTensor) {
        let of_residual = residual.shape();
        let Some([x, weight, bias, mean, variance, y, dy]) = floats([&x, &weight, &bias, &mean, &variance, &y, &dy])
        else {
            return plain_gradient::<Self>([x, weight, bias, residual, mean, variance], y, dy, constant, settings)
                .into();
        };
        let norm = Norm {
            mean: &mean,
            variance: &variance,
            gamma: &weight,
            beta: &bias,
            eps: settings.eps,
            relu: settings.relu,
        };
        let statistics = match &settings.all {
            _ if constant => Statistics::Constant,
            None => Statistics::OfBatch,
            Some(all) => Statistics::OfParts(all.parts()),
        };
        let shapes = [x.shape(), weight.shape(), bias.shape(), of_residual];
        outputs(shapes, |[dx, dweight, dbias, dresidual]| {
            let dresidual = (!dresidual.is_empty()).then_some(dresidual);
            kernels::batch_norm::batch_norm_backward(&norm, statistics, &x, &y, &dy, dx, dresidual, dweight, dbias);
        })
        .into()
    }
}

#[cfg(feature = "vulkan")]
impl BatchNorm for Cube {}

impl<B: BatchNorm, C: CheckpointStrategy> BatchNorm for Autodiff<B, C> {
    fn forward(
        x: Float<Self>,
        weight: Float<Self>,
        bias: Float<Self>,
        residual: Float<Self>,
        mean: Float<Self>,
        variance: Float<Self>,
        settings: Settings,
    ) -> (Float<Self>, Float<Self>, Float<Self>) {
        let constant = present(&mean);
        let [mean, variance] = [mean, variance].map(|x| x.into_primitive());
        let ([x, weight, bias, residual], nodes) = parts::<B, C, 4>([x, weight, bias, residual]);
        let (y, mean, variance) =
            B::forward(x.clone(), weight.clone(), bias.clone(), residual.clone(), mean, variance, settings.clone());
        let statistics = [mean.clone(), variance.clone()].map(Self::from_inner);
        let of_y = y.clone();
        let y = record::<B, C, 4>(nodes, y, move |dy, wanted| {
            let (dx, dweight, dbias, dresidual) =
                B::gradient(x, weight, bias, residual, mean, variance, of_y, dy, constant, settings);
            let gradients = [dx, dweight, dbias, dresidual];
            let mut wanted = wanted.into_iter();
            gradients.map(|gradient| wanted.next().unwrap_or(false).then_some(gradient))
        });
        let [mean, variance] = statistics;
        (y, mean, variance)
    }
}
