use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong while bits are planned and weights are cut.
#[derive(Debug, Error)]
pub enum QuantError {
    #[error("{0} bits: a code has 2 to 8 bits")]
    Bits(u32),
    #[error("0 groups: a matrix has at least one")]
    NoGroups,
    #[error("{groups} groups for {rows} rows: groups must be at most rows")]
    Groups { groups: usize, rows: usize },
    #[error("{found} {what} for a matrix of {rows} rows and {cols} columns")]
    Shape { what: &'static str, found: usize, rows: usize, cols: usize },
    #[error(
        "group {group} holds the weight {value} in row {row}, column {col}: \
         weights must be finite and below 8e37, look for a diverged or damaged checkpoint"
    )]
    Weight { group: usize, row: usize, col: usize, value: f32 },
    #[error(
        "group {group} has scale {scale} and zero {zero}: a scale is above 0, a zero an integer code of {bits} bits"
    )]
    Range { group: usize, scale: f32, zero: f32, bits: u32 },
    #[error("{scales} scales but {zeros} zeros: each group has one of both")]
    Unpaired { scales: usize, zeros: usize },

    #[error("parameter {name:?}: {source}")]
    Parameter { name: String, source: Box<QuantError> },
    #[error("parameter {name:?} cannot be packed: {reason}")]
    Packing { name: String, reason: String },
    #[error("parameter {0:?} is in the plan twice")]
    Repeated(String),
    #[error("the plan names parameters that the model does not have: {}", .0.join(", "))]
    Unknown(Vec<String>),
    #[error("the plan says nothing about: {}", .0.join(", "))]
    Missing(Vec<String>),
    #[error("not a bit plan: {0}")]
    Syntax(#[from] Box<toml::de::Error>),
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: Box<QuantError> },
    #[error("{0}")]
    Io(#[from] std::io::Error),

    #[error("{high} layers of high precision, but the model has {layers}")]
    HighLayers { high: usize, layers: usize },
    #[error("sensitivities of layers 0 to {last} are needed, each once: layer {layer} is {problem}")]
    Layers { last: usize, layer: usize, problem: &'static str },
    #[error("high precision has {high} bits, low precision {low}: high must not be below low")]
    Order { low: u32, high: u32 },
    #[error("parameter {name:?} is of layer {layer}, but bits were allocated to {layers} layers only")]
    NoSuchLayer { name: String, layer: usize, layers: usize },
}
