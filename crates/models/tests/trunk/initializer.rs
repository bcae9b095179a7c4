use burn::tensor::Device;
use lapidary_models::layer::Initializer;
use lapidary_models::parameters;

use super::{decoder, values};

/// Every parameter with its path.
fn weights(seed: u64, device: &Device) -> Vec<(String, Vec<f32>)> {
    let mut weights = Vec::new();
    parameters::visit(&decoder(seed, device), &mut |parameter| {
        weights.push((parameter.path.to_owned(), parameters::elements(parameter.value)));
    });
    weights
}

#[test]
fn weights_are_a_function_of_the_seed() {
    let first = weights(1, &Device::flex());
    assert_eq!(first, weights(1, &Device::flex()));
    assert_eq!(first, weights(1, &Device::flex().autodiff()));
    for ((path, first), (_, second)) in first.iter().zip(weights(2, &Device::flex())) {
        // Biases and norms begin as constants.
        let constant = first.iter().all(|x| *x == first[0]);
        assert_eq!(*first == second, constant, "{path}");
    }
}

#[test]
fn no_two_matrices_begin_alike() {
    let drawn: Vec<_> = weights(1, &Device::flex()).into_iter().filter(|(_, w)| w[0] != w[1]).collect();
    assert_eq!(drawn.len(), 2 + 3 * 6 + 1);
    for (i, (path, w)) in drawn.iter().enumerate() {
        assert!(drawn[..i].iter().all(|(_, other)| other[..8] != w[..8]), "{path}");
    }
}

#[test]
fn a_parameter_does_not_depend_on_the_sizes_of_those_before_it() {
    let second = |first: usize| {
        let mut init = Initializer::new(3, 0.5, &Device::flex());
        init.normal([first, 2]);
        values(init.normal([5, 7]).val())
    };
    assert_eq!(second(1), second(100));
}

#[test]
fn weights_have_the_deviation_asked_for() {
    let weights = values(Initializer::new(4, 0.5, &Device::flex()).normal([200, 100]).val());
    let mean = weights.iter().sum::<f32>() / weights.len() as f32;
    let variance = weights.iter().map(|w| (w - mean).powi(2)).sum::<f32>() / weights.len() as f32;
    assert!(mean.abs() < 0.02 && (variance.sqrt() - 0.5).abs() < 0.02, "{mean} {variance}");
}
