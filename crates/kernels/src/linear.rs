//! A dense layer, `y = x wᵀ + b`, and its backward pass.

use crate::chunks::for_each_chunk;
use crate::precision::Precision;
use crate::product::{Matrix, Terms, product};

/// `y = x wᵀ + bias + residual`: `x [n, input]`, `w [output, input]`, `bias [output]`, `residual` and `y [n, output]`.
pub fn linear(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    n: usize,
    input: usize,
    output: usize,
    precision: Precision,
    y: &mut [f32],
) {
    let (x, w) = (Matrix::row_major(x, n, input), Matrix::row_major(w, output, input));
    product(x, w.transposed(), Terms { bias, residual }, precision, y);
}

/// `dx = dy w`: `dy [n, output]`, `w [output, input]`, `dx [n, input]`.
pub fn linear_backward_input(
    dy: &[f32],
    w: &[f32],
    n: usize,
    input: usize,
    output: usize,
    precision: Precision,
    dx: &mut [f32],
) {
    product(Matrix::row_major(dy, n, output), Matrix::row_major(w, output, input), Terms::default(), precision, dx);
}

/// `dw = dyᵀ x`: `dy [n, output]`, `x [n, input]`, `dw [output, input]`.
pub fn linear_backward_weight(
    dy: &[f32],
    x: &[f32],
    n: usize,
    input: usize,
    output: usize,
    precision: Precision,
    dw: &mut [f32],
) {
    let (dy, x) = (Matrix::row_major(dy, n, output), Matrix::row_major(x, n, input));
    product(dy.transposed(), x, Terms::default(), precision, dw);
}

/// `db[j] = Σ_i dy[i, j]`, the gradient of a bias: `dy [n, output]`, `db [output]`.
pub fn sum_rows(dy: &[f32], n: usize, output: usize, db: &mut [f32]) {
    /// Columns that a task sums, and rows after which its partial sum is added to the total, which keeps the rounding
    /// error of long sums small.
    const COLUMNS: usize = 128;
    const ROWS: usize = 64;
    assert_eq!(dy.len(), n * output, "dy of {n} rows and {output} columns");
    assert_eq!(db.len(), output, "a sum per column");
    for_each_chunk(db, COLUMNS, |start, db| {
        db.fill(0.0);
        for rows in dy.chunks(ROWS * output) {
            let mut partial = [0.0; COLUMNS];
            for row in rows.chunks_exact(output) {
                for (sum, dy) in partial.iter_mut().zip(&row[start..start + db.len()]) {
                    *sum += dy;
                }
            }
            for (db, sum) in db.iter_mut().zip(partial) {
                *db += sum;
            }
        }
    });
}
