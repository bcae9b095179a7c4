//! Batch normalisation (Ioffe and Szegedy, 1502.03167) of channels-last images, with the residual and the ReLU that
//! follow it in a residual network, and its backward pass.
//!
//! Memory is read as seldom as possible, since the arithmetic is nothing beside it: once for the statistics, once to
//! normalise, and twice in the backward pass. A channel is a column of `x [n, channels]`; the loops run over a period of
//! several rows, after which channels and lanes coincide again, so that they do not care how many channels there are.

use rayon::prelude::*;

use crate::chunks::{ELEMENTS, for_each_chunk, map_chunks};
use crate::math::mul_add;
use crate::simd::{LANES, Simd, dispatch};

/// What `x` is normalised with: each slice `[channels]`, the statistics those of the batch or running ones.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    pub mean: &'a [f32],
    /// The biased one.
    pub variance: &'a [f32],
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    pub eps: f32,
    /// Whether negative results become 0.
    pub relu: bool,
}

/// Where the statistics come from, which decides what gradient flows through them.
#[derive(Clone, Copy)]
pub enum Statistics<'a> {
    /// The mean and the variance of `x`: training.
    OfBatch,
    /// Those of a batch that `x` is a part of: see [`join_statistics`].
    OfParts(Parts<'a>),
    /// Numbers that do not depend on `x`: evaluation.
    Constant,
}

/// A batch in parts, which lie elsewhere.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// Rows of all of them.
    pub rows: f64,
    /// Adds up numbers over the parts, all of which call it alike.
    pub sum: &'a dyn Fn(&mut [f64]),
}

/// Makes of the statistics of one part, of so many rows, those of all.
pub fn join_statistics(rows: usize, parts: Parts, mean: &mut [f32], variance: &mut [f32]) {
    let share = rows as f64 / parts.rows;
    let mut means: Vec<f64> = mean.iter().map(|mean| share * f64::from(*mean)).collect();
    (parts.sum)(&mut means);
    let spread = |((mean, variance), all): ((&f32, &f32), &f64)| {
        share * (f64::from(*variance) + (f64::from(*mean) - all).powi(2))
    };
    let mut spreads: Vec<f64> = mean.iter().zip(&*variance).zip(&means).map(spread).collect();
    (parts.sum)(&mut spreads);
    mean.iter_mut().zip(means).for_each(|(mean, all)| *mean = all as f32);
    variance.iter_mut().zip(spreads).for_each(|(variance, all)| *variance = all as f32);
}

/// The mean and the biased variance of each column of `x [n, channels]`; NaN where `n` is 0.
pub fn channel_statistics(x: &[f32], mean: &mut [f32], variance: &mut [f32]) {
    let channels = mean.len();
    check(channels, &[x]);
    assert_eq!(variance.len(), channels, "a variance per channel");
    let period = Period::new(channels);
    // The mean and the sum of squared deviations of each chunk, and how many rows it has.
    let part = |x: &[f32]| -> (f64, Vec<[f64; 2]>) {
        let n = (x.len() / channels) as f64;
        let shift = first_rows(x, channels);
        let lanes: Vec<_> = (0..period.groups()).map(|group| period.lanes(group, |channel| shift[channel])).collect();
        let mut sums = period.sums();
        in_periods([x], &lanes, &mut [], |[x], _| sums_of_deviations(x, &lanes, &mut sums));
        let moments = period.fold(&sums).into_iter().zip(shift);
        (n, moments.map(|([sum, squares], shift)| [f64::from(shift) + sum / n, squares - sum * sum / n]).collect())
    };
    let parts: Vec<_> = x.par_chunks(period.chunk()).map(part).collect();
    let n = (x.len() / channels) as f64;
    for channel in 0..channels {
        let centre = parts.iter().map(|(n, part)| n * part[channel][0]).sum::<f64>() / n;
        let squares = |(n, part): &(f64, Vec<[f64; 2]>)| part[channel][1] + n * (part[channel][0] - centre).powi(2);
        let spread = parts.iter().map(squares).sum::<f64>() / n;
        mean[channel] = centre as f32;
        // Rounding may leave a little less than nothing; NaN is to stay.
        variance[channel] = if spread < 0.0 { 0.0 } else { spread as f32 };
    }
}

/// Moves running statistics by `momentum` towards those of a batch of `n` rows, the variance towards the unbiased one.
pub fn update_running_statistics(
    mean: &[f32],
    variance: &[f32],
    n: usize,
    momentum: f32,
    running_mean: &mut [f32],
    running_variance: &mut [f32],
) {
    assert!(
        [variance.len(), running_mean.len(), running_variance.len()] == [mean.len(); 3],
        "statistics of equally many channels"
    );
    let unbiased = (n as f64 / (n as f64 - 1.0)) as f32;
    for (running, new) in running_mean.iter_mut().zip(mean) {
        *running += momentum * (new - *running);
    }
    for (running, new) in running_variance.iter_mut().zip(variance) {
        *running += momentum * (new * unbiased - *running);
    }
}

/// `y = (x - mean) / sqrt(variance + eps) * gamma + beta + residual`, or 0 where that is negative and `relu`.
///
/// `x`, `residual` and `y` `[n, channels]`.
pub fn batch_norm(norm: &BatchNorm, x: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
    norm.check(&[x, residual.unwrap_or(x), y]);
    let period = Period::new(norm.channels());
    let (terms, means) = (period.terms(norm, &[]), period.means(norm));
    for_each_chunk(y, period.chunk(), |start, y| {
        let here = start..start + y.len();
        let x = &x[here.clone()];
        match residual {
            None => in_periods([x], &means, y, |[x], y| normalise(x, None, &terms, norm.relu, y)),
            Some(residual) => in_periods([x, &residual[here]], &means, y, |[x, residual], y| {
                normalise(x, Some(residual), &terms, norm.relu, y);
            }),
        }
    });
}

/// The gradients of [`batch_norm`]: `dx` and, where there was a residual, `dresidual`, both `[n, channels]`, `dgamma` and
/// `dbeta` `[channels]`. `y`, the output, is read only where a residual came before a ReLU.
pub fn batch_norm_backward(
    norm: &BatchNorm,
    statistics: Statistics,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dresidual: Option<&mut [f32]>,
    dgamma: &mut [f32],
    dbeta: &mut [f32],
) {
    norm.check(&[x, y, dy, dx, dresidual.as_deref().unwrap_or(x)]);
    let channels = norm.channels();
    assert!(dgamma.len() == channels && dbeta.len() == channels, "gradients for each channel");
    let period = Period::new(channels);
    let (terms, means) = (period.terms(norm, &[]), period.means(norm));
    let sums = |x: &[f32], dy: &[f32], relu: bool| {
        let mut sums = period.sums();
        in_periods([x, dy], &means, &mut [], |[x, dy], _| gradient_sums(x, dy, &terms, relu, &mut sums));
        period.fold(&sums)
    };
    // The gradient of a residual, what the ReLU lets pass of dy, is read instead of y and dy from then on. Without a
    // residual the ReLU's input is computed again, which is cheaper than reading its output.
    let chunk = period.chunk();
    let (parts, dy, relu): (Vec<_>, &[f32], bool) = match dresidual {
        Some(dresidual) => {
            let parts = map_chunks(dresidual, chunk, |start, dresidual| {
                let here = start..start + dresidual.len();
                if norm.relu {
                    pass(&y[here.clone()], &dy[here.clone()], dresidual);
                } else {
                    dresidual.copy_from_slice(&dy[here.clone()]);
                }
                sums(&x[here], dresidual, false)
            });
            (parts, dresidual, false)
        }
        None => {
            let chunks = x.par_chunks(chunk).zip(dy.par_chunks(chunk));
            (chunks.map(|(x, dy)| sums(x, dy, norm.relu)).collect(), dy, norm.relu)
        }
    };
    // Of each channel the sum of `g`, then of each that of `g (x - mean)`.
    let mut sums = vec![0.0; 2 * channels];
    for channel in 0..channels {
        let [sum, along]: [f64; 2] = [0, 1].map(|i| parts.iter().map(|part| part[channel][i]).sum());
        (sums[channel], sums[channels + channel]) = (sum, along);
        dbeta[channel] = sum as f32;
        dgamma[channel] = (along * norm.inverse(channel)) as f32;
    }
    let mut gradient_means = vec![[0.0; 2]; channels];
    let rows = match statistics {
        Statistics::OfBatch => Some((x.len() / channels) as f64),
        Statistics::OfParts(parts) => {
            (parts.sum)(&mut sums);
            Some(parts.rows)
        }
        Statistics::Constant => None,
    };
    if let Some(n) = rows {
        let (sums, along) = sums.split_at(channels);
        for (channel, means) in gradient_means.iter_mut().enumerate() {
            let inverse = norm.inverse(channel);
            *means = [(sums[channel] / n) as f32, (along[channel] * inverse * inverse / n) as f32];
        }
    }
    let terms = period.terms(norm, &gradient_means);
    for_each_chunk(dx, chunk, |start, dx| {
        let here = start..start + dx.len();
        in_periods([&x[here.clone()], &dy[here]], &means, dx, |[x, dy], dx| backward(x, dy, &terms, relu, dx));
    });
}

impl BatchNorm<'_> {
    fn channels(&self) -> usize {
        self.gamma.len()
    }

    fn check(&self, matrices: &[&[f32]]) {
        let channels = self.channels();
        assert!(
            [self.mean.len(), self.variance.len(), self.beta.len()] == [channels; 3],
            "statistics, gamma and beta of equally many channels"
        );
        check(channels, matrices);
    }

    fn inverse(&self, channel: usize) -> f64 {
        1.0 / (f64::from(self.variance[channel]) + f64::from(self.eps)).sqrt()
    }
}

fn check(channels: usize, matrices: &[&[f32]]) {
    assert!(
        channels > 0 && matrices.iter().all(|m| m.len() == matrices[0].len() && m.len().is_multiple_of(channels)),
        "matrices of equal size, {channels} channels wide"
    );
}

/// The mean of the first rows of `x`: near enough to that of all of them that the deviations keep their digits.
fn first_rows(x: &[f32], channels: usize) -> Vec<f32> {
    let rows = x.chunks_exact(channels).take(16);
    let scale = 1.0 / rows.len() as f32;
    let mut mean = vec![0.0; channels];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += scale * x);
    }
    mean
}

/// A run of rows after which channels and lanes coincide again.
struct Period {
    channels: usize,
    len: usize,
}

/// What a group of lanes is computed with.
struct Terms {
    mean: [f32; LANES],
    /// `gamma / sqrt(variance + eps)`.
    scale: [f32; LANES],
    beta: [f32; LANES],
    /// The means over the rows of the gradient, and of the gradient times the normalised `x`, that over the deviation.
    means: [[f32; LANES]; 2],
}

/// Sums of `a` and of `a b` for each lane of a period.
type Sums = Vec<[[f32; LANES]; 2]>;

impl Period {
    fn new(channels: usize) -> Self {
        /// Long enough that a sum is in memory again before its next term comes.
        const LEAST: usize = 8 * LANES;
        let rows = (1..=LANES).find(|rows| (rows * channels).is_multiple_of(LANES)).expect("LANES rows are groups");
        let len = rows * channels;
        Self { channels, len: len * LEAST.div_ceil(len) }
    }

    fn chunk(&self) -> usize {
        (ELEMENTS / self.len).max(1) * self.len
    }

    fn groups(&self) -> usize {
        self.len / LANES
    }

    fn lanes(&self, group: usize, f: impl Fn(usize) -> f32) -> [f32; LANES] {
        std::array::from_fn(|lane| f((group * LANES + lane) % self.channels))
    }

    fn terms(&self, norm: &BatchNorm, means: &[[f32; 2]]) -> Vec<Terms> {
        let scale: Vec<f32> = (0..self.channels).map(|i| (f64::from(norm.gamma[i]) * norm.inverse(i)) as f32).collect();
        let terms = |group| Terms {
            mean: self.lanes(group, |i| norm.mean[i]),
            scale: self.lanes(group, |i| scale[i]),
            beta: self.lanes(group, |i| norm.beta[i]),
            means: [0, 1].map(|which| self.lanes(group, |i| means.get(i).map_or(0.0, |means| means[which]))),
        };
        (0..self.groups()).map(terms).collect()
    }

    fn means(&self, norm: &BatchNorm) -> Vec<[f32; LANES]> {
        (0..self.groups()).map(|group| self.lanes(group, |channel| norm.mean[channel])).collect()
    }

    fn sums(&self) -> Sums {
        vec![[[0.0; LANES]; 2]; self.groups()]
    }

    /// Sums by lane to sums by channel.
    fn fold(&self, sums: &[[[f32; LANES]; 2]]) -> Vec<[f64; 2]> {
        let mut totals = vec![[0.0; 2]; self.channels];
        for (group, sums) in sums.iter().enumerate() {
            for lane in 0..LANES {
                let total = &mut totals[(group * LANES + lane) % self.channels];
                *total = [0, 1].map(|i| total[i] + f64::from(sums[i][lane]));
            }
        }
        totals
    }
}

/// Calls `f(inputs, out)` with whole periods: those of the slices, and one with what is left of them, filled up with
/// `means` in the first input and zeros in the others, which add nothing to a sum of deviations. `out` may be empty.
fn in_periods<const N: usize>(
    inputs: [&[f32]; N],
    means: &[[f32; LANES]],
    out: &mut [f32],
    mut f: impl FnMut([&[f32]; N], &mut [f32]),
) {
    let means = means.as_flattened();
    let whole = inputs[0].len() / means.len() * means.len();
    let (out, out_rest) = out.split_at_mut(whole.min(out.len()));
    f(inputs.map(|input| &input[..whole]), out);
    if whole < inputs[0].len() {
        let mut filled = [0; N].map(|_| vec![0.0; means.len()]);
        filled[0].copy_from_slice(means);
        for (filled, input) in filled.iter_mut().zip(inputs) {
            filled[..input.len() - whole].copy_from_slice(&input[whole..]);
        }
        let mut last = vec![0.0; means.len()];
        f(filled.each_ref().map(Vec::as_slice), &mut last);
        out_rest.copy_from_slice(&last[..out_rest.len()]);
    }
}

/// The groups of a slice of whole periods, `groups` in each, period by period.
#[inline(always)]
fn periods(x: &[f32], groups: usize) -> std::slice::ChunksExact<'_, [f32; LANES]> {
    x.as_chunks::<LANES>().0.chunks_exact(groups)
}

#[inline(always)]
fn periods_mut(x: &mut [f32], groups: usize) -> std::slice::ChunksExactMut<'_, [f32; LANES]> {
    x.as_chunks_mut::<LANES>().0.chunks_exact_mut(groups)
}

dispatch!(sums_of_deviations = sums_body(x: &[f32], shift: &[[f32; LANES]], sums: &mut Sums));

#[inline(always)]
fn sums_body<S: Simd>(x: &[f32], shift: &[[f32; LANES]], sums: &mut Sums) {
    for x in periods(x, shift.len()) {
        for ((x, shift), sums) in x.iter().zip(shift).zip(sums.iter_mut()) {
            let d = deviation(x, shift);
            add::<S>(d, d, sums);
        }
    }
}

/// Adds `a` and `a b`.
#[inline(always)]
fn add<S: Simd>(a: [f32; LANES], b: [f32; LANES], sums: &mut [[f32; LANES]; 2]) {
    let [mut sum, mut along] = *sums;
    for i in 0..LANES {
        sum[i] += a[i];
        along[i] = mul_add::<S>(a[i], b[i], along[i]);
    }
    *sums = [sum, along];
}

#[inline(always)]
fn deviation(x: &[f32; LANES], mean: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| x[i] - mean[i])
}

/// The output for a deviation from the mean, before the residual and the ReLU.
#[inline(always)]
fn output<S: Simd>(d: [f32; LANES], terms: &Terms) -> [f32; LANES] {
    std::array::from_fn(|i| mul_add::<S>(d[i], terms.scale[i], terms.beta[i]))
}

/// What the ReLU, whose input or output is `y`, lets pass of `dy`; NaN lets it pass.
#[inline(always)]
fn passed(y: f32, dy: f32) -> f32 {
    // Of a choice between 0 and `dy` the compiler would make a branch.
    f32::from_bits(dy.to_bits() & if y <= 0.0 { 0 } else { u32::MAX })
}

/// What the ReLU of [`output`], where there is one, lets pass of `dy`.
#[inline(always)]
fn gradient<S: Simd>(d: [f32; LANES], dy: &[f32; LANES], terms: &Terms, relu: bool) -> [f32; LANES] {
    if relu {
        let y = output::<S>(d, terms);
        std::array::from_fn(|i| passed(y[i], dy[i]))
    } else {
        *dy
    }
}

dispatch!(normalise = normalise_body(x: &[f32], residual: Option<&[f32]>, terms: &[Terms], relu: bool, y: &mut [f32]));

#[inline(always)]
fn normalise_body<S: Simd>(x: &[f32], residual: Option<&[f32]>, terms: &[Terms], relu: bool, y: &mut [f32]) {
    let rectify = |y: [f32; LANES]| if relu { y.map(|y| if y < 0.0 { 0.0 } else { y }) } else { y };
    let (x, y) = (periods(x, terms.len()), periods_mut(y, terms.len()));
    match residual {
        None => {
            for (x, y) in x.zip(y) {
                for ((x, y), terms) in x.iter().zip(y).zip(terms) {
                    *y = rectify(output::<S>(deviation(x, &terms.mean), terms));
                }
            }
        }
        Some(residual) => {
            for ((x, y), residual) in x.zip(y).zip(periods(residual, terms.len())) {
                for (((x, y), terms), residual) in x.iter().zip(y).zip(terms).zip(residual) {
                    let normalised = output::<S>(deviation(x, &terms.mean), terms);
                    *y = rectify(std::array::from_fn(|i| normalised[i] + residual[i]));
                }
            }
        }
    }
}

dispatch!(pass = pass_body(y: &[f32], dy: &[f32], out: &mut [f32]));

#[inline(always)]
fn pass_body<S: Simd>(y: &[f32], dy: &[f32], out: &mut [f32]) {
    for ((y, dy), out) in y.iter().zip(dy).zip(out) {
        *out = passed(*y, *dy);
    }
}

dispatch!(gradient_sums = gradient_sums_body(x: &[f32], dy: &[f32], terms: &[Terms], relu: bool, sums: &mut Sums));

/// The sums of `g`, what the ReLU lets pass of `dy`, and of `g (x - mean)`.
#[inline(always)]
fn gradient_sums_body<S: Simd>(x: &[f32], dy: &[f32], terms: &[Terms], relu: bool, sums: &mut Sums) {
    for (x, dy) in periods(x, terms.len()).zip(periods(dy, terms.len())) {
        for (((x, dy), terms), sums) in x.iter().zip(dy).zip(terms).zip(sums.iter_mut()) {
            let d = deviation(x, &terms.mean);
            let g = gradient::<S>(d, dy, terms, relu);
            add::<S>(g, d, sums);
        }
    }
}

dispatch!(backward = backward_body(x: &[f32], dy: &[f32], terms: &[Terms], relu: bool, dx: &mut [f32]));

/// With `g`, what the ReLU lets pass of `dy`, and the normalised `n`, `dx = scale (g - mean(g) - n mean(g n))`.
#[inline(always)]
fn backward_body<S: Simd>(x: &[f32], dy: &[f32], terms: &[Terms], relu: bool, dx: &mut [f32]) {
    let inputs = periods(x, terms.len()).zip(periods(dy, terms.len()));
    for ((x, dy), dx) in inputs.zip(periods_mut(dx, terms.len())) {
        for (((x, dy), dx), terms) in x.iter().zip(dy).zip(dx).zip(terms) {
            let d = deviation(x, &terms.mean);
            let g = gradient::<S>(d, dy, terms, relu);
            let [mean, along] = &terms.means;
            *dx = std::array::from_fn(|i| terms.scale[i] * mul_add::<S>(-d[i], along[i], g[i] - mean[i]));
        }
    }
}
