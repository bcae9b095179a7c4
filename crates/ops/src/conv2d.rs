//! Convolution of channels-last pictures.

use burn::tensor::ops::ConvOptions;
use kernels::conv2d::Conv2dShape;

use crate::operator::*;

/// `x [B·H·W, C]`, `weight [O, KH, KW, C]` → `[B·H'·W', O]`: cross-correlation, zeros outside the pictures.
pub fn conv2d(x: Tensor<2>, weight: Tensor<4>, shape: Conv2dShape) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as Conv2d>::forward(x.into_dispatch(), weight.into_dispatch(), shape))
}

#[backend_extension(Flex, Cube: cfg(feature = "vulkan"), Autodiff)]
pub trait Conv2d: Backend {
    /// `y [B·H'·W', O]`.
    fn forward(x: Float<Self>, w: Float<Self>, shape: Conv2dShape) -> Float<Self> {
        plain::<Self>(x, w, shape)
    }

    /// `dx [B·H·W, C]`.
    fn gradient_input(dy: Float<Self>, w: Float<Self>, shape: Conv2dShape) -> Float<Self> {
        plain_gradient_input::<Self>(dy, w, shape)
    }

    /// `dw [O, KH, KW, C]`.
    fn gradient_weight(dy: Float<Self>, x: Float<Self>, shape: Conv2dShape) -> Float<Self> {
        plain_gradient_weight::<Self>(dy, x, shape)
    }
}

fn options(shape: Conv2dShape) -> ConvOptions<2> {
    ConvOptions::new(shape.stride, shape.padding, [1; 2], 1)
}

/// Channels last to first and back, for the backend's own convolution.
fn channels_first<B: Backend>(x: Float<B>, dims: [usize; 4]) -> Float<B> {
    B::float_permute(Array::<B>(x).reshape(dims).0, &[0, 3, 1, 2])
}

fn channels_last<B: Backend>(x: Float<B>) -> Array<B> {
    Array(B::float_permute(x, &[0, 2, 3, 1]))
}

fn input_dims(shape: Conv2dShape) -> [usize; 4] {
    [shape.batch, shape.height, shape.width, shape.channels]
}

fn output_dims(shape: Conv2dShape) -> [usize; 4] {
    let [height, width] = shape.output_size();
    [shape.batch, height, width, shape.output]
}

fn weight_dims(shape: Conv2dShape) -> [usize; 4] {
    [shape.output, shape.kernel[0], shape.kernel[1], shape.channels]
}

/// [`Conv2d::forward`] by ordinary operations.
pub fn plain<B: Backend>(x: Float<B>, w: Float<B>, shape: Conv2dShape) -> Float<B> {
    let x = channels_first::<B>(x, input_dims(shape));
    let w = channels_first::<B>(w, weight_dims(shape));
    let [batch, height, width, output] = output_dims(shape);
    channels_last::<B>(B::conv2d(x, w, None, options(shape))).reshape([batch * height * width, output]).0
}

/// [`Conv2d::gradient_input`] by ordinary operations.
pub fn plain_gradient_input<B: Backend>(dy: Float<B>, w: Float<B>, shape: Conv2dShape) -> Float<B> {
    let [batch, height, width, channels] = input_dims(shape);
    let x = Array::<B>(dy.clone()).full(0.0, [batch, channels, height, width]).0;
    let dy = channels_first::<B>(dy, output_dims(shape));
    let w = channels_first::<B>(w, weight_dims(shape));
    let dx = B::conv2d_x_backward(x, w, dy, options(shape));
    channels_last::<B>(dx).reshape([batch * height * width, channels]).0
}

/// [`Conv2d::gradient_weight`] by ordinary operations.
pub fn plain_gradient_weight<B: Backend>(dy: Float<B>, x: Float<B>, shape: Conv2dShape) -> Float<B> {
    let [output, height, width, channels] = weight_dims(shape);
    let w = Array::<B>(dy.clone()).full(0.0, [output, channels, height, width]).0;
    let dy = channels_first::<B>(dy, output_dims(shape));
    let x = channels_first::<B>(x, input_dims(shape));
    channels_last::<B>(B::conv2d_weight_backward(x, w, dy, options(shape))).0
}

impl Conv2d for Flex {
    fn forward(x: FlexTensor, w: FlexTensor, shape: Conv2dShape) -> FlexTensor {
        let Some([x, w]) = floats([&x, &w]) else { return plain::<Self>(x, w, shape) };
        let [batch, height, width, channels] = output_dims(shape);
        output([batch * height * width, channels], |y| kernels::conv2d::conv2d(&x, &w, None, shape, y))
    }

    fn gradient_input(dy: FlexTensor, w: FlexTensor, shape: Conv2dShape) -> FlexTensor {
        let Some([dy, w]) = floats([&dy, &w]) else { return plain_gradient_input::<Self>(dy, w, shape) };
        let [batch, height, width, channels] = input_dims(shape);
        output([batch * height * width, channels], |dx| kernels::conv2d::conv2d_backward_input(&dy, &w, shape, dx))
    }

    fn gradient_weight(dy: FlexTensor, x: FlexTensor, shape: Conv2dShape) -> FlexTensor {
        let Some([dy, x]) = floats([&dy, &x]) else { return plain_gradient_weight::<Self>(dy, x, shape) };
        output(weight_dims(shape), |dw| kernels::conv2d::conv2d_backward_weight(&dy, &x, shape, dw))
    }
}

#[cfg(feature = "vulkan")]
impl Conv2d for Cube {}

impl<B: Conv2d, C: CheckpointStrategy> Conv2d for Autodiff<B, C> {
    fn forward(x: Float<Self>, w: Float<Self>, shape: Conv2dShape) -> Float<Self> {
        let ([x, w], nodes) = parts::<B, C, 2>([x, w]);
        let y = B::forward(x.clone(), w.clone(), shape);
        record::<B, C, 2>(nodes, y, move |dy, [of_x, of_w]| {
            [of_x.then(|| B::gradient_input(dy.clone(), w, shape)), of_w.then(|| B::gradient_weight(dy, x, shape))]
        })
    }
}
