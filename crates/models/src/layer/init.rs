//! Initial weights: a function of the seed and of the order in which they are asked for, and of nothing else.

use burn::module::Param;
use burn::tensor::{Device, Shape, Tensor, TensorData};
use lapidary_kernels::rng::Stream;

/// Draws the initial weights of a model.
pub struct Initializer {
    seed: u64,
    drawn: u64,
    deviation: f32,
    device: Device,
}

impl Initializer {
    /// Normal weights of standard deviation `deviation` on `device`.
    pub fn new(seed: u64, deviation: f32, device: &Device) -> Self {
        Self { seed, drawn: 0, deviation, device: device.clone() }
    }

    /// A parameter of normal weights.
    pub fn normal<const D: usize>(&mut self, shape: [usize; D]) -> Param<Tensor<D>> {
        self.normal_of(self.deviation, shape)
    }

    /// A parameter of normal weights of another standard deviation.
    pub fn normal_of<const D: usize>(&mut self, deviation: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        let mut stream = Stream::new(self.seed, self.drawn);
        self.drawn += 1;
        let data = (0..shape.iter().product()).map(|_| stream.normal() * deviation).collect();
        self.parameter(data, shape)
    }

    /// A parameter of one value throughout.
    pub fn constant<const D: usize>(&mut self, value: f32, shape: [usize; D]) -> Param<Tensor<D>> {
        self.parameter(vec![value; shape.iter().product()], shape)
    }

    /// A tensor of one value throughout that is not trained.
    pub fn fixed<const D: usize>(&self, value: f32, shape: [usize; D]) -> Tensor<D> {
        self.tensor(vec![value; shape.iter().product()], shape)
    }

    fn parameter<const D: usize>(&self, data: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(self.tensor(data, shape))
    }

    fn tensor<const D: usize>(&self, data: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(data, Shape::new(shape)), &self.device)
    }
}
