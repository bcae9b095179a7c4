//! `--device vulkan` where it is built in.

use std::fs;
use std::io::{self, Write};

use serde_json::Value;

use super::run::Place;
use super::{Called, call};

const VULKAN: [&str; 2] = ["--device", "vulkan"];

/// Losses of two devices that round in another order, after a few steps.
const TOLERANCE: f64 = 1e-4;

/// The losses of a finished run's first stage.
fn losses(place: &Place) -> Vec<f64> {
    let log = fs::read_to_string(place.path("out/seed1/finetune/training/metrics.jsonl")).expect("a log");
    let row = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64().expect("a loss");
    log.lines().map(row).collect()
}

#[test]
fn trains_measures_and_cuts_as_the_cpu_does() {
    let [cpu, gpu] = [Place::new(), Place::new()];
    let called = gpu.run(&[&VULKAN[..], &["--json"]].concat());
    if called.code == Some(2) && called.stderr.contains("no adapter found") {
        // Past the capture of what tests print.
        let _ = writeln!(io::stderr(), "no Vulkan adapter: no training compared");
        return;
    }
    assert_eq!(called.code, Some(0), "{}", called.stderr);
    let result: Value = serde_json::from_str(&called.stdout).expect("one JSON object");
    assert!(result["device"].as_str().is_some_and(|name| name.starts_with("vulkan, ")), "{result}");
    assert!(result["notes"][0].as_str().is_some_and(|note| note.starts_with("Computed on vulkan")), "{result}");

    assert_eq!(cpu.run(&[]).code, Some(0));
    let (actual, expected) = (losses(&gpu), losses(&cpu));
    assert_eq!(actual.len(), expected.len());
    for (step, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        assert!((actual - expected).abs() < TOLERANCE * expected, "step {step}: {actual}, on the CPU {expected}");
    }

    // What one device computed is not what the other would.
    let again = gpu.run(&[]);
    assert_eq!((again.code, again.stderr.contains("done before")), (Some(0), false), "{}", again.stderr);
}

#[test]
fn a_machine_without_an_adapter_is_told_in_one_line() {
    // The loader then knows no driver.
    let called = Place::new().command(&VULKAN).env("VK_DRIVER_FILES", "/none.json").output().expect("it starts");
    let called = Called::of(called);
    assert!(called.error(2).starts_with("--device vulkan: no adapter found; install"), "{}", called.stderr);
}

#[test]
fn what_it_cannot_do_is_refused() {
    for (arguments, expected) in [
        (&["bench", "gemm"][..], "bench gemm times the CPU"),
        (
            &["bench", "train", "--only", "decoder_step.bf16"],
            "--only decoder_step.bf16: bench train has decoder_step.f32",
        ),
    ] {
        let called = call(&[arguments, &VULKAN].concat());
        if !called.stderr.contains("no adapter found") {
            assert!(called.stderr.contains(&format!("error: {expected}")), "{}", called.stderr);
        }
    }
    let called = Place::new().run(&[&VULKAN[..], &["--set", "finetune.precision=bf16"]].concat());
    if !called.stderr.contains("no adapter found") {
        let expected = "error: finetune.precision = \"bf16\": --device vulkan multiplies in f32 only";
        assert!(called.code == Some(2) && called.stderr.contains(expected), "{}", called.stderr);
    }
}
