//! Which parameter gets how many bits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::QuantError;
use crate::quantizer::{check_bits, check_groups};

const HEADER: &str = "\
# Bit plan: how each weight matrix of the model is quantized. Every quantized matrix has a line.
#   bits    of a code, 2 to 8
#   groups  of rows, each with a scale and a zero of its own: 1 to the number of rows

[parameters]
";

/// Bits and groups of one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// Of a code, 2 to 8.
    pub bits: u32,
    /// Of rows, each with its own scale and zero.
    pub groups: usize,
}

/// A matrix of the model that a plan can cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterShape {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
}

/// How many bits and groups every quantized parameter has, in the order of the model.
///
/// Kept as TOML, one line a parameter:
///
/// ```toml
/// [parameters]
/// "encoder.layer.0.attention.self.query.weight" = { bits = 4, groups = 128 }
/// ```
///
/// Elsewhere (serde), it is the map from names to [`Precision`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BitPlan {
    parameters: IndexMap<String, Precision>,
}

impl Serialize for BitPlan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for BitPlan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = BitPlan;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map from parameter names to bits and groups")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BitPlan, A::Error> {
                let mut plan = BitPlan::new();
                while let Some((name, precision)) = map.next_entry::<String, Precision>()? {
                    plan.insert(name, precision).map_err(A::Error::custom)?;
                }
                Ok(plan)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl BitPlan {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter. Fails if it is there already, and on bits outside 2 to 8 or no groups.
    pub fn insert(&mut self, name: impl Into<String>, precision: Precision) -> Result<(), QuantError> {
        let name = name.into();
        let checked = check_bits(precision.bits).and_then(|()| check_groups(precision.groups, usize::MAX));
        if let Err(source) = checked {
            return Err(QuantError::Parameter { name, source: Box::new(source) });
        }
        if self.parameters.contains_key(&name) {
            return Err(QuantError::Repeated(name));
        }
        self.parameters.insert(name, precision);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<Precision> {
        self.parameters.get(name).copied()
    }

    /// In the order of the plan.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Precision)> {
        self.parameters.iter().map(|(name, &precision)| (name.as_str(), precision))
    }

    pub fn len(&self) -> usize {
        self.parameters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Whether the plan names all of `known` and nothing else, with no more groups than rows.
    pub fn validate(&self, known: &[ParameterShape]) -> Result<(), QuantError> {
        let rows: IndexMap<&str, usize> = known.iter().map(|shape| (shape.name.as_str(), shape.rows)).collect();
        let unknown: Vec<String> =
            self.parameters.keys().filter(|name| !rows.contains_key(name.as_str())).cloned().collect();
        if !unknown.is_empty() {
            return Err(QuantError::Unknown(unknown));
        }
        let missing: Vec<String> =
            rows.keys().filter(|name| !self.parameters.contains_key(**name)).map(|name| name.to_string()).collect();
        if !missing.is_empty() {
            return Err(QuantError::Missing(missing));
        }
        for (name, precision) in self.iter() {
            check_groups(precision.groups, rows[name])
                .map_err(|source| QuantError::Parameter { name: name.to_owned(), source: Box::new(source) })?;
        }
        Ok(())
    }

    /// What `parameters` take under this plan; pass some of the model's for the size of a part, such as the encoder
    /// without the embeddings. Fails on one that is not in the plan.
    pub fn size(&self, parameters: &[ParameterShape]) -> Result<PlanSize, QuantError> {
        let missing: Vec<String> =
            parameters.iter().filter(|shape| self.get(&shape.name).is_none()).map(|shape| shape.name.clone()).collect();
        if !missing.is_empty() {
            return Err(QuantError::Missing(missing));
        }
        let mut size = PlanSize::default();
        for (shape, precision) in parameters.iter().filter_map(|shape| Some((shape, self.get(&shape.name)?))) {
            let weights = shape.rows as u64 * shape.cols as u64;
            size.weights += weights;
            size.codes += (weights * u64::from(precision.bits)).div_ceil(8);
            size.ranges += precision.groups as u64 * RANGE_BYTES;
        }
        Ok(size)
    }

    /// Bits of a code, on average over the weights of `parameters`; 0 if there are none. Ranges are not counted.
    pub fn average_bits(&self, parameters: &[ParameterShape]) -> Result<f64, QuantError> {
        let size = self.size(parameters)?;
        let bits: u64 = parameters
            .iter()
            .filter_map(|shape| Some(shape.rows as u64 * shape.cols as u64 * u64::from(self.get(&shape.name)?.bits)))
            .sum();
        Ok(if size.weights == 0 { 0.0 } else { bits as f64 / size.weights as f64 })
    }

    /// Fails with the line on anything that is not a plan: unknown keys, values of a wrong type, a name twice.
    pub fn from_toml(text: &str) -> Result<Self, QuantError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            parameters: BTreeMap<String, toml::Spanned<Precision>>,
        }
        let file: File = toml::from_str(text).map_err(|error| QuantError::Syntax(Box::new(error)))?;
        // The parser sorts its tables; where the values stand gives the file's own order back.
        let mut entries: Vec<_> = file.parameters.into_iter().collect();
        entries.sort_by_key(|(_, precision)| precision.span().start);
        let mut plan = Self::new();
        for (name, precision) in entries {
            plan.insert(name, precision.into_inner())?;
        }
        Ok(plan)
    }

    /// The plan as a file to read and to edit.
    pub fn to_toml(&self) -> String {
        let mut text = HEADER.to_owned();
        for (name, Precision { bits, groups }) in self.iter() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} = {{ bits = {bits}, groups = {groups} }}", quoted(name));
        }
        text
    }

    /// Reads a TOML file; errors name it.
    pub fn read(path: &Path) -> Result<Self, QuantError> {
        let text = std::fs::read_to_string(path).map_err(QuantError::from);
        text.and_then(|text| Self::from_toml(&text))
            .map_err(|source| QuantError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Writes a TOML file, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), QuantError> {
        let partial = path.with_added_extension("partial");
        let written = std::fs::File::create(&partial).and_then(|mut file| {
            std::io::Write::write_all(&mut file, self.to_toml().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&partial, path)
        });
        written.map_err(|error| {
            // The first error is the one to report.
            let _ = std::fs::remove_file(&partial);
            QuantError::File { path: path.to_owned(), source: Box::new(error.into()) }
        })
    }
}

/// A TOML basic string: quotes, backslashes and control characters escaped.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    text.push('"');
    for character in name.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// An `f32` scale and a byte for the zero.
const RANGE_BYTES: u64 = 5;

/// Bytes that quantized parameters take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSize {
    /// Number of weights.
    pub weights: u64,
    /// Bytes of the codes, packed without gaps and rounded up to whole bytes for every matrix.
    pub codes: u64,
    /// Bytes of scales and zeros, 5 a group.
    pub ranges: u64,
}

impl PlanSize {
    /// Bytes of codes and ranges.
    pub fn total(&self) -> u64 {
        self.codes + self.ranges
    }

    /// Bytes of the same weights in `f32`.
    pub fn dense(&self) -> u64 {
        4 * self.weights
    }
}

/// Bytes in Q-BERT's unit, 1 MB = 2^20 bytes.
///
/// Its BERT-base takes 415.4 MB, 324.5 without the embeddings: 12 layers of 7,087,872 parameters in `f32` are 324.46
/// times 2^20 bytes (340.2 times 10^6), and the embeddings' 23,837,184 make it 415.39. The cut sizes fit the same way,
/// to every digit, with all encoder parameters at the low width, 128 ranges of two `f32` for each of 72 matrices, and
/// the output layer in `f32`.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1u32 << 20)
}
