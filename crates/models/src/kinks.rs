//! Which side of its kink every ReLU of a model was on.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};

/// The sides of the ReLUs of one batch: written down by the first pass that has it, and kept by all that follow.
///
/// A difference of two gradients is a derivative only where the loss is smooth between them. With the sides held, the
/// loss has the slope of the base point everywhere and is as smooth as a network without ReLUs.
#[derive(Clone, Debug, Default)]
pub struct Kinks(Arc<Mutex<Sides>>);

#[derive(Debug, Default)]
struct Sides {
    /// A bit an element, ReLU after ReLU in the order in which a pass comes to them.
    bits: Vec<Vec<u64>>,
    /// ReLUs that the current pass has been through.
    passed: usize,
}

impl Kinks {
    /// Begins a pass.
    pub fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).passed = 0;
    }

    /// Whether no ReLU has been met.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bits.is_empty()
    }

    /// `relu(x)`, with the sides of the first pass.
    pub fn relu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut sides = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let relu = sides.passed;
        sides.passed += 1;
        if relu == sides.bits.len() {
            let values = x.clone().into_data();
            let mut bits = vec![0u64; values.num_elements().div_ceil(64)];
            for (i, value) in values.iter::<f32>().enumerate() {
                bits[i / 64] |= u64::from(value > 0.0) << (i % 64);
            }
            sides.bits.push(bits);
        }
        let bits = &sides.bits[relu];
        let shape = x.shape();
        let on: Vec<f32> = (0..shape.num_elements()).map(|i| (bits[i / 64] >> (i % 64) & 1) as f32).collect();
        let on = Tensor::from_data(TensorData::new(on, shape), (&x.device(), x.dtype()));
        x * on
    }
}
