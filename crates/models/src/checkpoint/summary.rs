//! What is in a checkpoint: a row a tensor, totals by component, and what packing saves.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

use super::error::printable;
use super::{Checkpoint, CheckpointError, QuantizedTensor, SafetensorsFile, TensorInfo};

/// The part of a model that a tensor belongs to, told by its name. Q-BERT gives sizes with and without the embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    Embeddings,
    Encoder,
    Pooler,
    /// Everything after: classifiers, language-model heads.
    Head,
}

impl Component {
    pub const ALL: [Component; 4] = [Self::Embeddings, Self::Encoder, Self::Pooler, Self::Head];

    /// The component of a tensor by the parts of its dotted name.
    pub fn of(name: &str) -> Component {
        let has = |known: &[&str]| name.split('.').any(|part| known.contains(&part));
        if has(&["cls", "classifier", "lm_head", "qa_outputs", "head"]) {
            Self::Head
        } else if has(&["pooler"]) {
            Self::Pooler
        } else if has(&["embeddings", "embed_tokens", "shared", "wte", "wpe"]) {
            Self::Embeddings
        } else if has(&["encoder", "decoder", "layers", "layer", "block", "blocks", "h"]) {
            Self::Encoder
        } else {
            Self::Head
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Encoder => "encoder",
            Self::Pooler => "pooler",
            Self::Head => "head",
        }
    }
}

/// One tensor as the model sees it: the three stored parts of a packed one are one row.
#[derive(Clone, Debug, Serialize)]
pub struct TensorRow {
    pub name: String,
    pub component: Component,
    /// A safetensors type, or `packed`.
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    /// Elements of a float or packed tensor; 0 for one that holds no parameters, such as position indices.
    pub parameters: u64,
    /// Bytes as stored.
    pub bytes: u64,
    /// Bits and groups of a packed tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed: Option<QuantizedTensor>,
}

/// Totals of one component.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentTotal {
    pub component: Component,
    pub tensors: usize,
    pub parameters: u64,
    pub bytes: u64,
}

/// What packing saves.
#[derive(Clone, Debug, Serialize)]
pub struct PackingTotal {
    /// Packed tensors.
    pub tensors: usize,
    /// Parameters in them.
    pub parameters: u64,
    /// Their bytes: codes, scales and zero codes.
    pub bytes: u64,
    /// Their bytes in F32.
    pub f32_bytes: u64,
    /// Bits a packed weight, scales and zero codes included.
    pub bits_per_weight: f64,
    /// Bytes of the whole checkpoint, had every parameter been kept in F32.
    pub checkpoint_f32_bytes: u64,
    /// Bytes of the whole checkpoint less than that.
    pub saved_bytes: u64,
    /// Bits of the activations.
    pub activation_bits: u8,
}

/// A checkpoint's tensors and totals. `Display` is the table of `lapidary inspect`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// By name, numbers in names in the order of their values.
    pub tensors: Vec<TensorRow>,
    /// The components there are.
    pub components: Vec<ComponentTotal>,
    pub parameters: u64,
    /// Bytes of the tensors; headers and other files are not counted.
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packing: Option<PackingTotal>,
}

impl Summary {
    /// Of a checkpoint folder, from headers and `config.json` alone.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, CheckpointError> {
        let Some(quantization) = checkpoint.quantization()? else {
            return Ok(Self::from_rows(checkpoint.tensors().map(row).collect(), None));
        };
        quantization.check(checkpoint)?;
        let packed_part = |name: &str| {
            let (owner, part) = name.rsplit_once('.')?;
            (matches!(part, "codes" | "scales" | "zeros") && quantization.tensors.contains_key(owner)).then_some(())
        };
        let mut rows: Vec<TensorRow> =
            checkpoint.tensors().filter(|info| packed_part(&info.name).is_none()).map(row).collect();
        for (name, layout) in &quantization.tensors {
            let mut bytes = 0;
            for part in ["codes", "scales", "zeros"] {
                bytes += checkpoint.info(&format!("{name}.{part}"))?.bytes;
            }
            rows.push(TensorRow {
                name: name.clone(),
                component: Component::of(name),
                dtype: "packed",
                shape: layout.shape.to_vec(),
                parameters: layout.elements() as u64,
                bytes,
                packed: Some(*layout),
            });
        }
        Ok(Self::from_rows(rows, Some(quantization.activation_bits)))
    }

    /// Of a single safetensors file.
    pub fn of_file(file: &SafetensorsFile) -> Self {
        Self::from_rows(file.header().tensors.iter().map(row).collect(), None)
    }

    /// Bytes of the tensors that are not of this component.
    pub fn bytes_without(&self, component: Component) -> u64 {
        self.components.iter().filter(|total| total.component != component).map(|total| total.bytes).sum()
    }

    fn from_rows(mut rows: Vec<TensorRow>, activation_bits: Option<u8>) -> Self {
        rows.sort_by(|a, b| natural_order(&a.name, &b.name));
        let components = Component::ALL
            .into_iter()
            .filter_map(|component| {
                let own = || rows.iter().filter(|row| row.component == component);
                let (tensors, parameters, bytes) = totals(own());
                (tensors > 0).then_some(ComponentTotal { component, tensors, parameters, bytes })
            })
            .collect();
        let (_, parameters, bytes) = totals(rows.iter());
        let packing = activation_bits.map(|activation_bits| {
            let (tensors, packed_parameters, packed_bytes) = totals(rows.iter().filter(|row| row.packed.is_some()));
            let others: u64 = rows.iter().filter(|row| row.parameters == 0).map(|row| row.bytes).sum();
            let checkpoint_f32_bytes = 4 * parameters + others;
            PackingTotal {
                tensors,
                parameters: packed_parameters,
                bytes: packed_bytes,
                f32_bytes: 4 * packed_parameters,
                bits_per_weight: 8.0 * packed_bytes as f64 / (packed_parameters as f64).max(1.0),
                checkpoint_f32_bytes,
                saved_bytes: checkpoint_f32_bytes.saturating_sub(bytes),
                activation_bits,
            }
        });
        Self { components, parameters, bytes, packing, tensors: rows }
    }
}

fn row(info: &TensorInfo) -> TensorRow {
    TensorRow {
        name: info.name.clone(),
        component: Component::of(&info.name),
        dtype: info.dtype.name(),
        shape: info.shape.clone(),
        parameters: if info.dtype.is_float() { info.elements() } else { 0 },
        bytes: info.bytes,
        packed: None,
    }
}

/// (tensors, parameters, bytes)
fn totals<'a>(rows: impl Iterator<Item = &'a TensorRow>) -> (usize, u64, u64) {
    rows.fold((0, 0, 0), |(tensors, parameters, bytes), row| {
        (tensors + 1, parameters + row.parameters, bytes + row.bytes)
    })
}

/// Order of names in which `layer.2` comes before `layer.10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    for (a, b) in a.split('.').zip(b.split('.')) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.tensors.iter().map(|row| printable(&row.name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(10);
        writeln!(f, "{:width$}  {:8}  {:>16}  {:>13}  {:>10}", "tensor", "type", "shape", "parameters", "size")?;
        for (name, row) in names.iter().zip(&self.tensors) {
            let dtype =
                row.packed.map_or(row.dtype.to_owned(), |packed| format!("{}b/{}g", packed.bits, packed.groups));
            let shape = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            let (parameters, size) = (grouped(row.parameters), Size(row.bytes).to_string());
            writeln!(f, "{name:width$}  {dtype:8}  {shape:>16}  {parameters:>13}  {size:>10}")?;
        }
        writeln!(f)?;
        let mut total = |name: &str, tensors: usize, parameters: u64, bytes: u64| {
            let (parameters, size) = (grouped(parameters), Size(bytes).to_string());
            writeln!(f, "{name:10}  {tensors:>5} tensors  {parameters:>13} parameters  {size:>10}")
        };
        for part in &self.components {
            total(part.component.name(), part.tensors, part.parameters, part.bytes)?;
        }
        total("total", self.tensors.len(), self.parameters, self.bytes)?;
        if let Some(packing) = &self.packing {
            let share = 100.0 * packing.saved_bytes as f64 / (packing.checkpoint_f32_bytes as f64).max(1.0);
            writeln!(
                f,
                "\npacked      {:>5} tensors, {} in place of {} in f32, {:.2} bits a weight",
                packing.tensors,
                Size(packing.bytes),
                Size(packing.f32_bytes),
                packing.bits_per_weight
            )?;
            writeln!(
                f,
                "saved       {} of {} ({share:.1} %); activations of {} bits",
                Size(packing.saved_bytes),
                Size(packing.checkpoint_f32_bytes),
                packing.activation_bits
            )?;
        }
        Ok(())
    }
}

/// Bytes in decimal units, as Q-BERT gives sizes.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..1_000 => write!(f, "{bytes} B"),
            bytes @ 1_000..1_000_000 => write!(f, "{:.2} kB", bytes as f64 / 1e3),
            bytes @ 1_000_000..1_000_000_000 => write!(f, "{:.2} MB", bytes as f64 / 1e6),
            bytes => write!(f, "{:.2} GB", bytes as f64 / 1e9),
        }
    }
}

/// Digits in threes.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_told_by_name() {
        for (name, component) in [
            ("embeddings.word_embeddings.weight", Component::Embeddings),
            ("bert.embeddings.LayerNorm.bias", Component::Embeddings),
            ("bert.encoder.layer.3.attention.self.query.weight", Component::Encoder),
            ("bert.pooler.dense.weight", Component::Pooler),
            ("classifier.weight", Component::Head),
            ("lm_head.weight", Component::Head),
            ("something.else", Component::Head),
        ] {
            assert_eq!(Component::of(name), component, "{name}");
        }
    }

    #[test]
    fn numbers_in_names_are_ordered_by_value() {
        let mut names = ["layer.10.a", "layer.2.b", "layer.2.a", "layer"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["layer", "layer.2.a", "layer.2.b", "layer.10.a"]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(1), "1");
        assert_eq!(grouped(22_713_216), "22,713,216");
        assert_eq!(Size(45).to_string(), "45 B");
        assert_eq!(Size(90_852_864).to_string(), "90.85 MB");
    }
}
