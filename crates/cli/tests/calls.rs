//! Calls that cannot be carried out end with one line and exit code 2.

use super::{Called, call, lapidary};

#[test]
fn bad_calls_are_told_in_one_line() {
    for (arguments, expected) in [
        (&["polish"][..], "unrecognized subcommand 'polish'"),
        (&["inspect"], "the following required arguments were not provided: <PATH>"),
        (&["inspect", "x", "--fast"], "unexpected argument '--fast' found"),
        (&["inspect", "x", "--threads", "0"], "invalid value '0' for '--threads <N>'"),
        (&["inspect", "x", "--threads", "many"], "invalid value 'many' for '--threads <N>'"),
        (&["inspect", "x", "--seed", "-1"], ""),
        (&["bench", "train", "--repeats", "0"], "invalid value '0' for '--repeats <N>'"),
        (&["inspect", "x", "--device", "abacus"], "invalid value 'abacus' for '--device <DEVICE>'"),
    ] {
        let called = call(arguments);
        let error = called.error(2);
        assert!(error.starts_with(expected), "{error}\nshould begin with\n{expected}");
    }
    let called =
        Called::of(lapidary().args(["inspect", "x"]).env("LAPIDARY_LOG", "a=b=c").output().expect("it starts"));
    assert!(called.error(2).starts_with("LAPIDARY_LOG=a=b=c: "));
}

#[cfg(not(feature = "vulkan"))]
#[test]
fn a_device_that_is_not_built_in_is_told_with_how_to_build_it() {
    for arguments in [&["inspect", "x"][..], &["demo"], &["bench", "train"], &["run", "recipe.toml"]] {
        let called = call(&[arguments, &["--device", "vulkan"]].concat());
        assert_eq!(
            called.error(2),
            "--device vulkan: not built in; this binary computes on the CPU only. \
             `cargo build --release --features vulkan` makes one that has it"
        );
    }
}

#[test]
fn bad_recipes_are_told_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("recipe.toml");
    let recipe = path.to_str().expect("UTF-8");
    assert!(call(&["run", recipe]).error(2).starts_with(&format!("cannot read the recipe {recipe}: ")));

    let text = "name = \"r\"\n[model]\ncheckpoint = \"no-such\"\nlabels = [\"a\", \"b\"]\n\
                [data]\ntrain = \"t\"\ndev = \"d\"\ntext = \"s\"\nlabel = \"l\"\n";
    std::fs::write(&path, format!("{text}rows = 3\n")).expect("written");
    assert!(call(&["run", recipe]).error(2).starts_with(&format!("{recipe}:10:1: data.rows: unknown field `rows`")));
    std::fs::write(&path, text).expect("written");
    let set = ["run", recipe, "--set", "finetune.epochs=two"];
    assert!(call(&set).error(2).starts_with("--set finetune.epochs=two: finetune.epochs: invalid type"));
    assert!(call(&["run", recipe]).error(2).starts_with("no checkpoint `no-such`; looked for no-such and "));
}

#[test]
fn help_is_no_error() {
    let help = call(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.contains("inspect"));
    let version = call(&["--version"]);
    assert_eq!(version.stdout, format!("lapidary {}\n", env!("CARGO_PKG_VERSION")));
    let none = call(&[]);
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("Usage: lapidary"));
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_is_no_failure() {
    use std::process::Stdio;

    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = lapidary();
    let child = command.arg("--help").stdout(Stdio::from(writer)).stderr(Stdio::piped()).spawn().expect("it starts");
    let called = Called::of(child.wait_with_output().expect("it ends"));
    assert_eq!((called.code, called.stderr.as_str()), (Some(0), ""));
}
