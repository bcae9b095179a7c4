//! Mixed precision by curvature: the more sensitive a layer, the more bits (Q-BERT, arXiv 1909.05840, section 3.1).

use lapidary_curvature::{LayerSensitivity, rank};
use serde::{Deserialize, Serialize};

use crate::quantizer::check_bits;
use crate::{BitPlan, Precision, QuantError};

/// Two widths and how many layers get the larger one. Q-BERT's sizes imply half of BERT-base's twelve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedPrecision {
    pub low_bits: u32,
    pub high_bits: u32,
    /// Number of layers with `high_bits`.
    pub high_layers: usize,
}

/// Bits of each layer, by its index: the `high_layers` of largest Ω get `high_bits`, of equals the lower layer first.
///
/// `sensitivities` holds each layer from 0 on once, in any order. Fails if it does not, on bits outside 2 to 8, and
/// on more high layers than layers.
pub fn allocate(sensitivities: &[LayerSensitivity], mixed: &MixedPrecision) -> Result<Vec<u32>, QuantError> {
    let MixedPrecision { low_bits, high_bits, high_layers } = *mixed;
    check_bits(low_bits)?;
    check_bits(high_bits)?;
    if high_bits < low_bits {
        return Err(QuantError::Order { low: low_bits, high: high_bits });
    }
    let layers = sensitivities.len();
    if high_layers > layers {
        return Err(QuantError::HighLayers { high: high_layers, layers });
    }
    let mut bits = vec![None; layers];
    for (place, at) in rank(sensitivities).into_iter().enumerate() {
        let layer = sensitivities[at].layer;
        let problem = match bits.get(layer) {
            None => "too many",
            Some(Some(_)) => "there twice",
            Some(None) => {
                bits[layer] = Some(if place < high_layers { high_bits } else { low_bits });
                continue;
            }
        };
        return Err(QuantError::Layers { last: layers - 1, layer, problem });
    }
    // As many layers as places, none twice: each has its bits.
    Ok(bits.into_iter().flatten().collect())
}

/// A plan that gives each parameter the bits of its layer and the same number of groups, in the order given.
///
/// `parameters` pairs names with layer indices. Parameters of no layer, such as embeddings, are added to the plan
/// by [`BitPlan::insert`].
pub fn expand(parameters: &[(String, usize)], layer_bits: &[u32], groups: usize) -> Result<BitPlan, QuantError> {
    let mut plan = BitPlan::new();
    for (name, layer) in parameters {
        let Some(&bits) = layer_bits.get(*layer) else {
            return Err(QuantError::NoSuchLayer { name: name.clone(), layer: *layer, layers: layer_bits.len() });
        };
        plan.insert(name.clone(), Precision { bits, groups })?;
    }
    Ok(plan)
}
