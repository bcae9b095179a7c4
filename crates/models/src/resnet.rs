//! Residual networks for 32×32 pictures (He et al., 1512.03385, section 4.2), channels last.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_ops as ops;
use serde_json::{Map, Value, json};

use crate::checkpoint::{CheckpointError, TorchFile, TorchTensor};
use crate::classifier::{Checkpointed, Matrix};
use crate::error::ModelError;
use crate::layer::{BatchNorm, Conv2d, Initializer, Linear, Pictures};
use crate::parameters;
use crate::pass::Pass;

/// What goes around a block where size and channels change (section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// Every second place, with channels of zeros on both sides: the paper's option A, its choice for CIFAR-10, without
    /// parameters.
    Padded,
    /// A convolution with its norm: option B.
    Projected,
}

/// Sizes of a residual network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResNetConfig {
    /// `n`: the network has `6n + 2` layers with weights, 20 for 3.
    pub blocks_per_stage: usize,
    /// Channels of the three stages.
    pub channels: [usize; 3],
    /// Classes to tell apart.
    pub classes: usize,
    /// Around the first blocks of the second and third stage.
    pub shortcut: Shortcut,
}

impl ResNetConfig {
    /// The network for CIFAR-10 of so many layers with weights: 20, 32, 44, 56, or any other `6n + 2`.
    ///
    /// # Errors
    /// Another number of layers.
    pub fn cifar10(layers: usize, shortcut: Shortcut) -> Result<Self, ModelError> {
        match layers.checked_sub(2) {
            Some(inner) if inner > 0 && inner.is_multiple_of(6) => {
                Ok(Self { blocks_per_stage: inner / 6, channels: [16, 32, 64], classes: 10, shortcut })
            }
            _ => Err(ModelError::Layers(layers)),
        }
    }

    /// What `config.json` calls this architecture.
    pub const MODEL_TYPE: &'static str = "lapidary_resnet";

    /// Its `config.json`, with the names of the classes.
    pub fn to_json(&self, classes: &[String]) -> Value {
        json!({
            "architectures": ["LapidaryResNet"],
            "model_type": Self::MODEL_TYPE,
            "blocks_per_stage": self.blocks_per_stage,
            "hidden_sizes": self.channels,
            "shortcut": match self.shortcut {
                Shortcut::Padded => "padded",
                Shortcut::Projected => "projected",
            },
            "id2label": classes.iter().enumerate().map(|(i, name)| (i.to_string(), json!(name))).collect::<Map<_, _>>(),
        })
    }
}

impl Checkpointed for ResNet {
    fn checkpoint_name(path: &str) -> String {
        path.to_owned()
    }

    fn known_extra(_: &str) -> bool {
        false
    }

    fn may_be_fresh(_: &str) -> bool {
        false
    }

    fn matrices_mut(&mut self) -> Vec<Matrix<'_>> {
        vec![Matrix { name: "head.weight".into(), block: None, linear: &mut self.head }]
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
    /// Where size or channels change, if it has parameters.
    shortcut: Option<ConvNorm>,
    /// Places from one that is kept to the next, and channels, of a shortcut without them.
    #[module(skip)]
    padding: Option<(usize, usize)>,
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
    fn new(input: usize, output: usize, stride: usize, shortcut: Shortcut, init: &mut Initializer) -> Self {
        let changes = |kind| shortcut == kind && (input != output || stride != 1);
        Self {
            first: ConvNorm::new(input, output, 3, stride, init),
            second: ConvNorm::new(output, output, 3, 1, init),
            shortcut: changes(Shortcut::Projected).then(|| ConvNorm::new(input, output, 1, stride, init)),
            padding: changes(Shortcut::Padded).then_some((stride, output)),
        }
    }

    fn forward(&self, pictures: Pictures, pass: &Pass) -> Pictures {
        let residual = match (&self.shortcut, self.padding) {
            (Some(shortcut), _) => shortcut.forward(pictures.clone(), None, false, pass).x,
            (None, Some((stride, channels))) => padded(&pictures, stride, channels),
            (None, None) => pictures.x.clone(),
        };
        let inner = self.first.forward(pictures, None, true, pass);
        self.second.forward(inner, Some(residual), true, pass)
    }
}

/// Every `stride`-th place of each picture in both directions, `[B·H'·W', channels]`, what there is of them in the middle
/// and zeros before and behind.
fn padded(pictures: &Pictures, stride: usize, channels: usize) -> Tensor<2> {
    let Pictures { x, batch, height, width } = pictures;
    let rows = (0..*batch).flat_map(|picture| (0..*height).step_by(stride).map(move |y| picture * height + y));
    let places = rows.flat_map(|row| (0..*width).step_by(stride).map(move |x| (row * width + x) as u32));
    let kept = ops::embedding(x.clone(), &places.collect::<Vec<u32>>());
    let [rows, own] = kept.dims();
    let added = channels.saturating_sub(own);
    let zeros = |channels: usize| Tensor::<2>::zeros([rows, channels], (&x.device(), x.dtype()));
    match added {
        0 => kept,
        _ => Tensor::cat(vec![zeros(added / 2), kept, zeros(added - added / 2)], 1),
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
                blocks.push(ResidualBlock::new(input, output, stride, config.shortcut, init));
                input = output;
            }
        }
        Self { stem, blocks, head: Linear::new(last, config.classes, true, init) }
    }

    /// The weights of a file of PyTorch with the names that networks for CIFAR-10 are published under (`conv1`, `bn1`,
    /// `layer1.0.conv1`, `linear`), with or without `state_dict` and `module` before them. The device stays.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, not finite, or of no use: then it is another network.
    pub fn read_torch(self, file: &TorchFile) -> Result<Self, ModelError> {
        let own = |name: &str| {
            let name = name.strip_prefix("state_dict.").unwrap_or(name);
            name.strip_prefix("module.").unwrap_or(name).to_owned()
        };
        let mut unused: HashMap<String, &TorchTensor> =
            file.tensors().iter().map(|tensor| (own(&tensor.name), tensor)).collect();
        let stages = self.blocks.len() / 3;
        let (mut failed, mut network) = (None, self);
        network = parameters::map(network, &mut |parameter| {
            let name = torch_name(parameter.path, stages);
            match take(file, &mut unused, &name, parameter.shape) {
                Ok(data) => {
                    let elements = data.len();
                    Tensor::from_data(TensorData::new(data, [elements]), &parameter.value.device())
                }
                Err(error) => {
                    failed.get_or_insert(error);
                    parameter.value
                }
            }
        });
        // How many batches the statistics are of.
        unused.retain(|name, tensor| tensor.dtype.is_float() && !name.ends_with("num_batches_tracked"));
        match (failed, unused.into_keys().min()) {
            (Some(error), _) => Err(error),
            (None, Some(name)) => Err(ModelError::Unknown { folder: file.path().display().to_string(), name }),
            (None, None) => Ok(network),
        }
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

/// What a parameter is called in a file of PyTorch, of a network with so many blocks a stage.
fn torch_name(path: &str, blocks: usize) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let layer = |number: usize, kind: &str, of: &str| match kind {
        "conv" => format!("conv{number}.{of}"),
        _ => format!("bn{number}.{}", if of == "running_variance" { "running_var" } else { of }),
    };
    match parts.as_slice() {
        ["stem", kind, of] => layer(1, kind, of),
        ["head", of] => format!("linear.{of}"),
        ["blocks", block, within, kind, of] => {
            let block: usize = block.parse().unwrap_or(0);
            let (stage, block) = (1 + block / blocks.max(1), block % blocks.max(1));
            let inner = match (*within, *kind) {
                ("first", kind) => layer(1, kind, of),
                ("second", kind) => layer(2, kind, of),
                (_, "conv") => format!("shortcut.0.{of}"),
                (_, _) => layer(1, "norm", of).replacen("bn1", "shortcut.1", 1),
            };
            format!("layer{stage}.{block}.{inner}")
        }
        _ => path.to_owned(),
    }
}

/// A tensor of a file in the layout of a parameter: PyTorch has a convolution's weight as `[O, C, K, K]`.
fn take(
    file: &TorchFile,
    unused: &mut HashMap<String, &TorchTensor>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, ModelError> {
    let missing =
        CheckpointError::MissingTensor { path: file.path().to_owned(), tensor: name.to_owned(), nearest: None };
    let found = unused.remove(name).ok_or(missing)?;
    let fault =
        |reason: String| CheckpointError::Tensor { path: file.path().to_owned(), tensor: found.name.clone(), reason };
    let theirs = match *shape {
        [output, height, width, channels] => vec![output, channels, height, width],
        _ => shape.to_vec(),
    };
    if found.shape != theirs {
        return Err(fault(format!("has shape {:?}, the model needs {theirs:?}", found.shape)).into());
    }
    let data = file.tensor(&found.name)?.data;
    if let Some(place) = data.iter().position(|x| !x.is_finite()) {
        return Err(fault(format!("element {place} is {}, weights must be finite", data[place])).into());
    }
    let [output, height, width, channels] = *shape else { return Ok(data) };
    let mut ours = Vec::with_capacity(data.len());
    for o in 0..output {
        for place in 0..height * width {
            ours.extend((0..channels).map(|c| data[(o * channels + c) * height * width + place]));
        }
    }
    Ok(ours)
}
