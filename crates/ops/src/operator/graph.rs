//! Operators in the graph of gradients.

use std::fmt;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops};

use super::*;

/// The tensors of some tracked inputs, and their nodes.
pub(crate) fn parts<B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: [Float<Autodiff<B, C>>; N],
) -> ([Float<B>; N], [NodeGuard; N]) {
    let nodes = inputs.each_ref().map(|input| input.node());
    (inputs.map(|input| input.into_primitive()), nodes)
}

/// Gives an operator's output its place behind the nodes of its inputs.
///
/// `gradient` is called at most once, with the output's gradient and with which inputs want one; it returns theirs. It
/// owns what the backward pass needs, and is dropped here if no input is tracked.
pub(crate) fn record<B: Backend, C: CheckpointStrategy, const N: usize>(
    inputs: [NodeGuard; N],
    output: Float<B>,
    gradient: impl FnOnce(Float<B>, [bool; N]) -> [Option<Float<B>>; N] + Send + 'static,
) -> Float<Autodiff<B, C>> {
    Step(gradient).prepare::<C>(inputs).compute_bound().stateless(output)
}

/// A backward pass that is yet to come. The closure holds the state, whose type Burn would like to be told.
struct Step<F>(F);

impl<F> fmt::Debug for Step<F> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Step")
    }
}

impl<B: Backend, F, const N: usize> Backward<B, N> for Step<F>
where
    F: FnOnce(Float<B>, [bool; N]) -> [Option<Float<B>>; N] + Send + 'static,
{
    type State = ();

    fn backward(self, ops: Ops<(), N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let of_output = gradients.consume::<B>(&ops.node);
        let of_inputs = self.0(of_output, ops.parents.each_ref().map(Option::is_some));
        for (node, gradient) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}
