//! The square of a tensor's norm, by which gradients are clipped.

use burn::backend::read_sync;

use crate::operator::*;

/// `Σ x²`; on the CPU in `f64`, in one fixed order whatever the number of threads.
pub fn sum_of_squares<const D: usize>(x: &Tensor<D>) -> f64 {
    let x = if x.is_autodiff() { x.clone().inner() } else { x.clone() };
    Dispatch::sum(x.into_dispatch())
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"))]
pub trait SumOfSquares: Backend {
    /// `Σ x²`.
    fn sum(x: Float<Self>) -> f64 {
        plain::<Self>(x)
    }
}

/// [`SumOfSquares::sum`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>) -> f64 {
    let n = x.shape().num_elements();
    // Along a dimension: sums over whole tensors are atomic additions on a GPU, in any order.
    let sum = Array::<B>(x).reshape([1, n]).square().sum(1);
    let data = read_sync(B::float_into_data(sum.0)).expect("the device has not failed");
    data.iter::<f64>().sum()
}

impl SumOfSquares for Flex {
    fn sum(x: FlexTensor) -> f64 {
        match floats([&x]) {
            Some([x]) => kernels::reduce::sum_of_squares(&x),
            None => x.into_data().iter::<f64>().map(|x| x * x).sum(),
        }
    }
}

#[cfg(feature = "vulkan")]
impl SumOfSquares for Cube {}
