//! Some of a model's parameters as one vector.

use std::ops::Range;

use burn::module::Module;
use lapidary_models::parameters;

use crate::CurvatureError;

/// Which parameters an operator is over, one behind the other in the order of the model's fields: all of them, a layer,
/// a matrix, or parts of a matrix such as the rows of a head or of a quantization group.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    pieces: Vec<Piece>,
    dim: usize,
}

/// Some elements of a parameter, side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// Field names from the model's root, joined by dots.
    pub path: String,
    /// Of the whole parameter.
    pub shape: Vec<usize>,
    /// Among the parameter's elements, row-major.
    pub elements: Range<usize>,
    /// Where they lie in the vector.
    pub offset: usize,
}

impl Selection {
    /// The trained parameters whose paths are wanted.
    ///
    /// # Errors
    /// There are none.
    pub fn of<M: Module>(model: &M, wanted: impl Fn(&str) -> bool) -> Result<Self, CurvatureError> {
        let all = |path: &str, shape: &[usize]| wanted(path).then(|| 0..shape.iter().product()).into_iter().collect();
        Self::parts_of(model, all)
    }

    /// Runs of elements of trained parameters, ascending and apart, as `wanted` names them for a path and a shape.
    ///
    /// # Errors
    /// There are none; runs that overlap or reach beyond a parameter.
    pub fn parts_of<M: Module>(
        model: &M,
        wanted: impl Fn(&str, &[usize]) -> Vec<Range<usize>>,
    ) -> Result<Self, CurvatureError> {
        let (mut pieces, mut dim, mut fault) = (Vec::new(), 0, None);
        parameters::visit(model, &mut |parameter| {
            if !parameter.trained {
                return;
            }
            let (path, shape) = (parameter.path.to_owned(), parameter.shape.to_vec());
            let mut reached = 0;
            for elements in wanted(&path, &shape) {
                if elements.start < reached || elements.end > shape.iter().product() {
                    fault = Some(CurvatureError::Run { path: path.clone(), start: elements.start, end: elements.end });
                }
                reached = elements.end;
                let length = elements.len();
                if length > 0 {
                    pieces.push(Piece { path: path.clone(), shape: shape.clone(), elements, offset: dim });
                    dim += length;
                }
            }
        });
        match fault {
            Some(fault) => Err(fault),
            None if dim == 0 => Err(CurvatureError::Empty),
            None => Ok(Self { pieces, dim }),
        }
    }

    /// Elements in all.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// In the order of the vector.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Those of one parameter.
    pub fn of_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Piece> {
        self.pieces.iter().filter(move |piece| piece.path == path)
    }

    /// A parameter that is in it with all its elements.
    pub fn whole(&self, path: &str) -> Option<&Piece> {
        let first = self.pieces.iter().find(|piece| piece.path == path)?;
        (first.elements == (0..first.shape.iter().product())).then_some(first)
    }

    /// Whether a parameter has a part in it.
    pub fn has(&self, path: &str) -> bool {
        self.of_path(path).next().is_some()
    }
}

impl Piece {
    /// Its place in the vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.elements.len()
    }
}
