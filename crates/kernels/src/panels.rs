//! The inner loop of every matrix product, and the small products inside one thread that attention needs of a head.
//!
//! The right factor is packed into panels of [`LANES`] columns, `[columns / LANES][depth][LANES]`, filled up with
//! zeros, so that the inner loop reads it in order and has no remainder. The left factor is read through strides,
//! which transposes for free. A tile of the output, some rows of one panel, is summed in registers.

use crate::simd::{LANES, Simd};

/// Runs `$body` with the constant `$HEIGHT` equal to `$height`, which is 1 to `$most`, and that at most 12.
macro_rules! for_height {
    ($height:expr, $most:expr, $HEIGHT:ident => $body:block) => {
        for_height!(@ $height, $most, $HEIGHT => $body, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $height:expr, $most:expr, $HEIGHT:ident => $body:block, $($value:literal)*) => {
        match $height {
            // The guard is known when compiling: no code is made for heights that do not occur.
            $($value if $value <= $most => {
                const $HEIGHT: usize = $value;
                $body
            })*
            other => unreachable!("a tile of {other} rows"),
        }
    };
}
pub(crate) use for_height;

/// `columns` rounded up to whole panels.
pub(crate) fn padded(columns: usize) -> usize {
    columns.next_multiple_of(LANES)
}

/// Packs `b [depth, columns]`, row-major with `stride`, into `panels`.
#[inline(always)]
pub(crate) fn pack(b: &[f32], stride: usize, depth: usize, columns: usize, panels: &mut [f32]) {
    let panels = panels[..depth * padded(columns)].chunks_exact_mut(depth * LANES);
    for (panel, start) in panels.zip((0..columns).step_by(LANES)) {
        let width = LANES.min(columns - start);
        for (k, out) in panel.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let row = &b[k * stride + start..][..width];
            match row.try_into() {
                Ok(row) => *out = row,
                Err(_) => {
                    *out = [0.0; LANES];
                    out[..width].copy_from_slice(row);
                }
            }
        }
    }
}

/// Packs the transpose of `b [columns, depth]`, row-major with `stride`, into `panels`.
#[inline(always)]
pub(crate) fn pack_transposed(b: &[f32], stride: usize, depth: usize, columns: usize, panels: &mut [f32]) {
    let panels = panels[..depth * padded(columns)].chunks_exact_mut(depth * LANES);
    for (panel, start) in panels.zip((0..columns).step_by(LANES)) {
        let width = LANES.min(columns - start);
        let panel = panel.as_chunks_mut::<LANES>().0;
        if width < LANES {
            panel.fill([0.0; LANES]);
        }
        for lane in 0..width {
            let row = &b[(start + lane) * stride..][..depth];
            for (out, b) in panel.iter_mut().zip(row) {
                out[lane] = *b;
            }
        }
    }
}

/// A left factor: element (i, k) is at `i * row + k * depth`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub depth: usize,
}

/// A right factor in panels, packed `depth` deep.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a> {
    pub panels: &'a [f32],
    pub depth: usize,
}

/// `c = scale a b`, or `c += scale a b` where `accumulate`.
///
/// `a [rows, depth]`; `b [depth, columns]`, which may be the first part of a deeper and wider packed factor;
/// `c [rows, columns]` has rows of `stride`. `columns` must be a multiple of [`LANES`].
#[inline(always)]
pub(crate) fn product<S: Simd>(
    a: Left,
    b: Right,
    (rows, depth, columns): (usize, usize, usize),
    scale: f32,
    c: &mut [f32],
    stride: usize,
    accumulate: bool,
) {
    if rows == 0 || depth == 0 || columns == 0 {
        return;
    }
    assert!(a.data.len() > (rows - 1) * a.row + (depth - 1) * a.depth, "the left factor ends within its slice");
    // As many tiles as need be, of nearly equal height: 13 rows are 5 + 4 + 4, since lower tiles than 4 leave the
    // multipliers waiting for each other.
    let tiles = rows.div_ceil(S::TILE);
    for (panel, column) in b.panels.chunks_exact(b.depth * LANES).zip((0..columns).step_by(LANES)) {
        let panel = &panel.as_chunks::<LANES>().0[..depth];
        for tile in 0..tiles {
            let (start, end) = (tile * rows / tiles, (tile + 1) * rows / tiles);
            let a = Left { data: &a.data[start * a.row..], ..a };
            let c = &mut c[start * stride + column..];
            for_height!(end - start, S::TILE, HEIGHT => {
                for (row, [sum]) in tile_sums::<S, HEIGHT, 1>(a, [panel]).into_iter().enumerate() {
                    let c = &mut c[row * stride..].as_chunks_mut::<LANES>().0[0];
                    let before = if accumulate { *c } else { [0.0; LANES] };
                    store::<S>(sum, scale, &before, c);
                }
            });
        }
    }
}

/// The sums over `k` of `a(row, k) panel[k]` for `HEIGHT` rows and each of the panels, which are of one depth, in the order
/// of `k`.
#[inline(always)]
pub(crate) fn tile_sums<S: Simd, const HEIGHT: usize, const SIDE: usize>(
    a: Left,
    panels: [&[[f32; LANES]]; SIDE],
) -> [[S::Lanes; SIDE]; HEIGHT] {
    // SAFETY, here and below: kernels are instantiated for a set by `dispatch`, where the processor has it.
    let mut sums = [[unsafe { S::splat(0.0) }; SIDE]; HEIGHT];
    let depth = panels[0].len();
    assert!(panels.iter().all(|panel| panel.len() == depth), "panels of one depth");
    assert!(depth == 0 || a.data.len() > (HEIGHT - 1) * a.row + (depth - 1) * a.depth, "a tile of the factor");
    // Four steps a turn: the compiler does not unroll a loop of this size by itself.
    let whole = depth / 4 * 4;
    for quad in (0..whole).step_by(4) {
        for k in quad..quad + 4 {
            step::<S, HEIGHT, SIDE>(a, k, &panels, &mut sums);
        }
    }
    for k in whole..depth {
        step::<S, HEIGHT, SIDE>(a, k, &panels, &mut sums);
    }
    sums
}

/// Adds `a(row, k) panel[k]` to the sums of each row, `a` and the panels being asserted to have the elements.
#[inline(always)]
fn step<S: Simd, const HEIGHT: usize, const SIDE: usize>(
    a: Left,
    k: usize,
    panels: &[&[[f32; LANES]]; SIDE],
    sums: &mut [[S::Lanes; SIDE]; HEIGHT],
) {
    // SAFETY: row < HEIGHT and k is less than the depth, for which `tile_sums` asserts that the elements are there.
    let b: [S::Lanes; SIDE] = std::array::from_fn(|side| unsafe { S::load(panels[side].get_unchecked(k)) });
    for (row, sums) in sums.iter_mut().enumerate() {
        // SAFETY: as above.
        let a = unsafe { S::splat(*a.data.get_unchecked(row * a.row + k * a.depth)) };
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = unsafe { S::mul_add(a, b, *sum) };
        }
    }
}

/// `c = before + scale sum`.
#[inline(always)]
pub(crate) fn store<S: Simd>(sum: S::Lanes, scale: f32, before: &[f32; LANES], c: &mut [f32; LANES]) {
    // SAFETY: kernels are instantiated for a set by `dispatch`, where the processor has it.
    unsafe { S::store(S::mul_add(sum, S::splat(scale), S::load(before)), c) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    /// The lanes of `Portable` in the tall tiles of AVX-512.
    struct Tall;

    impl Simd for Tall {
        const FMA: bool = false;
        const TILE: usize = 12;
        type Lanes = <Portable as Simd>::Lanes;

        unsafe fn splat(x: f32) -> Self::Lanes {
            unsafe { Portable::splat(x) }
        }
        unsafe fn load(x: &[f32; LANES]) -> Self::Lanes {
            unsafe { Portable::load(x) }
        }
        unsafe fn store(x: Self::Lanes, to: &mut [f32; LANES]) {
            unsafe { Portable::store(x, to) }
        }
        unsafe fn mul_add(a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
            unsafe { Portable::mul_add(a, b, c) }
        }
    }

    /// Small integers, so that every sum is exact.
    fn integers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * i % 11) as f32 - 5.0).collect()
    }

    fn check<S: Simd>(rows: usize, depth: usize, columns: usize) {
        let (a, b) = (integers(rows * depth), integers(depth * columns));
        let b_transposed: Vec<f32> = (0..columns * depth).map(|i| b[i % depth * columns + i / depth]).collect();
        let stride = padded(columns);
        let (mut panels, mut again) = (vec![f32::NAN; depth * stride], vec![f32::NAN; depth * stride]);
        pack(&b, columns, depth, columns, &mut panels);
        pack_transposed(&b_transposed, depth, depth, columns, &mut again);
        assert_eq!(panels, again);

        let mut c = vec![1.0; rows * stride];
        let right = Right { panels: &panels, depth };
        // Twice, the second time with the left factor stored transposed: 1 + 2 (a b) + 2 (a b).
        let a_transposed: Vec<f32> = (0..rows * depth).map(|i| a[i % rows * depth + i / rows]).collect();
        let lefts = [Left { data: &a, row: depth, depth: 1 }, Left { data: &a_transposed, row: 1, depth: rows }];
        for left in lefts {
            product::<S>(left, right, (rows, depth, stride), 2.0, &mut c, stride, true);
        }
        for i in 0..rows {
            for j in 0..columns {
                let sum: f32 = (0..depth).map(|k| a[i * depth + k] * b[k * columns + j]).sum();
                assert_eq!(c[i * stride + j], 1.0 + 4.0 * sum, "({i}, {j}) of {rows}x{depth}x{columns}");
            }
        }
    }

    #[test]
    fn products_of_every_height() {
        for rows in 1..30 {
            check::<Portable>(rows, 7, 21);
            check::<Tall>(rows, 5, 16);
        }
        check::<Portable>(13, 1, 1);
    }
}
