//! Tensors whose gradient is shown as soon as it is there, while the backward pass goes on.

use std::fmt;
use std::sync::Arc;

use burn::backend::read_sync;
use burn::tensor::Device;

use crate::operator::*;

/// Is shown a gradient, row after row.
#[derive(Clone)]
pub struct Watcher(Arc<See>);

type See = dyn Fn(&[f32]) + Send + Sync;

impl Watcher {
    /// By a function.
    pub fn new(see: impl Fn(&[f32]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(see))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// How far from its beginning Burn takes a tensor to be: a number without meaning, of which nothing depends on the value.
///
/// A backward pass takes the operations by their distance from the leaves, the most distant ones first. What reads a
/// parameter alone is one step from a leaf, and its turn would come at the very end.
#[derive(Clone)]
pub struct Rung(Tensor<1>);

impl Rung {
    /// At the beginning.
    pub fn bottom(device: &Device) -> Self {
        Self(Tensor::zeros([1], &device.clone().autodiff()).require_grad())
    }

    /// So many steps further.
    pub fn up(self, steps: usize) -> Self {
        Self((0..steps).fold(self.0, |rung, _| -rung))
    }
}

/// `x` itself. The backward pass shows the watcher its gradient once, when all that reads `x` has given its part. If `x` is
/// a parameter, that is its gradient; and if the rung is at least as far as what else is read where `x` is first read,
/// most of what comes before that in the graph is still to be computed then.
pub fn watched<const D: usize>(x: Tensor<D>, rung: &Rung, watcher: Watcher) -> Tensor<D> {
    let rung = rung.0.clone().into_dispatch();
    Tensor::from_dispatch(<Dispatch as Watched>::watch(x.into_dispatch(), rung, watcher))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Watched: Backend {
    /// `x`.
    fn watch(x: Float<Self>, _rung: Float<Self>, _watcher: Watcher) -> Float<Self> {
        x
    }

    /// Shows a gradient, and returns it.
    fn show(gradient: Float<Self>, watcher: Watcher) -> Float<Self> {
        let data = read_sync(Self::float_into_data(gradient.clone())).expect("the device has not failed");
        (watcher.0)(&data.iter::<f32>().collect::<Vec<f32>>());
        gradient
    }
}

impl Watched for Flex {
    fn show(gradient: FlexTensor, watcher: Watcher) -> FlexTensor {
        match floats([&gradient]) {
            Some([numbers]) => (watcher.0)(&numbers),
            None => (watcher.0)(&gradient.clone().into_data().iter::<f32>().collect::<Vec<f32>>()),
        }
        gradient
    }
}

#[cfg(feature = "vulkan")]
impl Watched for Cube {}

impl<B: Watched, C: CheckpointStrategy> Watched for Autodiff<B, C> {
    fn watch(x: Float<Self>, rung: Float<Self>, watcher: Watcher) -> Float<Self> {
        let ([x, rung], nodes) = parts::<B, C, 2>([x, rung]);
        record::<B, C, 2>(nodes, x, move |gradient, [of_x, of_rung]| {
            // A rung takes part in the backward pass, and wants a gradient.
            let nothing = of_rung.then(|| B::float_zeros(rung.shape(), &rung.device(), rung.dtype().into()));
            [of_x.then(|| B::show(gradient, watcher)), nothing]
        })
    }
}
