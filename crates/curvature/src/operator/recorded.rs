//! Products that are kept on disk, so that work that was stopped can be taken up again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::LinearOperator;
use crate::CurvatureError;

/// An operator whose products are written to a file one after the other, and read from it as far as it goes.
///
/// The methods of this crate ask for the same products in the same order whenever they get the same answers, so that
/// one that was stopped is soon where it was. `dim` numbers of four bytes a product.
pub struct Recorded<'a, O> {
    operator: O,
    path: PathBuf,
    file: BufReader<File>,
    /// Products in the file.
    known: usize,
    /// Products asked for.
    asked: usize,
    go_on: &'a dyn Fn() -> bool,
}

impl<'a, O: LinearOperator> Recorded<'a, O> {
    /// `go_on` is asked before each product that is not in the file yet; where it says no, the product is an error.
    ///
    /// # Errors
    /// A file that cannot be opened.
    pub fn new(operator: O, path: &Path, go_on: &'a dyn Fn() -> bool) -> Result<Self, CurvatureError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| failed(path, error))?;
        let bytes = file.metadata().map_err(|error| failed(path, error))?.len();
        // One that was cut off does not count, and is written over.
        let known = (bytes / (4 * operator.dim().max(1)) as u64) as usize;
        Ok(Self { operator, path: path.to_owned(), file: BufReader::new(file), known, asked: 0, go_on })
    }

    /// Products that were in the file.
    pub fn known(&self) -> usize {
        self.known
    }

    fn read(&mut self, out: &mut [f32]) -> io::Result<()> {
        let mut bytes = vec![0; 4 * out.len()];
        self.file.read_exact(&mut bytes)?;
        let numbers = bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        out.iter_mut().zip(numbers).for_each(|(out, number)| *out = number);
        Ok(())
    }

    fn write(&mut self, product: &[f32]) -> io::Result<()> {
        let bytes: Vec<u8> = product.iter().flat_map(|number| number.to_le_bytes()).collect();
        let file = self.file.get_mut();
        file.seek(io::SeekFrom::Start(self.asked as u64 * bytes.len() as u64))?;
        file.write_all(&bytes)
    }
}

impl<O: LinearOperator> LinearOperator for Recorded<'_, O> {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&mut self, v: &[f32], out: &mut [f32]) -> Result<(), CurvatureError> {
        if self.asked < self.known {
            self.read(out).map_err(|error| failed(&self.path, error))?;
        } else {
            if !(self.go_on)() {
                return Err(CurvatureError::Stopped);
            }
            self.operator.apply(v, out)?;
            self.write(out).map_err(|error| failed(&self.path, error))?;
        }
        self.asked += 1;
        Ok(())
    }
}

fn failed(path: &Path, error: io::Error) -> CurvatureError {
    CurvatureError::Record { path: path.to_owned(), error }
}
