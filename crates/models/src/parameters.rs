//! Parameters by path: the one way in which optimizers, checkpoints and operators walk a model.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, FloatDType, Gradients, Shape, Tensor};
use lapidary_ops::{Rung, Watcher, watched};

/// One parameter on a walk.
pub struct Parameter<'a> {
    /// Field names from the model's root, joined by dots.
    pub path: &'a str,
    /// Burn's name for it within this process.
    pub id: ParamId,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its elements, row-major, without gradient.
    pub value: Tensor<1>,
    /// Whether it is trained.
    pub trained: bool,
}

/// Gradients of one backward pass, flat, by parameter.
pub type GradientMap = HashMap<ParamId, Tensor<1>>;

/// Shows every float parameter in the order of the model's fields.
pub fn visit<M: Module>(module: &M, see: &mut dyn FnMut(Parameter)) {
    module.visit(&mut Walk { path: Vec::new(), see });
}

/// Replaces the values of all float parameters.
///
/// The closure returns the new value, of the same number of elements; shape, id and device stay.
pub fn map<M: Module>(module: M, change: &mut dyn FnMut(Parameter) -> Tensor<1>) -> M {
    module.map(&mut Change { path: Vec::new(), change })
}

/// Takes the gradients of a model's parameters out of a backward pass. Parameters that took no part have none.
pub fn gradients<M: Module>(module: &M, gradients: Gradients) -> GradientMap {
    let mut collect = Collect { gradients, found: GradientMap::new() };
    module.visit(&mut collect);
    collect.found
}

/// Trains the parameters whose paths are wanted and holds the others fixed: a backward pass then stops at the lowest
/// that is trained.
pub fn train_only<M: Module>(module: M, wanted: &dyn Fn(&str) -> bool) -> M {
    module.map(&mut Choose { path: Vec::new(), wanted })
}

/// The same model with parameters whose gradients are shown as a backward pass comes to them, to the watchers that `of`
/// gives: those of layers that a forward pass reads last come first, as long as the fields are in the order of the layers.
/// Each parameter keeps its id; its gradient is that of the parameter it was made of.
pub fn watch<M: Module>(module: M, of: &dyn Fn(ParamId) -> Option<Watcher>) -> M {
    let device = module.devices().pop().unwrap_or(Device::flex()).without_autodiff();
    module.map(&mut Watch { of, rung: Some(Rung::bottom(&device)) })
}

/// A model in another type of number. Statistics that are no parameters follow.
pub fn cast<M: Module>(module: M, dtype: FloatDType) -> M {
    map(module, &mut |parameter| parameter.value.cast(dtype))
}

/// Path and shape of every parameter.
pub fn shapes<M: Module>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut shapes = Vec::new();
    visit(module, &mut |p| shapes.push((p.path.to_owned(), p.shape.to_vec())));
    shapes
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let elements = x.shape().num_elements();
    x.reshape([elements])
}

fn plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if x.is_autodiff() { x.inner() } else { x }
}

struct Walk<'a> {
    path: Vec<String>,
    see: &'a mut dyn FnMut(Parameter),
}

impl ModuleVisitor for Walk<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims();
        (self.see)(Parameter {
            path: &self.path.join("."),
            id: param.id,
            shape: &shape,
            trained: value.is_require_grad(),
            value: flat(plain(value)),
        });
    }
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

struct Change<'a> {
    path: Vec<String>,
    change: &'a mut dyn FnMut(Parameter) -> Tensor<1>,
}

impl ModuleMapper for Change<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let (autodiff, trained, shape) = (value.is_autodiff(), value.is_require_grad(), value.dims());
        let parameter = Parameter { path: &self.path.join("."), id, shape: &shape, value: flat(plain(value)), trained };
        let value = (self.change)(parameter).reshape(Shape::new(shape));
        let value = if autodiff { Tensor::from_inner(value).set_require_grad(trained) } else { value };
        Param::from_mapped_value(id, value, mapper)
    }
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

struct Choose<'a> {
    path: Vec<String>,
    wanted: &'a dyn Fn(&str) -> bool,
}

impl ModuleMapper for Choose<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let wanted = (self.wanted)(&self.path.join("."));
        param.set_require_grad(wanted)
    }
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

/// Operations, one behind the other, between the uses of two neighbouring parameters: more than there are.
const BETWEEN: usize = 32;

struct Watch<'a> {
    of: &'a dyn Fn(ParamId) -> Option<Watcher>,
    rung: Option<Rung>,
}

impl ModuleMapper for Watch<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let watcher = if value.is_autodiff() { (self.of)(id) } else { None };
        let value = match (watcher, self.rung.take()) {
            (Some(watcher), Some(rung)) => {
                let rung = rung.up(BETWEEN);
                let value = watched(value, &rung, watcher);
                self.rung = Some(rung);
                value
            }
            (_, rung) => {
                self.rung = rung;
                value
            }
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

struct Collect {
    gradients: Gradients,
    found: GradientMap,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(&mut self.gradients) {
            self.found.insert(param.id, flat(gradient));
        }
    }
}

/// The elements of a flat tensor.
pub fn elements(x: Tensor<1>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}
