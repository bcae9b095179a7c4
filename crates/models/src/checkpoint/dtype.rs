//! Element types of the safetensors format.

use std::fmt;

use half::{bf16, f16};

/// The element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dtype {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

impl Dtype {
    const ALL: [(Dtype, &'static str, usize); 15] = [
        (Dtype::Bool, "BOOL", 1),
        (Dtype::U8, "U8", 1),
        (Dtype::I8, "I8", 1),
        (Dtype::F8E4M3, "F8_E4M3", 1),
        (Dtype::F8E5M2, "F8_E5M2", 1),
        (Dtype::U16, "U16", 2),
        (Dtype::I16, "I16", 2),
        (Dtype::F16, "F16", 2),
        (Dtype::BF16, "BF16", 2),
        (Dtype::U32, "U32", 4),
        (Dtype::I32, "I32", 4),
        (Dtype::F32, "F32", 4),
        (Dtype::U64, "U64", 8),
        (Dtype::I64, "I64", 8),
        (Dtype::F64, "F64", 8),
    ];

    /// The type of that name in a safetensors header, if there is one.
    pub fn from_name(name: &str) -> Option<Dtype> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(dtype, ..)| *dtype)
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        Self::ALL[self as usize].2
    }

    /// Whether tensors of this type hold parameters, rather than indices, flags or codes.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2 | Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// The conversion of one little-endian element to `f32`, or `None` where there is none: integers are not weights,
    /// and 8-bit floats mean nothing without the scales that their formats keep elsewhere.
    pub(super) fn to_f32(self) -> Option<fn(&[u8]) -> f32> {
        /// The first `N` bytes of an element; a shorter one cannot come from `chunks_exact`.
        fn bytes<const N: usize>(element: &[u8]) -> [u8; N] {
            *element.first_chunk().unwrap_or(&[0; N])
        }
        match self {
            Self::F16 => Some(|element| f16::from_le_bytes(bytes(element)).to_f32()),
            Self::BF16 => Some(|element| bf16::from_le_bytes(bytes(element)).to_f32()),
            Self::F32 => Some(|element| f32::from_le_bytes(bytes(element))),
            Self::F64 => Some(|element| f64::from_le_bytes(bytes(element)) as f32),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, (dtype, name, _)) in Dtype::ALL.iter().enumerate() {
            assert_eq!(*dtype as usize, index);
            assert_eq!(Dtype::from_name(name), Some(*dtype));
        }
        assert_eq!(Dtype::from_name("Q7"), None);
    }
}
