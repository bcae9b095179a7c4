//! Residual networks for 32×32 pictures (He et al., 1512.03385, section 4.2), channels last.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lapidary_ops as ops;

use crate::layer::{BatchNorm, Conv2d, Initializer, Linear, Pictures};
use crate::pass::Pass;

/// Sizes of a residual network.
#[derive(Clone, Debug)]
pub struct ResNetConfig {
    /// `n`: the network has `6n + 2` layers with weights, 20 for 3.
    pub blocks_per_stage: usize,
    /// Channels of the three stages.
    pub channels: [usize; 3],
    /// Classes to tell apart.
    pub classes: usize,
}

impl ResNetConfig {
    /// ResNet-20 for CIFAR-10.
    pub fn resnet20() -> Self {
        Self { blocks_per_stage: 3, channels: [16, 32, 64], classes: 10 }
    }
}

/// Pictures to logits of classes.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvNorm,
    blocks: Vec<ResidualBlock>,
    head: Linear,
}

/// A convolution and its norm.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

/// `relu(second(relu(first(x))) + shortcut(x))`.
#[derive(Module, Debug)]
struct ResidualBlock {
    first: ConvNorm,
    second: ConvNorm,
    /// Where size or channels change: option B of section 4.1.
    shortcut: Option<ConvNorm>,
}

impl ConvNorm {
    fn new(input: usize, output: usize, kernel: usize, stride: usize, init: &mut Initializer) -> Self {
        Self { conv: Conv2d::new(input, output, kernel, stride, init), norm: BatchNorm::new(output, init) }
    }

    fn forward(&self, pictures: Pictures, residual: Option<Tensor<2>>, relu: bool, pass: &Pass) -> Pictures {
        let pictures = self.conv.forward(pictures, pass); // [B·H'·W', O]
        Pictures { x: self.norm.forward(pictures.x, residual, relu, pass), ..pictures }
    }
}

impl ResidualBlock {
    fn new(input: usize, output: usize, stride: usize, init: &mut Initializer) -> Self {
        let changes = input != output || stride != 1;
        Self {
            first: ConvNorm::new(input, output, 3, stride, init),
            second: ConvNorm::new(output, output, 3, 1, init),
            shortcut: changes.then(|| ConvNorm::new(input, output, 1, stride, init)),
        }
    }

    fn forward(&self, pictures: Pictures, pass: &Pass) -> Pictures {
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(pictures.clone(), None, false, pass).x,
            None => pictures.x.clone(),
        };
        let inner = self.first.forward(pictures, None, true, pass);
        self.second.forward(inner, Some(residual), true, pass)
    }
}

impl ResNet {
    /// Fresh weights on `device`.
    pub fn new(config: &ResNetConfig, seed: u64, device: &Device) -> Self {
        let init = &mut Initializer::new(seed, 0.01, device);
        let [first, _, last] = config.channels;
        let stem = ConvNorm::new(3, first, 3, 1, init);
        let mut blocks = Vec::new();
        let mut input = first;
        for (stage, &output) in config.channels.iter().enumerate() {
            for block in 0..config.blocks_per_stage {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                blocks.push(ResidualBlock::new(input, output, stride, init));
                input = output;
            }
        }
        Self { stem, blocks, head: Linear::new(last, config.classes, true, init) }
    }

    /// `[B·H·W, 3]` → logits `[B, classes]`.
    pub fn logits(&self, pictures: Pictures, pass: &Pass) -> Tensor<2> {
        let batch = pictures.batch;
        let pictures = Pictures { x: pictures.x.cast(self.head.weight.val().dtype()), ..pictures };
        let stem = self.stem.forward(pictures, None, true, pass); // [B·H·W, C]
        let last = self.blocks.iter().fold(stem, |x, block| block.forward(x, pass)); // [B·H'·W', C']
        self.head.forward(ops::average_pool(last.x, batch), pass) // [B, C'] inside
    }
}
