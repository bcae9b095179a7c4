//! Two-dimensional convolution of channels-last images, and its backward pass.
//!
//! Images are `[batch, height, width, channels]`, weights `[output, kernel height, kernel width, channels]`: the order
//! in memory of PyTorch's `channels_last`. A kernel row then meets `kernel width * channels` contiguous numbers of a
//! padded image, so the product with the patch matrix is summed straight from the image, and neither the matrix nor
//! tiles of it are ever formed. Only the rows that a task reads are copied, with their padding, and only where there is
//! any.

mod buffer;
mod correlation;
mod patches;
mod weight;

pub use patches::{patch_products, patch_sums};
pub use weight::conv2d_backward_weight;

use correlation::{Correlation, correlate};

/// The shape of a convolution, `kernel`, `stride` and `padding` (of zeros, on both sides) as `[rows, columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dShape {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub output: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
}

impl Conv2dShape {
    /// Rows and columns of the output; 0 where the kernel is larger than the padded image.
    pub fn output_size(&self) -> [usize; 2] {
        let image = [self.height, self.width];
        std::array::from_fn(|i| match (image[i] + 2 * self.padding[i]).checked_sub(self.kernel[i]) {
            Some(room) => room / self.stride[i] + 1,
            None => 0,
        })
    }

    /// The length of `x`.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// The length of `y`.
    pub fn output_len(&self) -> usize {
        let [height, width] = self.output_size();
        self.batch * height * width * self.output
    }

    /// The numbers that an output element is a sum over: `kernel height * kernel width * channels`.
    pub fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// The length of `w`.
    pub fn weight_len(&self) -> usize {
        self.output * self.depth()
    }

    /// Multiplications of one pass, forward or backward, each with an addition.
    pub fn products(&self) -> usize {
        self.output_len() * self.depth()
    }

    fn check(&self, x: &[f32], w: &[f32], y: &[f32]) {
        assert!(self.kernel.iter().chain(&self.stride).all(|&n| n > 0), "a kernel and a stride: {self:?}");
        assert_eq!(x.len(), self.input_len(), "the images of {self:?}");
        assert_eq!(w.len(), self.weight_len(), "the weights of {self:?}");
        assert_eq!(y.len(), self.output_len(), "the output of {self:?}");
    }
}

/// `y[n, i, j, o] = bias[o] + Σ w[o, a, b, c] x[n, stride i + a - padding, stride j + b - padding, c]` over `a`, `b` and
/// `c`, with `x` zero outside the image: cross-correlation, as everywhere in deep learning.
pub fn conv2d(x: &[f32], w: &[f32], bias: Option<&[f32]>, shape: Conv2dShape, y: &mut [f32]) {
    shape.check(x, w, y);
    assert!(bias.is_none_or(|bias| bias.len() == shape.output), "a bias per output channel");
    correlate(&[Correlation::forward(shape, w)], x, bias, shape.batch, y);
}

/// The gradient of [`conv2d`] with respect to `x`, given that of `y`.
pub fn conv2d_backward_input(dy: &[f32], w: &[f32], shape: Conv2dShape, dx: &mut [f32]) {
    shape.check(dx, w, dy);
    correlate(&Correlation::backward(shape, w), dy, None, shape.batch, dx);
}
