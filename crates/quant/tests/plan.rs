//! Bit plans: reading, writing, checking, counting.

use approx::assert_abs_diff_eq;
use lapidary_quant::{BitPlan, ParameterShape, Precision, QuantError, megabytes};

fn shape(name: &str, rows: usize, cols: usize) -> ParameterShape {
    ParameterShape { name: name.into(), rows, cols }
}

fn plan(entries: &[(&str, u32, usize)]) -> BitPlan {
    let mut plan = BitPlan::new();
    for &(name, bits, groups) in entries {
        plan.insert(name, Precision { bits, groups }).unwrap();
    }
    plan
}

#[test]
fn toml_there_and_back_keeps_the_order() {
    let plan = plan(&[("layer.10.weight", 4, 128), ("layer.2.weight", 2, 1), ("a \"b\" \\ \u{7f}\n é", 8, 12)]);
    let text = plan.to_toml();
    assert!(text.starts_with("# Bit plan"), "{text}");
    assert!(text.contains("\n\"layer.10.weight\" = { bits = 4, groups = 128 }\n"), "{text}");
    let back = BitPlan::from_toml(&text).unwrap();
    assert!(back.iter().eq(plan.iter()), "{back:?}");

    let json = serde_json::to_string(&plan).unwrap();
    assert!(serde_json::from_str::<BitPlan>(&json).unwrap().iter().eq(plan.iter()));
    assert!(serde_json::from_str::<BitPlan>(r#"{"a": {"bits": 1, "groups": 1}}"#).is_err());
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    let plan = plan(&[("w", 3, 2)]);
    plan.write(&path).unwrap();
    assert_eq!(BitPlan::read(&path).unwrap(), plan);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let missing = folder.path().join("none").join("plan.toml");
    assert!(BitPlan::read(&missing).unwrap_err().to_string().contains("none"));
    assert!(plan.write(&missing).unwrap_err().to_string().contains("none"));
    std::fs::write(&path, "parameters = 3").unwrap();
    assert!(BitPlan::read(&path).unwrap_err().to_string().contains("plan.toml"));
}

#[test]
fn bad_toml_is_an_error_with_its_place() {
    for text in [
        "",
        "[parameters",
        "[parameters]\nw = 4",
        "[parameters]\nw = { bits = 4 }",
        "[parameters]\nw = { bits = -4, groups = 1 }",
        "[parameters]\nw = { bits = 4.5, groups = 1 }",
        "[parameters]\nw = { bits = 4, groups = 1, extra = 1 }",
        "[parameters]\nw = { bits = 4, groups = 1 }\nw = { bits = 4, groups = 1 }",
        "[parameters]\n[other]",
    ] {
        let error = BitPlan::from_toml(text).unwrap_err();
        assert!(matches!(error, QuantError::Syntax(_)), "{text}: {error}");
    }
    let error = BitPlan::from_toml("[parameters]\n\nw = { bits = true, groups = 1 }").unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    for (text, reason) in [("bits = 9, groups = 1", "9 bits"), ("bits = 4, groups = 0", "0 groups")] {
        let error = BitPlan::from_toml(&format!("[parameters]\nw = {{ {text} }}")).unwrap_err().to_string();
        assert!(error.contains("\"w\"") && error.contains(reason), "{error}");
    }
}

#[test]
fn validation_lists_what_is_wrong() {
    let known = [shape("a", 4, 4), shape("b", 4, 4), shape("c", 4, 4)];
    plan(&[("c", 2, 4), ("a", 2, 1), ("b", 2, 1)]).validate(&known).unwrap();
    let error = plan(&[("a", 2, 1)]).validate(&known).unwrap_err();
    assert!(matches!(&error, QuantError::Missing(names) if names == &["b", "c"]), "{error}");
    let error = plan(&[("a", 2, 1), ("x", 2, 1), ("y", 2, 1)]).validate(&known).unwrap_err();
    assert!(matches!(&error, QuantError::Unknown(names) if names == &["x", "y"]), "{error}");
    let error = plan(&[("a", 2, 5), ("b", 2, 1), ("c", 2, 1)]).validate(&known).unwrap_err().to_string();
    assert!(error.contains("\"a\"") && error.contains("groups must be at most rows"), "{error}");
    assert!(matches!(plan(&[("a", 2, 1)]).insert("a", Precision { bits: 2, groups: 1 }), Err(QuantError::Repeated(_))));
}

#[test]
fn sizes_by_hand() {
    let shapes = [shape("a", 3, 5), shape("b", 2, 8)];
    let plan = plan(&[("a", 3, 2), ("b", 8, 1)]);
    let size = plan.size(&shapes).unwrap();
    // 15 codes of 3 bits are 45 bits, 6 bytes; 16 codes are 16 bytes; three groups.
    assert_eq!((size.weights, size.codes, size.ranges), (31, 22, 15));
    assert_eq!((size.total(), size.dense()), (37, 124));
    assert_abs_diff_eq!(plan.average_bits(&shapes).unwrap(), (45.0 + 128.0) / 31.0);
    assert_eq!(plan.size(&shapes[..1]).unwrap().codes, 6);
    assert_eq!(plan.average_bits(&[]).unwrap(), 0.0);
    assert!(matches!(plan.size(&[shape("z", 1, 1)]), Err(QuantError::Missing(_))));
}

/// Q-BERT's table, Table 1a: which megabyte, and what is counted.
#[test]
fn the_papers_sizes() {
    let layer = 12 * (4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768) as u64;
    let embeddings = ((30522 + 512 + 2 + 2) * 768) as u64;
    let digit = |bytes: u64| (megabytes(bytes) * 10.0).round() / 10.0;
    assert_eq!((digit(4 * (layer + embeddings)), digit(4 * layer)), (415.4, 324.5));
    let extra = 72 * 128 * 8 + 4 * (768 * 2 + 2);
    for (bits, all, encoder) in [(8, 103.9, 81.2), (4, 63.4, 40.6), (3, 53.2, 30.5), (2, 43.1, 20.4)] {
        let cut = layer * bits / 8 + extra;
        assert_eq!((digit(cut + embeddings), digit(cut)), (all, encoder), "{bits} bits");
    }
}
