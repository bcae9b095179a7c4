//! Convolution over channels-last pictures.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lapidary_kernels::conv2d::Conv2dShape;
use lapidary_ops as ops;

use super::Initializer;
use crate::pass::Pass;
use crate::taps::LayerInput;

/// Pictures between layers: `[B·H·W, C]`, the channels of a place side by side.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// `[B·H·W, C]`.
    pub x: Tensor<2>,
    /// `B`.
    pub batch: usize,
    /// `H`.
    pub height: usize,
    /// `W`.
    pub width: usize,
}

/// A square convolution without bias, padded so that a stride of 1 keeps the size.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[O, K, K, C]`.
    pub weight: Param<Tensor<4>>,
    #[module(skip)]
    stride: usize,
}

impl Conv2d {
    /// Normal weights of variance `2 / (K·K·C)` (He et al., 1502.01852, eq. 10); `kernel` is odd.
    pub fn new(input: usize, output: usize, kernel: usize, stride: usize, init: &mut Initializer) -> Self {
        let deviation = (2.0 / (kernel * kernel * input) as f32).sqrt();
        Self { weight: init.normal_of(deviation, [output, kernel, kernel, input]), stride }
    }

    /// `[B·H·W, C]` → `[B·H'·W', O]`.
    pub fn forward(&self, pictures: Pictures, pass: &Pass) -> Pictures {
        let Pictures { x, batch, height, width } = pictures;
        let weight = self.weight.val();
        let [output, kernel, _, channels] = weight.dims();
        let shape = Conv2dShape {
            batch,
            height,
            width,
            channels,
            output,
            kernel: [kernel; 2],
            stride: [self.stride; 2],
            padding: [kernel / 2; 2],
        };
        let [height, width] = shape.output_size();
        let x = match pass.taps() {
            Some(taps) => {
                let y = ops::conv2d(x.clone(), weight, shape);
                taps.tap(self.weight.id, LayerInput::Pictures(x, shape), y)
            }
            None => ops::conv2d(x, weight, shape),
        };
        Pictures { x, batch, height, width }
    }
}
