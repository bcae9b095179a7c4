//! Bits of the layers from their sensitivities.

use lapidary_curvature::LayerSensitivity;
use lapidary_quant::{MixedPrecision, Precision, QuantError, allocate, expand};

fn layers(omegas: &[f64]) -> Vec<LayerSensitivity> {
    omegas.iter().enumerate().map(|(layer, &omega)| LayerSensitivity::new(layer, vec![omega]).unwrap()).collect()
}

fn mixed(high_layers: usize) -> MixedPrecision {
    MixedPrecision { low_bits: 2, high_bits: 3, high_layers }
}

#[test]
fn the_most_sensitive_get_more() {
    let layers = layers(&[1.0, 9.0, -4.0, 2.0]);
    assert_eq!(allocate(&layers, &mixed(2)).unwrap(), [2, 3, 3, 2]);
    assert_eq!(allocate(&layers, &mixed(0)).unwrap(), [2, 2, 2, 2]);
    assert_eq!(allocate(&layers, &mixed(4)).unwrap(), [3, 3, 3, 3]);
    assert_eq!(allocate(&[], &mixed(0)).unwrap(), [0u32; 0]);
}

#[test]
fn ties_go_to_the_lower_layer_in_any_order() {
    let mut layers = layers(&[5.0, 5.0, 5.0, 7.0]);
    layers.reverse();
    assert_eq!(allocate(&layers, &mixed(2)).unwrap(), [3, 2, 2, 3]);
}

#[test]
fn deviation_counts() {
    let steady = LayerSensitivity::new(0, vec![3.0, 3.0]).unwrap();
    let varying = LayerSensitivity::new(1, vec![-4.0, 4.0]).unwrap();
    assert_eq!(allocate(&[steady, varying], &mixed(1)).unwrap(), [2, 3]);
}

#[test]
fn bad_input() {
    let three = layers(&[1.0, 2.0, 3.0]);
    assert!(matches!(allocate(&three, &mixed(4)), Err(QuantError::HighLayers { high: 4, layers: 3 })));
    assert!(matches!(allocate(&three, &MixedPrecision { low_bits: 1, ..mixed(1) }), Err(QuantError::Bits(1))));
    let swapped = MixedPrecision { low_bits: 4, high_bits: 2, high_layers: 1 };
    assert!(matches!(allocate(&three, &swapped), Err(QuantError::Order { .. })));
    assert!(allocate(&three[1..], &mixed(1)).unwrap_err().to_string().contains("layer 2 is too many"));
    let twice = [three[0].clone(), three[0].clone()];
    assert!(allocate(&twice, &mixed(1)).unwrap_err().to_string().contains("layer 0 is there twice"));
}

#[test]
fn a_plan_from_layers() {
    let parameters = [("l0.q".to_owned(), 0), ("l0.k".to_owned(), 0), ("l1.q".to_owned(), 1)];
    let mut plan = expand(&parameters, &[2, 3], 128).unwrap();
    plan.insert("embeddings", Precision { bits: 8, groups: 128 }).unwrap();
    let bits: Vec<(&str, u32)> = plan.iter().map(|(name, precision)| (name, precision.bits)).collect();
    assert_eq!(bits, [("l0.q", 2), ("l0.k", 2), ("l1.q", 3), ("embeddings", 8)]);
    assert!(matches!(expand(&parameters, &[2], 1), Err(QuantError::NoSuchLayer { layer: 1, .. })));
    assert!(matches!(expand(&parameters, &[1, 2], 1), Err(QuantError::Parameter { .. })));
}
