//! Rows of a table, and the dense gradient of the table.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use super::*;
use lapidary_kernels as kernels;

/// `table [V, D]`, ids below `V` → `[N, D]`.
///
/// The caller has checked the ids: a tokenizer that does not belong to the model is an error when both are loaded.
pub fn embedding(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    dispatch(<Dispatch as Kernels>::fused_embedding(table.into_dispatch(), ids.into()))
}

pub(super) fn forward(table: FlexTensor, ids: &[u32]) -> FlexTensor {
    let table = table.to_contiguous();
    let (_, width) = rows_columns(&table);
    let mut out = Buffer::new(ids.len() * width);
    kernels::embedding::gather(floats(&table), width, ids, &mut out);
    out.into_tensor([ids.len(), width])
}

pub(super) fn grad(dy: FlexTensor, ids: &[u32], rows: usize) -> FlexTensor {
    let dy = dy.to_contiguous();
    let (_, width) = rows_columns(&dy);
    let mut dtable = Buffer::new(rows * width);
    dtable.fill(0.0);
    kernels::embedding::scatter_add(floats(&dy), width, ids, &mut dtable);
    dtable.into_tensor([rows, width])
}

#[derive(Debug)]
struct EmbeddingBackward;

impl<B: Backend + Kernels> Backward<B, 1> for EmbeddingBackward {
    type State = (Arc<[u32]>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (ids, rows) = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::embedding_grad(dy, ids, rows));
        }
    }
}

pub(super) fn track<B: Backend + Kernels, C: CheckpointStrategy>(
    table: Tracked<B, C>,
    ids: Arc<[u32]>,
) -> Tracked<B, C> {
    match EmbeddingBackward.prepare::<C>([table.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let table = table.into_primitive();
            let rows = burn::backend::TensorMetadata::shape(&table)[0];
            prep.finish((ids.clone(), rows), B::fused_embedding(table, ids))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::fused_embedding(table.into_primitive(), ids)),
    }
}
