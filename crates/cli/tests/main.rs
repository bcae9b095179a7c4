//! The binary as its users call it, in one test binary.

mod calls;
#[cfg(feature = "mpi")]
mod cluster;
mod curvature;
mod inspect;
mod pictures;
mod run;
mod tasks;
mod text;
#[cfg(feature = "vulkan")]
mod vulkan;

use std::process::{Command, Output};

/// What a call gave.
struct Called {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Called {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The message of a call that must fail with this code, one line, and print nothing else.
    fn error(&self, code: i32) -> &str {
        let (stdout, stderr) = (&self.stdout, &self.stderr);
        assert_eq!(self.code, Some(code), "{stderr}");
        assert_eq!(stdout, "", "nothing on standard output");
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
        stderr.trim_end().strip_prefix("error: ").expect("begins with `error: `")
    }
}

fn lapidary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapidary"));
    for variable in ["LAPIDARY_DATA", "LAPIDARY_MODELS", "LAPIDARY_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn call(arguments: &[&str]) -> Called {
    Called::of(lapidary().args(arguments).output().expect("the binary starts"))
}
