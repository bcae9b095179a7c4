//! Rows of a table, and the dense gradient of the table.

use std::sync::Arc;

use crate::operator::*;

/// `table [V, D]`, ids below `V` → `[N, D]`.
///
/// The caller has checked the ids: a tokenizer that does not belong to the model is an error when both are loaded.
pub fn embedding(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::forward(table.into_dispatch(), ids.into()))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Embedding: Backend {
    /// `y[i] = table[ids[i]]`.
    fn forward(table: Float<Self>, ids: Arc<[u32]>) -> Float<Self> {
        plain::<Self>(table, &ids)
    }

    /// `dtable[ids[i]] += dy[i]`, in the order of the ids, for a table of `rows`.
    fn gradient(dy: Float<Self>, ids: Arc<[u32]>, rows: usize) -> Float<Self> {
        plain_gradient::<Self>(dy, &ids, rows)
    }
}

fn indices<B: Backend>(ids: &[u32], like: &Array<B>) -> burn::backend::tensor::IntTensor<B> {
    integers::<B>(ids.iter().map(|&id| id.into()), [ids.len()], &like.0.device())
}

/// [`Embedding::forward`] by ordinary operations.
pub fn plain<B: Backend>(table: Float<B>, ids: &[u32]) -> Float<B> {
    let table = Array::<B>(table);
    let ids = indices(ids, &table);
    table.rows(ids).0
}

/// [`Embedding::gradient`] by ordinary operations.
pub fn plain_gradient<B: Backend>(dy: Float<B>, ids: &[u32], rows: usize) -> Float<B> {
    let dy = Array::<B>(dy);
    let [_, width] = dy.dims();
    dy.full(0.0, [rows, width]).add_rows(indices(ids, &dy), dy).0
}

impl Embedding for Flex {
    fn forward(table: FlexTensor, ids: Arc<[u32]>) -> FlexTensor {
        let Some([table]) = floats([&table]) else { return plain::<Self>(table, &ids) };
        let [_, width] = table.dims();
        output([ids.len(), width], |y| kernels::embedding::gather(&table, width, &ids, y))
    }

    fn gradient(dy: FlexTensor, ids: Arc<[u32]>, rows: usize) -> FlexTensor {
        let Some([dy]) = floats([&dy]) else { return plain_gradient::<Self>(dy, &ids, rows) };
        let [_, width] = dy.dims();
        output([rows, width], |dtable| {
            dtable.fill(0.0);
            kernels::embedding::scatter_add(&dy, width, &ids, dtable);
        })
    }
}

#[cfg(feature = "vulkan")]
impl Embedding for Cube {}

impl<B: Embedding, C: CheckpointStrategy> Embedding for Autodiff<B, C> {
    fn forward(table: Float<Self>, ids: Arc<[u32]>) -> Float<Self> {
        let ([table], nodes) = parts::<B, C, 1>([table]);
        let rows = table.shape()[0];
        record::<B, C, 1>(nodes, B::forward(table, ids.clone()), move |dy, _| [Some(B::gradient(dy, ids, rows))])
    }
}
