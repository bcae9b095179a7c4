//! The loss along lines and planes through the point where a model is: pictures of its surroundings.
//!
//! Directions are eigenvectors, along which the curvature is known, or random ones that are scaled filter by filter to
//! the weights' own size (Li et al., "Visualizing the loss landscape of neural nets", 1712.09913, section 4), so that
//! networks with weights of other sizes can be compared.

use burn::module::Module;
use lapidary_kernels::rng::Stream;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::surface::Surface;
use crate::{CurvatureError, Selection, norm};

/// The loss along one direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Multiples of the direction.
    pub places: Vec<f64>,
    /// The loss at each.
    pub losses: Vec<f64>,
}

/// The loss along two directions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plane {
    /// Multiples of the first direction.
    pub x: Vec<f64>,
    /// Multiples of the second.
    pub y: Vec<f64>,
    /// `[y, x]`, row after row.
    pub losses: Vec<f64>,
}

/// So many places from `-radius` to `radius`. An odd number has the middle among them.
pub fn places(radius: f64, count: usize) -> Vec<f64> {
    match count {
        0 | 1 => vec![0.0; count],
        _ => (0..count).map(|i| radius * (2.0 * i as f64 / (count - 1) as f64 - 1.0)).collect(),
    }
}

/// A random direction: each row of a matrix and each filter of a convolution is as long as that of the weights.
/// Biases, and weights and biases of norms, have no part in it.
pub fn random_direction(selection: &Selection, middle: &[f32], seed: u64) -> Vec<f32> {
    let mut direction = vec![0.0; middle.len()];
    for (number, piece) in selection.pieces().iter().enumerate() {
        if piece.shape.len() < 2 {
            continue;
        }
        let mut stream = Stream::new(seed, number as u64);
        let row = piece.shape[1..].iter().product::<usize>().max(1);
        // A piece may begin or end within a row.
        let first = (row - piece.elements.start % row) % row;
        let range = piece.range();
        let (head, rows) = (range.start..range.start + first.min(range.len()), range.start + first..range.end);
        let rows = rows.clone().step_by(row).map(|start| start..(start + row).min(rows.end));
        for row in [head].into_iter().chain(rows).filter(|row| !row.is_empty()) {
            direction[row.clone()].iter_mut().for_each(|d| *d = stream.normal());
            let (length, wanted) = (norm(&direction[row.clone()]), norm(&middle[row.clone()]));
            let factor = if length > 0.0 { wanted / length } else { 0.0 };
            direction[row].iter_mut().for_each(|d| *d = (f64::from(*d) * factor) as f32);
        }
    }
    direction
}

/// The loss at multiples of a direction. `progress` sees the losses so far, and says whether to go on; `known` are those
/// of work that was stopped.
///
/// # Errors
/// Parts that do not fit the model; stopped by `progress`. A loss that is not finite is none: it is NaN or infinite there.
pub fn line<M: Module, P: Problem<M>>(
    surface: &mut Surface<'_, M, P>,
    direction: &[f32],
    places: Vec<f64>,
    mut known: Vec<f64>,
    progress: &mut dyn FnMut(&[f64]) -> bool,
) -> Result<Line, CurvatureError> {
    for &place in &places[known.len().min(places.len())..] {
        known.push(surface.loss_at(direction, place)?);
        if !progress(&known) {
            return Err(CurvatureError::Stopped);
        }
    }
    known.truncate(places.len());
    Ok(Line { places, losses: known })
}

/// The loss at sums of multiples of two directions.
///
/// # Errors
/// As [`line`].
pub fn plane<M: Module, P: Problem<M>>(
    surface: &mut Surface<'_, M, P>,
    [first, second]: [&[f32]; 2],
    [x, y]: [Vec<f64>; 2],
    mut known: Vec<f64>,
    progress: &mut dyn FnMut(&[f64]) -> bool,
) -> Result<Plane, CurvatureError> {
    let places = y.iter().flat_map(|&second| x.iter().map(move |&first| (first, second)));
    for (along_first, along_second) in places.skip(known.len()) {
        let sum = |(a, b): (&f32, &f32)| (along_first * f64::from(*a) + along_second * f64::from(*b)) as f32;
        let direction: Vec<f32> = first.iter().zip(second).map(sum).collect();
        known.push(surface.loss_at(&direction, 1.0)?);
        if !progress(&known) {
            return Err(CurvatureError::Stopped);
        }
    }
    known.truncate(x.len() * y.len());
    Ok(Plane { x, y, losses: known })
}
