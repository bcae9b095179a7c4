//! The bits of a cut: one number for all layers, or two of which curvature chooses.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bits of the encoder's matrices: `4`, or `"mixed:2/3"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// The same in every layer, 2 to 8.
    Uniform(u8),
    /// `high` in the most sensitive layers and `low` in the others; 2 to 8, `low` below `high`.
    Mixed { low: u8, high: u8 },
}

impl Bits {
    fn parse(text: &str) -> Option<Bits> {
        let (low, high) = text.strip_prefix("mixed:")?.split_once('/')?;
        let bits = |digits: &str| digits.parse().ok().filter(|bits| (2..=8).contains(bits));
        let (low, high) = (bits(low)?, bits(high)?);
        (low < high).then_some(Bits::Mixed { low, high })
    }
}

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bits::Uniform(bits) => write!(f, "{bits}"),
            Bits::Mixed { low, high } => write!(f, "mixed:{low}/{high}"),
        }
    }
}

impl Serialize for Bits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Bits::Uniform(bits) => serializer.serialize_u8(*bits),
            Bits::Mixed { .. } => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BitsVisitor;

        impl Visitor<'_> for BitsVisitor {
            type Value = Bits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("2 to 8, or \"mixed:LOW/HIGH\" of such with LOW below HIGH")
            }

            fn visit_i64<E: Error>(self, bits: i64) -> Result<Bits, E> {
                let valid = u8::try_from(bits).ok().filter(|bits| (2..=8).contains(bits));
                valid.map(Bits::Uniform).ok_or_else(|| E::invalid_value(Unexpected::Signed(bits), &self))
            }

            fn visit_u64<E: Error>(self, bits: u64) -> Result<Bits, E> {
                self.visit_i64(i64::try_from(bits).unwrap_or(i64::MAX))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Bits, E> {
                Bits::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(BitsVisitor)
    }
}
