//! Rows of a table by number, and the gradient that goes back to them.

use crate::chunks::{for_each_chunk, rows_per_chunk};

/// `out[i] = table[ids[i]]`: `table [rows, width]`, `out [ids, width]`. Every id must be below `rows`.
pub fn gather(table: &[f32], width: usize, ids: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * width, "a row of {width} per id");
    for_each_chunk(out, rows_per_chunk(width) * width.max(1), |start, out| {
        for (out, &id) in out.chunks_exact_mut(width).zip(&ids[start / width..]) {
            out.copy_from_slice(&table[id as usize * width..][..width]);
        }
    });
}

/// `dtable[ids[i]] += dy[i]`, in the order of `ids`.
pub fn scatter_add(dy: &[f32], width: usize, ids: &[u32], dtable: &mut [f32]) {
    assert_eq!(dy.len(), ids.len() * width, "a row of {width} per id");
    if width == 0 {
        return;
    }
    for (dy, &id) in dy.chunks_exact(width).zip(ids) {
        for (sum, dy) in dtable[id as usize * width..][..width].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
}
