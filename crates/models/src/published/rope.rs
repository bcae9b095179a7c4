//! What published configurations say of turning queries and keys.

use serde::Deserialize;

use crate::checkpoint::Config;
use crate::error::ModelError;
use crate::layer::{RotaryConfig, RotaryScaling};

/// `rope_scaling` of older files, `rope_parameters` of newer ones.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl Rope {
    /// With the base that is given where the file has none here; `key` is what errors name.
    pub(super) fn read(&self, config: &Config, key: &str, base: Option<f64>) -> Result<RotaryConfig, ModelError> {
        let invalid = |reason: String| ModelError::from(config.invalid(key, reason));
        let positive = |what: &str, number: Option<f64>| match number {
            Some(number) if number.is_finite() && number > 0.0 => Ok(number),
            Some(number) => Err(invalid(format!("has a {what} of {number}, should be positive"))),
            None => Err(invalid(format!("has no {what}"))),
        };
        let scaling = match self.rope_type.as_deref() {
            None | Some("default") => RotaryScaling::None,
            Some("linear") => RotaryScaling::Linear(positive("factor", self.factor)?),
            Some("llama3") => {
                let low = positive("low_freq_factor", self.low_freq_factor)?;
                let high = positive("high_freq_factor", self.high_freq_factor)?;
                if low >= high {
                    return Err(invalid(format!("has a low_freq_factor of {low} and a high_freq_factor of {high}")));
                }
                let original = self.original_max_position_embeddings;
                RotaryScaling::Llama3 {
                    factor: positive("factor", self.factor)?,
                    low,
                    high,
                    original: positive("original_max_position_embeddings", original)?,
                }
            }
            Some(other) => return Err(invalid(format!("has the type {other:?}, should be default, linear or llama3"))),
        };
        Ok(RotaryConfig { base: positive("rope_theta", self.rope_theta.or(base))?, scaling })
    }
}
